"""Putting pictures and their shadows onto a frame or a canvas, clipped to it.

Shape suffixes: H W pixels of the frame or canvas, h w pixels of what is put there, 3 RGB.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zsvss.data.scenes.textures import ByteArray


def paste(
    image_HW3: ByteArray,
    labels_HW: ByteArray,
    picture_hw3: ByteArray,
    mask_hw: NDArray[np.bool_],
    left: int,
    top: int,
    label: int,
) -> None:
    """Draw a picture at (`left`, `top`) where its mask is set, clipped to the image."""
    height, width = mask_hw.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, image_HW3.shape[0]), min(left + width, image_HW3.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    inside = mask_hw[y0 - top : y1 - top, x0 - left : x1 - left]
    np.copyto(image_HW3[y0:y1, x0:x1], picture_hw3[y0 - top : y1 - top, x0 - left : x1 - left], where=inside[..., None])
    labels_HW[y0:y1, x0:x1][inside] = label


def cast_silhouette(image_HW3: ByteArray, mask_hw: NDArray[np.bool_], left: int, foot: int) -> None:
    """Darken the ground under a figure by its flattened, sheared silhouette."""
    height, width = mask_hw.shape
    tall = max(2, height // 3)
    shear = np.array([[1, 0.9, 0], [0, -tall / height, tall]], np.float32)
    shadow_hw = cv2.warpAffine(mask_hw.astype(np.uint8), shear, (width + height, tall), flags=cv2.INTER_NEAREST)
    _darken(image_HW3, shadow_hw > 0, left, foot - 1)


def cast_shadow(image_HW3: ByteArray, left: int, top: int, width: int, height: int) -> None:
    """Darken a sheared rectangle on the ground in front of a building."""
    columns_W = np.arange(width + height)
    inside = (columns_W[None] >= np.arange(height)[:, None]) & (columns_W[None] < width + np.arange(height)[:, None])
    _darken(image_HW3, inside, left, top)


def _darken(image_HW3: ByteArray, mask_hw: NDArray[np.bool_], left: int, top: int) -> None:
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + mask_hw.shape[0], image_HW3.shape[0]), min(left + mask_hw.shape[1], image_HW3.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    view_hw3 = image_HW3[y0:y1, x0:x1]
    inside = mask_hw[y0 - top : y1 - top, x0 - left : x1 - left]
    np.copyto(view_hw3, (view_hw3 * np.float32(0.55)).astype(np.uint8), where=inside[..., None])
