"""The size at which a backbone sees frames, and bringing them to it: what loaders do ahead of the segmenter.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class NetworkSize(NamedTuple):
    """What decides at which size a backbone sees frames.

    Attributes:
        wanted: height and width asked for; ``None`` takes the frames' own, or ``native`` where there is one.
        multiple: what the padded height and width must be multiples of; they are rounded down.
        padding: pixels by which the frames will be mirrored beyond each border.
        native: height and width of what the backbone was trained on, if it can do little with frames of other sizes:
            these are brought to about so many pixels, in their own shape, and to more if a side would be all padding.
    """

    wanted: tuple[int, int] | None
    multiple: int
    padding: int
    native: tuple[int, int] | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width, without the padding, of frames of the given size.

        Raises:
            ValueError: if they are too small for the backbone.

        Example:
            >>> NetworkSize(None, 64, 0).of(480, 853)
            (448, 832)
            >>> NetworkSize(None, 64, 0, native=(256, 448)).of(1280, 720)
            (448, 256)
        """
        margin = 2 * self.padding
        sides = self.wanted or self._native_sides(height, width)
        rows, columns = ((side + margin) // self.multiple * self.multiple - margin for side in sides)
        if min(rows, columns) <= 0 or min(rows, columns) < self.padding:
            raise ValueError(
                f"frames of {height}x{width} pixels are too small: this backbone needs {self.multiple}x{self.multiple} "
                f"at least. Set model.input_size to multiples of {self.multiple} to enlarge them."
            )
        return rows, columns

    def _native_sides(self, height: int, width: int) -> tuple[int, int]:
        """The frames' own height and width, or those of `native` pixels in their shape, to the nearest multiples."""
        if self.native is None:
            return height, width
        scale = math.sqrt(self.native[0] * self.native[1] / (height * width))
        margin = 2 * self.padding
        least = math.ceil((margin + max(1, self.padding)) / self.multiple)
        rows, columns = (
            max(least, round((side * scale + margin) / self.multiple)) * self.multiple - margin
            for side in (height, width)
        )
        return rows, columns


def resize_frames(frames_THW3: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 RGB frames (CPU) to (height, width) as PIL does, bicubic and antialiased; uint8 [T, *size, 3]."""
    height, width = size
    resized_THW3 = np.empty((len(frames_THW3), height, width, 3), np.uint8)
    for index, frame_HW3 in enumerate(frames_THW3.numpy()):
        resized = Image.fromarray(frame_HW3).resize((width, height), Image.Resampling.BICUBIC)
        resized_THW3[index] = np.asarray(resized)
    return torch.from_numpy(resized_THW3)


def as_images(
    frames_THW3: Tensor, resized_THW3: Tensor | None, network_size: NetworkSize, device: torch.device
) -> Tensor:
    """Resize frames to a backbone's input (PIL bicubic, if the size differs) and scale them to [-1, 1].

    Args:
        frames_THW3: uint8 RGB frames at their own size.
        resized_THW3: the same at the size of the network, if they were resized before.
        network_size: at which size the backbone sees frames.
        device: the backbone's.

    Returns:
        float32 [T, 3, H', W'], contiguous, on the device; without the padding, which makes the size up to a multiple of
        the backbone's.

    Raises:
        ValueError: if the frames are not uint8 [T, H, W, 3], or were resized to another size.
    """
    if frames_THW3.ndim != 4 or frames_THW3.shape[-1] != 3 or frames_THW3.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 [T, H, W, 3]; found {frames_THW3.dtype} {list(frames_THW3.shape)}.")
    own = (frames_THW3.shape[1], frames_THW3.shape[2])
    size = network_size.of(*own)
    if resized_THW3 is not None and resized_THW3.shape[1:3] != size:
        raise ValueError(f"resized frames are {list(resized_THW3.shape[1:3])}; this backbone wants {list(size)}.")
    if size != own:
        frames_THW3 = resize_frames(frames_THW3.cpu(), size) if resized_THW3 is None else resized_THW3
    # Contiguous: torch's CPU group norm loses four digits on channels-last input.
    images_T3HW = frames_THW3.to(device).permute(0, 3, 1, 2).contiguous()
    return images_T3HW.to(torch.float32) / 255 * 2 - 1
