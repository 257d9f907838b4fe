"""Small connected regions take the label of what surrounds them.

A segmentation by the largest of several noisy maps leaves hundreds of regions of a few pixels in a frame.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def merge_specks(labels_THW: Tensor, min_share: float) -> Tensor:
    """Give every region that is smaller than a share of the frame the labels of its surroundings.

    A region is a set of pixels of one label that touch at their sides. Each pixel of a small region takes the label of
    the nearest pixel that lies in a large one. A frame without a large region stays as it is.

    Args:
        labels_THW: int64 labels.
        min_share: smallest share of the frame's pixels, 0..1, that a region keeps its label with; 0 changes nothing.

    Returns:
        int64 [T, H, W] on the labels' device.

    Example:
        >>> frame = torch.tensor([[0, 0, 0, 1, 1], [0, 2, 0, 1, 1], [0, 0, 0, 1, 1]])
        >>> merge_specks(frame[None], 2 / 15)[0]
        tensor([[0, 0, 0, 1, 1],
                [0, 0, 0, 1, 1],
                [0, 0, 0, 1, 1]])
    """
    min_pixels = min_share * labels_THW.shape[1] * labels_THW.shape[2]
    if min_pixels <= 1:
        return labels_THW
    merged = [_merged(labels_HW, min_pixels) for labels_HW in labels_THW.cpu().numpy()]
    return torch.from_numpy(np.stack(merged)).to(labels_THW.device)


def _merged(labels_HW: npt.NDArray[np.int64], min_pixels: float) -> npt.NDArray[np.int64]:
    lowest = int(labels_HW.min())
    present = np.flatnonzero(np.bincount((labels_HW - lowest).ravel())) + lowest
    is_small_HW = np.zeros(labels_HW.shape, np.bool_)
    for label in present:
        is_label_HW = (labels_HW == label).view(np.uint8)
        _, region_HW, facts, _ = cv2.connectedComponentsWithStats(is_label_HW, connectivity=4)
        is_small = facts[:, cv2.CC_STAT_AREA] < min_pixels
        is_small[0] = False  # everything that is not of this label
        if is_small.any():
            is_small_HW |= is_small[region_HW]
    if is_small_HW.all() or not is_small_HW.any():
        return labels_HW
    # OpenCV numbers the pixels outside the small regions, and gives each pixel the number of the nearest of them.
    _, number_HW = cv2.distanceTransformWithLabels(
        is_small_HW.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    label_of_number = np.empty(int(number_HW.max()) + 1, np.int64)
    is_large_HW = ~is_small_HW
    label_of_number[number_HW[is_large_HW]] = labels_HW[is_large_HW]
    merged_HW: npt.NDArray[np.int64] = label_of_number[number_HW]
    return merged_HW
