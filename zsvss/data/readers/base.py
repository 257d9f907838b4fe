"""The contract of every reader of frames.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import gc
import os
import re
from abc import ABC, abstractmethod

from torch import Tensor

from zsvss.data.video_facts import VideoFacts

_DECORD_PREFIX = re.compile(r"\[[0-9:]+\] \S+:[0-9]+: ")

# A forked process that collects a decoder inherited as garbage would wait for ever for threads that it does not have;
# what is frozen before the fork is never collected in it.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)


class FrameReader(ABC):
    """The frames of one video, decoded on demand."""

    @property
    @abstractmethod
    def facts(self) -> VideoFacts:
        """Number, size and times of the frames."""

    def __len__(self) -> int:
        """Number of frames."""
        return self.facts.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self.facts.size

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every frame: its number, zero-padded, unless the reader knows a better one."""
        return tuple(f"{number:05d}" for number in range(len(self)))

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1.

        Returns:
            uint8 RGB of shape (stop - start, H, W, 3).

        Raises:
            IndexError: If the range is empty or leaves the video.
            ValueError: If a frame cannot be decoded.
        """

    def close(self) -> None:  # noqa: B027 - not all hold something
        """Free what the reader holds; it cannot be used afterwards."""

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"frames {start}..{stop} of a video of {len(self)} frames")


def first_line(error: BaseException) -> str:
    """What an exception says, without Decord's time stamps and source lines."""
    lines = _DECORD_PREFIX.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
