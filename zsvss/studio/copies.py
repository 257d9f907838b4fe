"""JPEG copies of the frames of a video file, on disk while the studio is open.

A frame of such a file can be decoded only after all those from the key frame before it. They may be hundreds, which
takes seconds at 1080p.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from threading import Lock

MOST_BYTES = 4 << 30
SPARED_BYTES = 1 << 30
"""What stays free on the disk, so that copies never take the room of what a person does."""


class Copies:
    """Contents of files by a number, one after the other in a file without a name, which is gone when this process is.

    May be used by several threads.

    Args:
        folder: on whose disk they are.
        limit: of all together, in bytes.

    Raises:
        OSError: no file can be made there.
    """

    def __init__(self, folder: Path, limit: int = MOST_BYTES) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by `close`
        self._limit, self._size = limit, 0
        self._places: dict[int, tuple[int, int]] = {}
        self._lock = Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def get(self, number: int) -> bytes | None:
        """A content that was put, or None."""
        with self._lock:
            if number not in self._places:
                return None
            start, length = self._places[number]
            self._file.seek(start)
            return self._file.read(length)

    def put(self, number: int, content: bytes) -> bool:
        """Keep a content; returns whether there was room for it."""
        with self._lock:
            if self._size + len(content) > self._limit:
                return False
            try:
                if shutil.disk_usage(self._folder).free < SPARED_BYTES + len(content):
                    return False
                self._file.seek(self._size)
                written = self._file.write(content)
            except OSError:  # the disk is full after all
                return False
            if written != len(content):
                return False
            self._places[number] = self._size, len(content)
            self._size += len(content)
            return True

    def close(self) -> None:
        """Give the disk back."""
        with self._lock:
            self._places.clear()
            self._file.close()
