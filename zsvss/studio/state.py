"""What an annotation is after its steps: names, segments that were merged or split, and frames with masks of their own.

The state is a fold of the journal's entries. An entry belongs to a step; undo takes the last step back, and redo brings
it again. Undo and redo are entries themselves.

Shapes: H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zsvss.results.id_images import NOTHING
from zsvss.studio.journal import Entry

_MASK_FILE = re.compile(r"\d+-\d+\.png", re.ASCII)


class FrameMask(NamedTuple):
    """A frame whose mask is not the predicted one any more.

    Attributes:
        file: name of the mask's file.
        areas: pixels of each segment, by the ids in the file.
        corrected: whether a person has drawn in it.
    """

    file: str
    areas: Mapping[int, int]
    corrected: bool


@dataclass
class State:
    """An annotation.

    Attributes:
        names: given to segments, by id.
        merged: segment that each merged one has become; 0 for a deleted one.
        added: segment that each new one was split from; 0 for one that is painted.
        frames: masks that replace predicted ones, by frame.
        accepted: frames that a person has accepted.
    """

    names: dict[int, str] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    added: dict[int, int] = field(default_factory=dict)
    frames: dict[int, FrameMask] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)

    @property
    def given(self) -> list[int]:
        """Frames that hold the truth: those that a person has corrected or accepted, in order."""
        corrected = {number for number, frame in self.frames.items() if frame.corrected}
        return sorted(corrected | self.accepted)

    def root(self, segment: int) -> int:
        """What a segment has become by merging; 0 if it was deleted."""
        while segment in self.merged:
            segment = self.merged[segment]
        return segment

    def table(self, highest: int) -> npt.NDArray[np.int32]:
        """What each id of a mask means now, int32 ``[highest + 1]``."""
        return np.array([self.root(number) for number in range(highest + 1)], dtype=np.int32)

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Take an entry in."""
        kind = entry["op"]
        if kind == "name":
            self.names |= dict.fromkeys(entry["segments"], entry["name"])
        elif kind == "merge":
            self.merged |= {segment: entry["into"] for segment in entry["segments"] if segment != entry["into"]}
        elif kind == "delete":
            self.merged |= dict.fromkeys(entry["segments"], NOTHING)
        elif kind == "add":
            self.added[entry["segment"]] = entry["parent"]
        elif kind == "mask":
            if not _MASK_FILE.fullmatch(entry["file"]):
                raise ValueError(f"{entry['file']!r} is no name of a mask")
            before = self.frames.get(entry["frame"])
            corrected = bool(entry["corrected"] or (before is not None and before.corrected))
            areas = {int(segment): area for segment, area in entry["areas"].items()}
            self.frames[entry["frame"]] = FrameMask(entry["file"], areas, corrected)
        elif kind == "release":
            self.frames[entry["frame"]] = self.frames[entry["frame"]]._replace(corrected=False)
        elif kind == "accept":
            (self.accepted.add if entry["accepted"] else self.accepted.discard)(entry["frame"])
        else:
            raise ValueError(f"unknown entry {kind!r}")


class Step(NamedTuple):
    """What is undone at once.

    Attributes:
        number: from 1.
        label: what it was, for people.
        entries: of the journal.
    """

    number: int
    label: str
    entries: list[Entry]


class History:
    """The steps of a journal, and the state that they lead to.

    Args:
        entries: of the journal.

    Raises:
        ValueError: an entry makes no sense.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self.done: list[Step] = []
        self.undone: list[Step] = []
        self.state = State()
        self.last_step = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take the next entry in."""
        kind = entry["op"]
        if kind == "undo":
            self.undone.append(self.done.pop())
            self._fold()
        elif kind == "redo":
            self.done.append(self.undone.pop())
            self._fold()
        elif kind != "saved":
            if not self.done or self.done[-1].number != entry["step"]:
                self.done.append(Step(entry["step"], str(entry.get("label", kind)), []))
                self.undone.clear()
            self.last_step = max(self.last_step, entry["step"])
            self.done[-1].entries.append(entry)
            self.state.apply(entry)

    def _fold(self) -> None:
        self.state = State()
        for step in self.done:
            for entry in step.entries:
                self.state.apply(entry)
