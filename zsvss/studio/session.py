"""An annotation that is open: the predictions of a video, the steps taken on them, and the masks that these have left.

::

    <video>/studio/studio.jsonl         the steps, see `zsvss.studio.journal`
                   masks/               masks of frames that were changed
                   original/            the predictions as the run left them, once something was saved into the run
                   lock                 held while a studio has the video open

Shapes: H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from zsvss.results.atomic_files import write_atomically
from zsvss.results.id_images import LARGEST_ID, NOTHING, read_ids, write_ids
from zsvss.results.predictions import ANNOTATION, FILE, Color, Ids, Predictions, PredictionsError, present_ids
from zsvss.results.segment_colors import palette, visible
from zsvss.studio.editing import areas
from zsvss.studio.frames import Frames
from zsvss.studio.journal import Entry, Journal, JournalError
from zsvss.studio.request_fields import FieldError
from zsvss.studio.state import History, State

ORIGINAL = "original"
ORIGINAL_FILE = "predictions.json"
"""Name of the first ``segments.json`` below ``original``; another one than its own, so that it is no second video."""


class ConflictError(Exception):
    """A step that was asked for from another state than the present one, or while something is computed."""


class LockedError(ValueError):
    """A video that another studio has open."""


class Shown(NamedTuple):
    """A segment as it is now.

    Attributes:
        id: its own, of those that were merged the one they became.
        name: given, or made of the id.
        color: RGB; segments of one name have one.
    """

    id: int
    name: str
    color: Color


class Session:
    """The annotation of one video.

    Args:
        folder: of the video's predictions.

    Raises:
        PredictionsError: there are none, or they have no masks.
        JournalError: the annotation is damaged or of other predictions.
        LockedError: another studio has the video open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / ANNOTATION
        (self.place / "masks").mkdir(parents=True, exist_ok=True)
        self._file_lock = hold(folder)
        try:
            self.original = self._read_original()
            path = self.place / ORIGINAL / ORIGINAL_FILE
            digest = digest_of(path if path.exists() else folder / FILE)
            self.journal = Journal(self.place / "studio.jsonl", {"video": self.original.video, "predictions": digest})
            self.history = self._read_history()
        except BaseException:
            self._file_lock.release()
            raise
        self.frames = Frames(self.original.source, (self.original.height, self.original.width))
        self.lock = RLock()
        self.busy: str | None = None
        """What is being computed; no step can be taken meanwhile."""

    @property
    def revision(self) -> int:
        """Number of entries; a step names the one that it was made from."""
        return self.journal.revision

    @property
    def state(self) -> State:
        """What the annotation is now."""
        return self.history.state

    def close(self) -> None:
        """Let another studio have it."""
        self.frames.close()
        self.journal.close()
        self._file_lock.release()

    def mask_path(self, number: int) -> Path:
        """File of a frame's mask; what its ids mean now `State.table` says."""
        changed = self.state.frames.get(number)
        if changed is not None:
            return self.place / "masks" / changed.file
        assert self.original.mask_files is not None
        return self.original.folder / self.original.mask_files[number]

    def mask(self, number: int) -> Ids:
        """Segment of each pixel of a frame as it is now, int32 ``[H, W]``; 0 is none.

        Raises:
            PredictionsError: the mask is missing or damaged.
        """
        path, size = self.mask_path(number), (self.original.height, self.original.width)
        try:
            ids_HW = read_ids(path)
        except (OSError, ValueError) as error:
            raise PredictionsError(f"{path} cannot be read ({error}); restore it from a copy") from error
        if ids_HW.shape != size:
            found, wanted = (f"{width}x{height}" for height, width in (ids_HW.shape, size))
            raise PredictionsError(f"{path} is {found}, not {wanted} as the video; restore it from a copy")
        known = {NOTHING, *(segment.id for segment in self.original.segments), *self.state.added}
        if unknown := sorted(set(present_ids(ids_HW)) - known):
            raise PredictionsError(f"{path} has segments {unknown}, which there are not; restore it from a copy")
        return self.state.table(int(ids_HW.max(initial=0)))[ids_HW]

    def areas(self, number: int) -> dict[int, int]:
        """Pixels of each segment of a frame as it is now."""
        changed = self.state.frames.get(number)
        raw: Mapping[int, int] = changed.areas if changed else self._original_areas(number)
        found: dict[int, int] = {}
        for segment, area in raw.items():
            if (root := self.state.root(segment)) != 0:
                found[root] = found.get(root, 0) + area
        return found

    def segments(self) -> list[Shown]:
        """The segments as they are now, in order of their ids."""
        own = {segment.id: segment for segment in self.original.segments}
        colors = {entry.name: _visible(entry.color) for entry in self.original.classes}
        shown = []
        for number in sorted({*own, *self.state.added} - set(self.state.merged)):
            name = self.state.names.get(number) or (own[number].name if number in own else f"segment {number}")
            color = own[number].color if number in own else color_of(number)
            shown.append(Shown(number, name, colors.setdefault(name, color)))
        return shown

    def perform(self, revision: int, label: str, act: Callable[[Session], Sequence[Entry]]) -> None:
        """Take a step.

        Args:
            revision: that the step was made from.
            label: what it is, for people.
            act: the step's entries, from the present state.

        Raises:
            ConflictError: the annotation has another revision by now, or something is being computed.
        """
        with self.lock:
            self.check(revision)
            self.extend(self.new_step(), label, act(self))

    def check(self, revision: int) -> None:
        """Refuse a step that was made from another state; raises what `perform` raises."""
        if self.busy is not None:
            raise ConflictError(f"{self.busy} is under way; wait for it, or stop it")
        if revision != self.revision:
            raise ConflictError(
                f"the annotation has changed (revision {self.revision}, not {revision}), perhaps in another tab; look "
                "at it and try again"
            )

    def new_step(self) -> int:
        """Number of the next step."""
        return self.history.last_step + 1

    def extend(self, step: int, label: str, entries: Sequence[Entry]) -> None:
        """Add entries to a step, the last one or a new one."""
        with self.lock:
            for entry in entries:
                self.history.add(self.journal.append({"step": step, "label": label, **entry}))

    def undo(self, revision: int) -> None:
        """Take the last step back; raises what `perform` raises, also if there is none."""
        self._turn(revision, "undo", bool(self.history.done))

    def redo(self, revision: int) -> None:
        """Take the step again that was taken back; raises what `perform` raises, also if there is none."""
        self._turn(revision, "redo", bool(self.history.undone))

    def new_mask(self, number: int, ids_HW: Ids, *, corrected: bool) -> Entry:
        """Write a frame's new mask; returns the entry that puts it in place.

        Args:
            number: of the frame.
            ids_HW: segment of each pixel as ids are now.
            corrected: whether a person has drawn it.
        """
        content = BytesIO()
        write_ids(content, ids_HW, self.colors())
        with self.lock:
            name = f"{number:06d}-{self.revision + 1:07d}.png"
        write_atomically(self.place / "masks" / name, content.getvalue())
        return {"op": "mask", "frame": number, "file": name, "areas": areas(ids_HW), "corrected": corrected}

    def new_ids(self, num: int) -> list[int]:
        """Ids that no segment of this annotation has had, also none that was taken back.

        Raises:
            FieldError: there are no more that a mask can hold.
        """
        used = [segment.id for segment in self.original.segments]
        used += [entry["segment"] for entry in self.journal.entries if entry["op"] == "add"]
        first = max(used, default=0) + 1
        if first + num - 1 > LARGEST_ID:
            raise FieldError(f"masks hold ids up to {LARGEST_ID}, which are used up; take a segment that is there")
        return list(range(first, first + num))

    def colors(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """RGB of the ids 0, 1, ..., uint8 ``[any, 3]``; 0 is black."""
        shown = self.segments()
        table = np.zeros((max((segment.id for segment in shown), default=0) + 1, 3), np.uint8)
        for segment in shown:
            table[segment.id] = segment.color
        return table

    def _turn(self, revision: int, kind: str, possible: bool) -> None:
        with self.lock:
            self.check(revision)
            if not possible:
                raise ConflictError(f"there is nothing to {kind}")
            self.history.add(self.journal.append({"op": kind}))

    def _original_areas(self, number: int) -> dict[int, int]:
        found = {}
        for segment in self.original.segments:
            index = int(np.searchsorted(segment.frames, number))
            if index < len(segment.frames) and int(segment.frames[index]) == number:
                found[segment.id] = int(segment.areas[index])
        return found

    def _read_original(self) -> Predictions:
        kept = self.place / ORIGINAL
        original = Predictions.read(kept, ORIGINAL_FILE) if kept.is_dir() else Predictions.read(self.folder)
        if original.mask_files is None:
            raise PredictionsError(
                f"{self.folder} has no masks: the run had predictions.masks false. Start it again with "
                "--predictions.masks true"
            )
        return original

    def _read_history(self) -> History:
        try:
            history = History(self.journal.entries)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise JournalError(
                f"{self.journal.path} has an entry that makes no sense ({type(error).__name__}: {error}); restore it "
                "from a copy, or move it away to begin anew"
            ) from error
        for frame in history.state.frames.values():
            if not (self.place / "masks" / frame.file).is_file():
                raise JournalError(f"{self.place / 'masks' / frame.file} is missing; restore it from a copy")
        return history


def hold(folder: Path) -> FileLock:
    """Keep other studios from a video; they can have it when this process ends, however it does.

    Args:
        folder: of the video's predictions.

    Raises:
        LockedError: another one has it.
    """
    (folder / ANNOTATION).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ANNOTATION / "lock", is_singleton=False, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LockedError(f"{folder} is open in another studio; close that one first (Ctrl-C where it runs)") from error
    return lock


def digest_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _visible(color: Color) -> Color:
    red, green, blue = visible([color])[0].tolist()
    return red, green, blue


def color_of(segment: int) -> Color:
    """Colour of a segment that has none of its own."""
    red, green, blue = palette(segment)[segment - 1].tolist()
    return red, green, blue
