"""Atomic file writes, and pages of which one part is written anew."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

_LONGEST_NAME = 150
TEMPORARY = ".tmp-"
"""How the name of a file begins that is not whole yet."""


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a file so that it has the old content or the new one whenever the machine stops.

    Args:
        path: of the file.
        text: its content, or pieces of it, which are written one by one.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def fill_in(page: Path, name: str, text: str) -> None:
    """Replace what lies between ``<!-- name -->`` and ``<!-- end of name -->`` in a page.

    Raises:
        ValueError: if the page does not have both, in this order.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found_start, rest = page.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(f"{page} must have the lines {start!r} and, below, {end!r}, for the table to lie between.")
    write_atomically(page, f"{before}{start}\n{text}\n{end}{after}")


def check_folder(path: Path, key: str) -> None:
    """Refuse a place for results that is a file or lies below one.

    Args:
        path: the folder, which need not exist.
        key: the setting that names it, for the message.

    Raises:
        ValueError: if it can be no folder.
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(
                f"{key} is {path}, but {place} is a file; give a folder: a new one, or that of the run to go on with"
            )
        if place.is_dir():
            return


def safe_folder(video: str) -> PurePosixPath:
    """Relative folder for a video's name, which may hold slashes but cannot lead out of the run folder.

    >>> str(safe_folder("frankfurt/000001")), str(safe_folder("../../etc")), str(safe_folder("/a"))
    ('frankfurt/000001', 'etc', 'a')
    """
    parts = [part for part in PurePosixPath(video).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts or ["video"])


def file_stem(video: str) -> str:
    """A file name for a video's name, which may hold anything; different names never share one.

    >>> file_stem("frankfurt/000001")
    'frankfurt%2F000001'
    """
    name = quote(video, safe=" ")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(video.encode()).hexdigest()[:16]}"
    return name
