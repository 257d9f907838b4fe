"""What kind of place an input names; imports nothing heavy, so that a command line can be judged at once."""

from __future__ import annotations

import re
from pathlib import Path

PIPE = "-"
"""The standard input."""
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s'\"]*@", re.IGNORECASE)


def without_userinfo(text: str) -> str:
    """A text with URLs that name no user and no password, for whatever is told or kept.

    >>> without_userinfo("'rtsp://me:secret@camera:554/door': refused")
    "'rtsp://camera:554/door': refused"
    """
    return _USERINFO.sub(r"\1", text)


def is_stream(location: str) -> bool:
    """Whether an input is a stream: a URL, a camera device, or ``-`` for the standard input.

    >>> [is_stream(name) for name in ("rtsp://camera/1", "-", "video.mp4", "C:/video.mp4")]
    [True, True, False, False]
    """
    return location == PIPE or bool(URL.match(location)) or is_camera(location)


def is_camera(location: str) -> bool:
    """Whether a place is a device."""
    return location.startswith("/dev/") and Path(location).is_char_device()
