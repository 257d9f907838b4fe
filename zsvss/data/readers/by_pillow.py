"""Image files and images of several frames, decoded by Pillow.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zsvss.data.images import ByteArray, check_images, read_rgb, rgb_array
from zsvss.data.readers.base import FrameReader
from zsvss.data.video_facts import VideoFacts

_MILLISECOND = Fraction(1, 1000)
# What browsers take where a file says that a frame lasts no time.
_DEFAULT_DURATION = 100


class PillowReader(FrameReader):
    """Image files decoded one by one by Pillow: any mode and format, a single image, mixed formats.

    Args:
        images: The images in order, of one size.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._images = tuple(images)
        self._facts = VideoFacts(len(self._images), check_images(images).size)

    @property
    def facts(self) -> VideoFacts:
        """Number and size of the frames; images have no times."""
        return self._facts

    @property
    def names(self) -> tuple[str, ...]:
        """File stems."""
        return tuple(path.stem for path in self._images)

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(np.stack([read_rgb(path) for path in self._images[start:stop]]))


class AnimationReader(FrameReader):
    """The frames of one animated WebP file, or the pages of one TIFF file, decoded by Pillow.

    Args:
        path: The file.

    Raises:
        ValueError: If its pages have different sizes, or one cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image = Image.open(path)
        size, durations = (self._image.height, self._image.width), list[int]()
        for number in range(getattr(self._image, "n_frames", 1)):
            self._seek(number)
            if (self._image.height, self._image.width) != size:
                raise ValueError(
                    f"{path}: page {number} is {self._image.width}x{self._image.height} but page 0 is "
                    f"{size[1]}x{size[0]}; all frames of a video must have one size: save the pages as images of one "
                    "size"
                )
            durations.append(int(self._image.info.get("duration", 0)) or _DEFAULT_DURATION)
        stamps: tuple[int, ...] = ()
        if self._image.format != "TIFF":
            stamps = tuple(accumulate(durations[:-1], initial=0))
        self._facts = VideoFacts(len(durations), size, stamps, _MILLISECOND, durations[-1] if stamps else 0)

    @property
    def facts(self) -> VideoFacts:
        """Number, size and times of the frames; pages of a TIFF have no times."""
        return self._facts

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(np.stack([self._frame(number) for number in range(start, stop)]))

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def _frame(self, number: int) -> ByteArray:
        self._seek(number)
        try:
            return rgb_array(self._image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{self._path}: frame {number} cannot be decoded ({error}); is it complete?") from error

    def _seek(self, number: int) -> None:
        try:
            self._image.seek(number)
            self._image.load()
        except (OSError, SyntaxError, EOFError) as error:
            raise ValueError(f"{self._path}: frame {number} cannot be decoded ({error}); is it complete?") from error
