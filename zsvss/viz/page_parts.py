"""Where the videos of a page are: in the page while they are small, in files beside it when it would grow large.

A page opened from a disk may not read other files, but it may run scripts of its own folder. So a part is a script that
hands over values: ``zsvssPart(name, {...})``. The page asks for it when its video is looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zsvss.results.atomic_files import write_atomically

LARGEST_FILE = 10_000_000
"""Bytes that a page stays below, and each of its parts, unless one piece of a video alone is larger."""
_PART = 4_000_000
"""Bytes that the pieces of a part have together, unless one alone has more. Characters of JSON are ASCII."""
_NAME = re.compile(r"\d{4,}-[0-9a-f]{8}\.js")

PageVideo = dict[str, Any]
"""A video as a page has it, in plain values; ``pieces``, by name, are those that weigh something."""


class Parts:
    """The files beside a page.

    Args:
        page: file of the page.
        largest: bytes that the page stays below.
    """

    def __init__(self, page: Path, largest: int = LARGEST_FILE) -> None:
        self.folder = page.with_name(f"{page.stem}.parts")
        self.largest = largest
        self._written: list[str] = []

    def place(self, videos: Iterable[PageVideo], others: int) -> list[PageVideo]:
        """Decide where the videos' pieces are, and write those that are not in the page.

        Args:
            videos: with their ``pieces`` by name; one after the other, so that memory does not grow with their number.
            others: bytes of the page without videos.

        Returns:
            the videos as the page has them: with their ``pieces``, or all of them with ``parts``, the names of the
            pieces in each file.
        """
        placed: list[PageVideo] = []
        room = self.largest - others
        for video in videos:
            room -= len(json.dumps(video))
            placed.append(video)
            if room < 0:
                placed = [self._outside(entry) for entry in placed]
        return placed

    def clean(self) -> None:
        """Remove the parts of an earlier page, once the new one is there."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) and path.stem not in self._written:
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _outside(self, video: PageVideo) -> PageVideo:
        """A video with its pieces in files."""
        if "parts" in video:
            return video
        parts = {}
        for pieces in _shared_out(video["pieces"]):
            content = ",".join(f"{json.dumps(name)}:{text}" for name, text in pieces.items())
            digest = hashlib.sha256(content.encode()).hexdigest()[:8]
            name = f"{len(self._written):04d}-{digest}"
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / f"{name}.js", f'zsvssPart("{name}",{{{content}}});\n')
            self._written.append(name)
            parts[name] = list(pieces)
        return {**{key: value for key, value in video.items() if key != "pieces"}, "parts": parts}


def _shared_out(pieces: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Pieces as JSON, as many together as fit into a part."""
    together: dict[str, str] = {}
    for name, piece in pieces.items():
        text = json.dumps(piece)
        if together and sum(map(len, together.values())) + len(text) > _PART:
            yield together
            together = {}
        together[name] = text
    yield together
