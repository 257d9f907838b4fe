"""A frame's mask under a brush: strokes whose borders follow those in the frame, and regions that are filled.

Shapes: H W pixels, h w pixels of a part, n points; 3 is RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from zsvss.results.predictions import Ids
from zsvss.results.segment_colors import UInt8
from zsvss.stages.upsampling import guided_models

Mask = npt.NDArray[np.bool_]

_SUBPIXEL_BITS = 4
_EPS = 1e-4  # of the guided filter, as in the propagation of labels
_SURE, _MAY_REACH = 0.5, 0.35  # of the radius: how far from its border a stroke is sure, and may be moved outwards


@dataclass(frozen=True, eq=False)
class Stroke:
    """A stroke of the brush.

    Attributes:
        points_n2: x and y of its points, in pixels; the centre of the upper left pixel is at 0.5, 0.5.
        radius: of the brush, in pixels.
        snaps: whether its border moves to borders of colour near it.
    """

    points_n2: npt.NDArray[np.float64]
    radius: float
    snaps: bool = True

    def pixels(self, frame_HW3: UInt8) -> Mask:
        """The pixels that it covers in a frame, bool ``[H, W]``."""
        height, width = frame_HW3.shape[:2]
        covered_HW = np.zeros((height, width), np.uint8)
        scale = 1 << _SUBPIXEL_BITS
        points = np.rint((self.points_n2 - 0.5) * scale).astype(np.int32)
        thickness = max(1, round(2 * self.radius))
        cv2.polylines(covered_HW, [points[:, None]], False, 1, thickness, shift=_SUBPIXEL_BITS)
        for x, y in points.tolist():
            cv2.circle(covered_HW, (x, y), round(self.radius * scale), 1, -1, shift=_SUBPIXEL_BITS)
        if not self.snaps or not covered_HW.any():
            return covered_HW.astype(np.bool_)
        return _snapped(covered_HW, frame_HW3, self.radius)


def _snapped(covered_HW: UInt8, frame_HW3: UInt8, radius: float) -> Mask:
    """Move the border of a stroke to the borders of colour near it, by the guided filter."""
    margin = round(2 * radius) + 4
    x, y, width, height = cv2.boundingRect(covered_HW)
    part = (slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin))
    stroke_hw = np.ascontiguousarray(covered_HW[part])
    guide_3hw = torch.from_numpy(np.ascontiguousarray(frame_HW3[part])).permute(2, 0, 1).float() / 255
    slopes_13hw, offsets_1hw = guided_models(
        torch.from_numpy(stroke_hw).float()[None], guide_3hw, max(2, round(radius)), _EPS
    )
    inside_hw = ((slopes_13hw[0] * guide_3hw).sum(0) + offsets_1hw[0] > 0.5).numpy()
    sure_hw = cv2.erode(stroke_hw, _disk(_SURE * radius)) > 0
    may_hw = cv2.dilate(stroke_hw, _disk(_MAY_REACH * radius)) > 0
    snapped_HW = np.zeros(covered_HW.shape, np.bool_)
    snapped_HW[part] = (inside_hw & may_hw) | sure_hw
    return snapped_HW


def _disk(radius: float) -> UInt8:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def region(ids_HW: Ids, x: int, y: int) -> Mask:
    """The connected pixels of one id around a pixel, bool ``[H, W]``; pixels that touch at a corner are connected."""
    _, parts_HW = cv2.connectedComponents((ids_HW == ids_HW[y, x]).astype(np.uint8), connectivity=8)
    around_HW: Mask = parts_HW == parts_HW[y, x]
    return around_HW


def areas(ids_HW: Ids) -> dict[int, int]:
    """Pixels of each segment; 0, which is none, is left out.

    >>> areas(np.array([[0, 2], [2, 5]], np.int32))
    {2: 2, 5: 1}
    """
    counts = np.bincount(ids_HW.ravel())
    return {number: int(counts[number]) for number in np.flatnonzero(counts).tolist() if number}
