"""Segmentations blended over frames; their colours are those of `zsvss.results.segment_colors`.

Shapes: H W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from zsvss.results.segment_colors import UInt8, color_labels


def overlay(
    frame_HW3: UInt8,
    labels_HW: npt.NDArray[np.integer],
    colors: npt.ArrayLike | None = None,
    alpha: float = 0.5,
    boundaries: bool = True,
) -> UInt8:
    """Blend label colours over a frame and draw the segments' outlines.

    Args:
        frame_HW3: uint8 RGB.
        labels_HW: ids; where negative (no label) the frame stays as it is.
        colors: uint8 RGB of each id; by default `palette`.
        alpha: weight of the label colour, 0..1.
        boundaries: outline the segments in white.

    Returns:
        uint8 RGB ``[H, W, 3]``.

    Raises:
        ValueError: frame and labels differ in size, or `alpha` is outside 0..1.

    >>> frame = np.full((1, 3, 3), 100, dtype=np.uint8)
    >>> overlay(frame, np.array([[0, 0, -1]]), [(255, 0, 0)], boundaries=False)[0].tolist()
    [[178, 50, 50], [178, 50, 50], [100, 100, 100]]
    """
    if frame_HW3.shape != (*labels_HW.shape, 3):
        raise ValueError(
            f"frame {frame_HW3.shape} and labels {labels_HW.shape} must have one size, [H, W, 3] and [H, W]"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} must be between 0 (frame alone) and 1 (labels alone)")
    weight = round(256 * alpha) / 256
    image: UInt8 = cv2.addWeighted(frame_HW3, 1 - weight, color_labels(labels_HW, colors), weight, 0)
    if labels_HW.min(initial=0) < 0:
        image[labels_HW < 0] = frame_HW3[labels_HW < 0]
    if boundaries:
        image[segment_boundaries(labels_HW)] = 255
    return image


def segment_boundaries(labels_HW: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another id.

    >>> segment_boundaries(np.array([[0, 0, 1], [0, 0, 1]])).astype(int).tolist()
    [[0, 1, 0], [0, 1, 0]]
    """
    boundary_HW = np.zeros(labels_HW.shape, dtype=np.bool_)
    boundary_HW[:, :-1] |= labels_HW[:, :-1] != labels_HW[:, 1:]
    boundary_HW[:-1] |= labels_HW[:-1] != labels_HW[1:]
    return boundary_HW


def side_by_side(*panels: UInt8, gap: int = 4) -> UInt8:
    """Put images of one height next to each other on white.

    Args:
        panels: uint8 RGB ``[H, W_i, 3]``.
        gap: pixels between two panels.

    Raises:
        ValueError: no panel, or panels of different heights.

    >>> side_by_side(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 5, 3), np.uint8), gap=1).shape
    (2, 9, 3)
    """
    if len({panel.shape[0] for panel in panels}) != 1:
        raise ValueError(f"panels must have one height, found {[panel.shape[0] for panel in panels]}")
    white = np.full((panels[0].shape[0], gap, 3), 255, dtype=np.uint8)
    spaced = [part for panel in panels for part in (white, panel)][1:]
    return np.concatenate(spaced, axis=1)
