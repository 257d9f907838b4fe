"""Numbered images, or on request a video file, decoded by Decord.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zsvss.data.images import ImageFacts, check_images
from zsvss.data.readers.base import FrameReader
from zsvss.data.video_facts import VideoFacts

try:
    import decord
except ImportError:  # it has no wheel for Apple silicon
    decord = None

# Decord cannot copy narrow frames whose rows are padded ("from_size == to_size"); all widths from here on work.
_MIN_WIDTH = 128
# Of one or two images it finds no duration ("broken metadata").
_MIN_IMAGES = 3
_MODES = {"RGB", "RGBA", "P", "L", "I;16"}
_SUFFIXES = {"PNG": "png", "JPEG": "jpg"}


class DecordReader(FrameReader):
    """PNG or JPEG frames as an image sequence, or a video file, decoded by Decord.

    Image sequences must be numbered without gaps, so the images are linked under new numbers in a temporary folder
    first. Videos are turned upright as their rotation metadata says.

    Its frames of video files are right only where they are read in order from the first one: its seeking is wrong for
    AVI, MPEG-TS, edit lists, open GOPs and WMV.

    Args:
        source: A video file, or the images in order; all PNG or all JPEG, of one size.
    """

    def __init__(self, source: Path | Sequence[Path]) -> None:
        decord.logging.set_level(decord.logging.FATAL)
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._names: tuple[str, ...] | None = None
        location = str(source)
        if not isinstance(source, Path):
            (image_format,) = check_images(source).formats
            self._links = tempfile.TemporaryDirectory(prefix="zsvss-frames-")
            self._names = tuple(path.stem for path in source)
            location = _link_frames(source, Path(self._links.name), _SUFFIXES[image_format])
        self._reader: Any = decord.VideoReader(location, num_threads=1)
        height, width = self._get([0]).shape[1:3]
        self._facts = VideoFacts(len(self._reader), (height, width))

    @property
    def facts(self) -> VideoFacts:
        """Number and size of the frames; Decord's times are not used."""
        return self._facts

    @property
    def names(self) -> tuple[str, ...]:
        """File stems of images, zero-padded numbers for a video file."""
        return self._names or super().names

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(self._get(list(range(start, stop))))

    def close(self) -> None:
        """Free the decoder and remove the links."""
        self._reader = None
        if self._links is not None:
            self._links.cleanup()

    def _get(self, indices: list[int]) -> Any:
        frames_THW3 = self._reader.get_batch(indices).asnumpy()
        # Otherwise Decord goes on decoding in the background and keeps every frame.
        self._reader.seek(0)
        return frames_THW3


def has_decord() -> bool:
    """Whether Decord is installed."""
    return decord is not None


def why_not(images: ImageFacts) -> str | None:
    """Why Decord cannot read these images, or None if it can."""
    if images.turned is not None:
        return f"{images.turned} has an EXIF orientation, which Decord ignores"
    found = f"{images.num_images} frames, {images.size[1]} wide, {sorted(images.formats)} {sorted(images.modes)}"
    suited = images.num_images >= _MIN_IMAGES and images.size[1] >= _MIN_WIDTH and images.modes <= _MODES
    if suited and len(images.formats) == 1 and images.formats <= _SUFFIXES.keys():
        return None
    return (
        f"Decord reads {_MIN_IMAGES} or more PNG or JPEG frames of one format, {_MIN_WIDTH} pixels wide or more; "
        f"found {found}"
    )


def _link_frames(images: Sequence[Path], folder: Path, suffix: str) -> str:
    """Link the images as 00000000.suffix, 00000001.suffix ... and return the pattern."""
    for number, path in enumerate(images):
        (folder / f"{number:08d}.{suffix}").symlink_to(path.resolve())
    return f"{folder}/%08d.{suffix}"
