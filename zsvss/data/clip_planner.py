"""Clips of a video whose length and shots show only while its frames are read.

T frames of a clip, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from torch import Tensor

from zsvss.data.clip import Tail
from zsvss.data.shots import ShotDetector, ShotFinder

# Bytes as characters: Lightning would look at each byte when it moves a clip to the device, but leaves text alone.
_AS_TEXT = "latin-1"


class Frame(NamedTuple):
    """A frame as it was read.

    Attributes:
        name: File stem, or zero-padded number.
        image_HW3: uint8 RGB.
        labels_HW: uint8 raw ground truth at its own size; None if the frame has none.
        time: Seconds from a stream's first frame to this one; None for other videos.
        received: Seconds since the epoch when it came in; None where it was there before.
    """

    name: str
    image_HW3: Tensor
    labels_HW: Tensor | None = None
    time: float | None = None
    received: float | None = None


class Cutout(NamedTuple):
    """Frames that make a clip.

    Attributes:
        index: Number of the clip, from 0.
        start: Number of its first frame.
        frames: The frames.
        num_final: How many of them no later clip predicts again.
        shot: Number of its shot, from 0; None where shots are not followed.
        is_last: Whether the video ends with it.
        place: With what `ClipPlanner.at` goes on after it.
    """

    index: int  # type: ignore[assignment]  # in place of a tuple's own
    start: int
    frames: tuple[Frame, ...]
    num_final: int
    shot: int | None
    is_last: bool
    place: str


class ClipPlanner:
    """Cuts a video into clips while it is read: each shot as `clip_starts` cuts a video.

    Where the length or the shots are not known, the frames of two clips are held, which is what it takes to move the
    last clip of a shot back; with tail ``short`` those of one. The cut of a dissolve that is recognised late comes at
    the first frame that is in no clip yet.

    Args:
        clip_length: T.
        tail: What becomes of a shot's remainder, see `clip_starts`.
        shots: Finds the shots; None takes the whole video for one.
        num_frames: Length of the video; None if that shows at its end.
    """

    def __init__(
        self, clip_length: int, tail: Tail = "overlap", shots: ShotDetector | None = None, num_frames: int | None = None
    ) -> None:
        self.clip_length, self.tail, self.num_frames = clip_length, tail, num_frames
        self._finder: ShotFinder | None = None if shots is None else shots.start()
        self._cuts: deque[int] = deque()
        self._index = self._start = 0
        self._shot = None if shots is None else 0

    @classmethod
    def at(cls, place: str) -> ClipPlanner:
        """The planner as it was when it gave a clip with this ``place``."""
        planner: ClipPlanner = pickle.loads(place.encode(_AS_TEXT))
        return planner

    @property
    def place(self) -> str:
        """Everything that decides about the next clips, but for the frames."""
        return pickle.dumps(self).decode(_AS_TEXT)

    @property
    def start(self) -> int:
        """Number of the first frame that `clips` needs."""
        return self._start

    def clips(self, frames: Iterator[Frame]) -> Iterator[Cutout]:
        """The clips of the frames from `start` on."""
        buffer: deque[Frame] = deque()
        while True:
            self._take(frames, buffer)
            is_over = self._finder is None or self._start + len(buffer) == self.num_frames
            end = self._cuts[0] if self._cuts else self.num_frames if is_over else None
            if end == self._start:
                if is_over and not self._cuts:
                    return
                self._cuts.popleft()
                self._shot = None if self._shot is None else self._shot + 1
                continue
            length, num_final = self._next(None if end is None else end - self._start)
            index, start, taken = self._index, self._start, tuple(islice(buffer, length))
            for _ in range(num_final):
                buffer.popleft()
            self._index, self._start = index + 1, start + num_final
            is_last = self._start == self.num_frames
            yield Cutout(index, start, taken, num_final, self._shot, is_last, self.place)

    def _next(self, rest: int | None) -> tuple[int, int]:
        """Length of the next clip and how many of its frames are final, where ``rest`` frames of its shot are left."""
        length = self.clip_length
        if rest is None or rest >= 2 * length or rest == length:
            return length, length
        if rest < length:
            return rest, rest
        return length, length if self.tail == "short" else rest - length

    def _take(self, frames: Iterator[Frame], buffer: deque[Frame]) -> None:
        """Read until the next clip is certain, or the video is over."""
        is_planned = self._finder is None and self.num_frames is not None
        needed = self._start + self.clip_length * (1 if self.tail == "short" or is_planned else 2)
        while True:
            read = self._start + len(buffer)
            settled = read if self._finder is None else min(read, self._finder.settled)
            is_cut = bool(self._cuts) and self._cuts[0] <= min(needed, read)
            # One frame more than the clip, so that it is known whether the video ends with it.
            is_certain = settled >= needed and (read > needed or is_planned)
            if is_cut or is_certain or read == self.num_frames:
                return
            frame = next(frames, None)
            if frame is None:
                self.num_frames = read
                self._note([] if self._finder is None else self._finder.finish())
                return
            buffer.append(frame)
            if self._finder is not None and read >= self._finder.num_seen:
                self._note(self._finder.feed(frame.image_HW3.numpy()))
                if read + 1 == self.num_frames:
                    self._note(self._finder.finish())

    def _note(self, cuts: list[int]) -> None:
        for cut in cuts:
            cut = max(cut, self._start)
            if cut > (self._cuts[-1] if self._cuts else 0) and cut != self.num_frames:
                self._cuts.append(cut)
