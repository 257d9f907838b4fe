"""Difference maps between oppositely modulated images, and the three ways of computing them.

Shape legend: B images, H W pixels.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

Difference = Literal["float", "uint8", "published"]

_BLUR_SIZE, _BLUR_SIGMA = 5, 3.0


def difference_map(plus_B3HW: Tensor, minus_B3HW: Tensor, difference: Difference = "float") -> Tensor:
    """Blurred Euclidean colour distance of two images, not normalised.

    Args:
        plus_B3HW: images in [-1, 1], float32; values outside are clamped where they are quantised and kept by
            ``float``.
        minus_B3HW: images of the same shape.
        difference: ``float`` works on the images as they are; ``uint8`` truncates them to 8 bits first, as the
            released code stores them; ``published`` [quirk] adds the released code's overflows: the 8-bit subtraction
            and square wrap modulo 256, and the blurred map is truncated to integers and compressed as a grayscale
            JPEG of quality 75.

    Returns:
        float32 [B, H, W], in grey levels of 0..255.
    """
    if difference == "float":
        squared = ((plus_B3HW - minus_B3HW) * 127.5).square()
    else:
        squared = _squared_uint8(quantize(plus_B3HW), quantize(minus_B3HW), wrap=difference == "published")
    blurred_BHW = blur(squared.sum(1).sqrt())
    return _through_jpeg(blurred_BHW) if difference == "published" else blurred_BHW


def quantize(images_B3HW: Tensor) -> Tensor:
    """Clamp images in [-1, 1] and truncate them to uint8."""
    return (((images_B3HW + 1) / 2).clamp(0, 1) * 255).to(torch.uint8)


def _squared_uint8(plus: Tensor, minus: Tensor, *, wrap: bool) -> Tensor:
    if wrap:
        difference = plus - minus  # modulo 256, as is the square
        return (difference * difference).float()
    return (plus.float() - minus.float()).square()


def blur(maps_BHW: Tensor) -> Tensor:
    """Gaussian blur, 5x5, sigma 3, mirrored at the border without repeating it; float32 [B, H, W]."""
    radius = _BLUR_SIZE // 2
    place = torch.arange(-radius, radius + 1, dtype=torch.float64, device=maps_BHW.device)
    taps = torch.exp(-(place**2) / (2 * _BLUR_SIGMA**2))
    kernel = (taps / taps.sum()).to(maps_BHW)
    height, width = maps_BHW.shape[-2:]
    mode = "reflect" if min(height, width) > radius else "replicate"  # an image of one row has nothing to mirror
    padded = functional.pad(maps_BHW[:, None], [radius] * 4, mode=mode)
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def _through_jpeg(maps_BHW: Tensor) -> Tensor:
    """Truncate to uint8 and through a JPEG file of quality 75, in memory."""
    decoded = []
    for map_HW in maps_BHW.clamp(0, 255).to(torch.uint8).cpu().numpy():
        buffer = io.BytesIO()
        Image.fromarray(map_HW, "L").save(buffer, "JPEG", quality=75)
        decoded.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(decoded)).to(maps_BHW)


def peak_normalized(maps_BHW: Tensor) -> Tensor:
    """Divide each map by its maximum plus 1e-8; a map of zeros stays zero.

    Float64, because the offset decides which of two quantised maps at the same share of their peaks is larger (the
    one with the larger peak), and float32 would round it away.

    Returns:
        float64 [B, H, W], 0..1.
    """
    maps_BHW = maps_BHW.double()
    return maps_BHW / (maps_BHW.amax((1, 2), keepdim=True) + 1e-8)


def mask_prior(masks_Bhw: Tensor, size: tuple[int, int], floor: float) -> Tensor:
    """Weight of each pixel: 1 inside the mask, ``floor`` outside, between them on its Lanczos-upsampled border.

    Args:
        masks_Bhw: masks on the token grid, 0 or 1.
        size: height and width of the frame.
        floor: weight outside the mask, 0..1.

    Returns:
        float32 [B, H, W].
    """
    height, width = size
    upsampled = [
        np.asarray(Image.fromarray(mask_hw, "L").resize((width, height), Image.Resampling.LANCZOS))
        for mask_hw in (masks_Bhw * 255).to(torch.uint8).cpu().numpy()
    ]
    inside_BHW = torch.from_numpy(np.stack(upsampled)).to(masks_Bhw.device).float() / 255
    return inside_BHW + floor * (1 - inside_BHW)
