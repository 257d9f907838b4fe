"""A video of a data set: where its frames and its ground truth are, and how both are read clip by clip.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zsvss.data.clip_planner import Frame
from zsvss.data.images import ByteArray, mask_size, read_mask
from zsvss.data.reader import Decoder, FrameReader, open_frames
from zsvss.data.video_facts import VideoFacts

UNLABELLED = 255
UNKNOWN_LENGTH = sys.maxsize
"""Number of frames of a video that is used to its end, wherever that is."""
_READ_AT_ONCE = 8


class UnreadableVideoError(ValueError):
    """A video that cannot be read; names the video, its file and the reason."""

    what = "cannot be read"

    def __init__(self, video: str, path: str, reason: str) -> None:
        super().__init__(video, path, reason)
        self.video, self.path, self.reason = video, path, reason

    def __str__(self) -> str:
        return f"video {self.video!r} ({self.path}) {self.what}: {self.reason}"


class UnsegmentedVideoError(UnreadableVideoError):
    """A video that could be read but not segmented."""

    what = "cannot be segmented"


class OpenVideo(ABC):
    """A video opened for reading."""

    num_dropped: int = 0
    """Frames of a stream that were left out because they came too fast."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of all frames."""

    @abstractmethod
    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Read the frames start..stop-1.

        Returns:
            uint8 RGB frames (T H W 3); uint8 raw ground truth (T H W, at its own size), None if none of these frames
            has any; bool (T), which frames have.
        """

    @property
    def num_frames(self) -> int | None:
        """How many frames there are; None if that shows at the end."""
        return len(self.names)

    @property
    def facts(self) -> VideoFacts | None:
        """Times of the frames and shape of the pixels, where the video is a file; None for images."""
        return None

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """The frames start..stop-1, or to the video's end, one after the other."""
        names = self.names
        for first in range(start, min(stop, len(names)), _READ_AT_ONCE):
            last = min(first + _READ_AT_ONCE, stop, len(names))
            frames_THW3, labels_THW, labelled_T = self.read(first, last)
            for t, name in enumerate(names[first:last]):
                yield Frame(name, frames_THW3[t], labels_THW[t] if labels_THW is not None and labelled_T[t] else None)

    def close(self) -> None:  # noqa: B027 - not all hold something
        """Free what is held."""


@dataclass(frozen=True)
class Video(ABC):
    """One video of a data set.

    Attributes:
        name: Unique in the data set.
        num_frames: Number of frames to use, from the first; `UNKNOWN_LENGTH` where that shows only when it is read.
        limit: Frames to use at most, where it may have fewer.
    """

    name: str
    num_frames: int
    limit: int = field(default=UNKNOWN_LENGTH, kw_only=True)

    @property
    @abstractmethod
    def path(self) -> str:
        """Where it comes from, for messages."""

    @property
    @abstractmethod
    def has_ground_truth(self) -> bool:
        """Whether any frame has ground truth."""

    @property
    def begins_labelled(self) -> bool:
        """Whether the first frame has ground truth."""
        return self.has_ground_truth

    @property
    def source(self) -> VideoFacts | None:
        """Times of the frames and shape of the pixels, where the video is a file; None for images."""
        return None

    @property
    def is_live(self) -> bool:
        """Whether its frames come once and from outside, so that they cannot be read again."""
        return False

    def opened(self, num_frames: int | None, facts: VideoFacts | None) -> Video:
        """The same with what is known now that it is open."""
        return self if num_frames is None else replace(self, num_frames=min(num_frames, self.at_most))

    @property
    def at_most(self) -> int:
        """Frames to use at most."""
        return min(self.num_frames, self.limit)

    @abstractmethod
    def open(self) -> OpenVideo:
        """Open it for reading.

        Raises:
            ValueError: If it cannot be read or has fewer frames than expected.
        """


@dataclass(frozen=True)
class FileVideo(Video):
    """A video on disk.

    Attributes:
        frames: A video file, or the image files in order.
        labels: Ground-truth file of every frame, None for frames without; None if the video has no ground truth.
        read_labels: Reads one ground-truth file as raw values (uint8 HW).
        decoder: Which decoder reads the frames.
        facts: What is known of a video file; found out again by every reader if left out.
    """

    frames: Path | tuple[Path, ...]
    labels: tuple[Path | None, ...] | None = None
    read_labels: Callable[[Path], ByteArray] = field(default=read_mask, repr=False)
    decoder: Decoder = "auto"
    facts: VideoFacts | None = field(default=None, repr=False)

    @property
    def source(self) -> VideoFacts | None:
        """Times of the frames and shape of the pixels, where the video is a file."""
        return self.facts

    @property
    def path(self) -> str:
        """The video file, or the folder of the images."""
        return str(self.frames if isinstance(self.frames, Path) else self.frames[0].parent)

    @property
    def has_ground_truth(self) -> bool:
        """Whether any frame has ground truth."""
        return self.labels is not None and any(path is not None for path in self.labels[: self.num_frames])

    @property
    def begins_labelled(self) -> bool:
        """Whether the first frame has a mask."""
        return self.labels is not None and self.labels[0] is not None

    def opened(self, num_frames: int | None, facts: VideoFacts | None) -> Video:
        """The same with what is known now that it is open."""
        video = super().opened(num_frames, facts)
        return replace(video, facts=self.facts or facts) if isinstance(video, FileVideo) else video

    def open(self) -> OpenVideo:
        """Open the files; masks of several sizes are refused before anything is computed."""
        _check_sizes([path for path in (self.labels or ())[: self.num_frames] if path is not None])
        reader = open_frames(self.frames, self.decoder, self.facts)
        if len(reader) < self.num_frames != UNKNOWN_LENGTH:
            raise ValueError(f"{self.path} has {len(reader)} frames where {self.num_frames} were expected")
        return _OpenFiles(reader, self.labels, self.read_labels)


def _check_sizes(masks: Sequence[Path]) -> None:
    """Refuse masks of several sizes, by their headers: consistency over time is defined per pixel."""
    first = mask_size(masks[0]) if masks else (0, 0)
    for path in masks[1:]:
        if (size := mask_size(path)) != first:
            raise ValueError(
                f"the mask {path} is {size[1]}x{size[0]} but {masks[0].name} is {first[1]}x{first[0]}; all masks of a "
                "video must have one size: resize them by nearest neighbour"
            )


class _OpenFiles(OpenVideo):
    def __init__(
        self,
        reader: FrameReader,
        labels: Sequence[Path | None] | None,
        read_labels: Callable[[Path], ByteArray],
    ) -> None:
        self._reader, self._labels, self._read_labels = reader, labels, read_labels
        self._names = reader.names

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    @property
    def facts(self) -> VideoFacts | None:
        return self._reader.facts if self._reader.facts.stamps else None

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None, Tensor]:
        paths = [None] * (stop - start) if self._labels is None else list(self._labels[start:stop])
        frames_THW3 = self._reader.read(start, stop)
        return frames_THW3, self._read(paths), torch.tensor([path is not None for path in paths])

    def close(self) -> None:
        self._reader.close()

    def _read(self, paths: Sequence[Path | None]) -> Tensor | None:
        labels_THW: ByteArray | None = None
        for index, path in enumerate(paths):
            if path is None:
                continue
            labels_HW = self._read_labels(path)
            if labels_THW is None:
                labels_THW = np.full((len(paths), *labels_HW.shape), UNLABELLED, np.uint8)
            if labels_HW.shape != labels_THW.shape[1:]:
                raise ValueError(
                    f"{path} is {labels_HW.shape[1]}x{labels_HW.shape[0]} but other masks of the clip are "
                    f"{labels_THW.shape[2]}x{labels_THW.shape[1]}: all masks of a video must have one size"
                )
            labels_THW[index] = labels_HW
        return None if labels_THW is None else torch.from_numpy(labels_THW)
