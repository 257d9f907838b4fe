"""The steps of an annotation as lines of a file that only grows: what has been answered for is lost by no crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zsvss.results.atomic_files import flush

FORMAT, VERSION = "zsvss-studio", 1

Entry = dict[str, Any]


class JournalError(ValueError):
    """A journal that cannot be used."""


class Journal:
    """An append-only file: a header, then one JSON object a line, numbered from 1.

    A line counts when it is whole. What a crash has left of one after the last whole line is cut off when the file is
    opened; damage anywhere else is refused.

    Args:
        path: of the file; written anew if it is not there.
        header: what the annotation is of; that of a file that is there must say the same.

    Raises:
        JournalError: the file is damaged, of another version, or of something else.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: list[Entry] = []
        full = {"format": FORMAT, "version": VERSION, **header}
        if not path.exists() or not path.stat().st_size:
            self._file = path.open("ab", buffering=0)
            self._write(full)
            for folder in path.parents[:2]:  # the file's name, and that of its folder
                flush(folder, below=False)
            return
        lines, length = _whole_lines(path)
        self._check(lines[:1], full)
        self.entries = lines[1:]
        for number, entry in enumerate(self.entries, start=1):
            if entry.get("number") != number:
                raise JournalError(
                    f"{path}, line {number + 1}, has number {entry.get('number')}, not {number}; was it edited? "
                    "Restore it from a copy, or move it away to begin anew"
                )
        self._file = path.open("ab", buffering=0)
        self._file.truncate(length)

    @property
    def revision(self) -> int:
        """Number of the last entry; 0 before the first."""
        return len(self.entries)

    def append(self, entry: Mapping[str, Any]) -> Entry:
        """Write an entry down for good; returns it with its number.

        Raises:
            OSError: the disk is full or gone; the file is as it was before.
        """
        numbered = {"number": self.revision + 1, **entry}
        self._write(numbered)
        self.entries.append(numbered)
        return numbered

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        length = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(length)
            raise

    def _check(self, found: list[Entry], wanted: Mapping[str, Any]) -> None:
        header = found[0] if found else {}
        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise JournalError(
                f"{self.path} is no annotation of version {VERSION}; move it away to begin anew, or open it with the "
                "zsvss that wrote it"
            )
        for key, value in wanted.items():
            if header.get(key) != value:
                raise JournalError(
                    f"{self.path} annotates other predictions ({key} {header.get(key)!r}, not {value!r}): the run was "
                    "computed again. Move the folder away to begin anew"
                )


def _whole_lines(path: Path) -> tuple[list[Entry], int]:
    """The entries of a file and the length of all of them in bytes; a last line that was cut off is left out."""
    content = path.read_bytes()
    entries: list[Entry] = []
    length = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("no JSON object")
        except ValueError as error:
            if number == len(lines) - 1 and not lines[-1]:  # a disk may keep a line's length without its content
                break
            raise JournalError(
                f"{path}, line {number}, is damaged ({error}); restore it from a copy, or move it away to begin anew"
            ) from error
        entries.append(entry)
        length += len(line) + 1
    return entries, length
