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


def write_atomically(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Write a file so that it has the old content or the new one whenever the machine stops.

    Args:
        path: of the file.
        content: its text or bytes, or pieces of its text, which are written one by one.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    pieces = [content] if isinstance(content, str | bytes) else content
    try:
        with temporary.open("xb") as file:
            file.writelines(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    flush(path.parent, below=False)  # the rename itself


def flush(place: Path, *, below: bool = True) -> None:
    """Wait until a file or folder is on the disk, so that it is there whenever the machine stops.

    Args:
        place: file or folder.
        below: a folder's files and folders as well; otherwise only their names.
    """
    if below and place.is_dir():
        for entry in place.iterdir():
            flush(entry)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
