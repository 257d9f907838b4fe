"""Frames that come one by one, gathered into clips.

Shape legend: T frames of a clip, H W pixels; 3 is RGB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zsvss.stages.context import check_at_least_one

AnyFrame = Tensor | npt.NDArray[np.uint8]
"""uint8 RGB [H, W, 3]."""


class FindsCuts(Protocol):
    """Takes frames in order and tells where shots begin.

    Attributes:
        settled: the shots of the frames before this one are known.
    """

    settled: int

    def feed(self, frame_HW3: npt.NDArray[np.uint8]) -> list[int]:
        """Take the next frame; returns the numbers of frames that shots were found to begin with."""

    def finish(self) -> list[int]:
        """There are no more frames; returns what was open."""


def in_clips(
    frames: Iterable[AnyFrame], clip_length: int, shots: FindsCuts | None = None
) -> Iterator[tuple[Tensor, int | None]]:
    """Gather frames into clips as soon as they are certain; a clip ends with its shot.

    Args:
        frames: uint8 RGB [H, W, 3].
        clip_length: T.
        shots: finds cuts; a cut that is told late begins with the first frame that is in no clip yet.

    Yields:
        uint8 frames [T, H, W, 3], or fewer at a shot's end, and the number of their shot; ``None`` without ``shots``.

    Example:
        >>> [len(clip) for clip, _ in in_clips([torch.zeros(1, 1, 3)] * 5, 2)]
        [2, 2, 1]
    """
    check_at_least_one("stream", clip_length=clip_length)
    held, cuts = deque[Tensor](), deque[int]()
    start, shot = 0, None if shots is None else 0

    def take(settled: int) -> Iterator[tuple[Tensor, int | None]]:
        nonlocal start, shot
        while True:
            end = max(cuts[0], start) if cuts else None
            length = clip_length if end is None else min(clip_length, end - start)
            if start + length > settled:
                return
            if length:
                yield torch.stack([held.popleft() for _ in range(length)]), shot
                start += length
            if start == end:
                cuts.popleft()
                shot = None if shot is None else shot + 1

    for frame in frames:
        frame_HW3 = torch.as_tensor(frame).clone()  # whoever gives frames may use the same array again
        held.append(frame_HW3)
        if shots is not None:
            cuts.extend(shots.feed(frame_HW3.cpu().numpy()))
        yield from take(start + len(held) if shots is None else shots.settled)
    if shots is not None:
        cuts.extend(shots.finish())
    yield from take(start + len(held))
    if held:
        yield torch.stack(list(held)), shot
