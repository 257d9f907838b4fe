"""Small connected regions take the label of what surrounds them.

A segmentation by the largest of several noisy maps leaves hundreds of regions of a few pixels in a frame.

Shape legend: T frames of a clip, H W pixels, R runs (pixels of one label side by side in a row), E pairs of runs that
touch, G regions.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor


def merge_specks(labels_THW: Tensor, min_share: float, *, keep_largest: bool = False) -> Tensor:
    """Give every region that is smaller than a share of the frame the labels of its surroundings.

    A region is a set of pixels of one label that touch at their sides. Each pixel of a small region takes the label of
    the nearest pixel that lies in a large one. A frame without a large region stays as it is.

    Args:
        labels_THW: int64 labels.
        min_share: smallest share of the frame's pixels, 0..1, that a region keeps its label with; 0 changes nothing.
        keep_largest: the largest region of each label of a frame stays, however small it is, so that no label is lost.

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
    if min_pixels <= 1 or not len(labels_THW):
        return labels_THW
    merged = [_merged(labels_HW, min_pixels, keep_largest) for labels_HW in labels_THW.cpu().numpy()]
    return torch.from_numpy(np.stack(merged)).to(labels_THW.device)


def _merged(labels_HW: npt.NDArray[np.int64], min_pixels: float, keep_largest: bool) -> npt.NDArray[np.int64]:
    is_small_HW = _in_small_regions(labels_HW, min_pixels, keep_largest)
    if is_small_HW.all() or not is_small_HW.any():
        return labels_HW
    # OpenCV numbers the pixels outside the small regions, and gives each pixel the number of the nearest of them.
    _, number_HW = cv2.distanceTransformWithLabels(
        is_small_HW.view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    is_large_HW = ~is_small_HW
    label_of_number = np.empty(int(number_HW.max()) + 1, np.int64)
    label_of_number[number_HW[is_large_HW]] = labels_HW[is_large_HW]
    merged_HW: npt.NDArray[np.int64] = labels_HW.copy()
    merged_HW[is_small_HW] = label_of_number[number_HW[is_small_HW]]
    return merged_HW


def _in_small_regions(labels_HW: npt.NDArray[np.int64], min_pixels: float, keep_largest: bool) -> npt.NDArray[np.bool_]:
    """Which pixels lie in small regions: those of the runs that touch runs of their label from row to row."""
    width = labels_HW.shape[1]
    starts_HW = np.ones(labels_HW.shape, np.bool_)
    np.not_equal(labels_HW[:, 1:], labels_HW[:, :-1], out=starts_HW[:, 1:])
    start_R = np.flatnonzero(starts_HW)
    length_R = np.diff(start_R, append=labels_HW.size)
    run_HW = np.repeat(np.arange(len(start_R), dtype=np.int32), length_R).reshape(labels_HW.shape)
    # Two runs of neighbouring rows that touch do so where one of them starts.
    touches_HW = (labels_HW[1:] == labels_HW[:-1]) & (starts_HW[1:] | starts_HW[:-1])
    above_E = np.flatnonzero(touches_HW)
    pairs = run_HW.ravel()[above_E], run_HW.ravel()[above_E + width]
    graph = coo_array((np.ones(len(above_E), np.bool_), pairs), (len(start_R), len(start_R)))
    _, region_R = connected_components(graph, directed=False)
    area_G = np.bincount(region_R, weights=length_R)
    is_small_G = area_G < min_pixels
    if keep_largest:
        label_G = np.empty(len(area_G), np.int64)
        label_G[region_R] = labels_HW.ravel()[start_R]
        by_label_and_area_G = np.lexsort((area_G, label_G))
        is_last_G = np.diff(label_G[by_label_and_area_G], append=label_G.max() + 1) != 0
        is_small_G[by_label_and_area_G[is_last_G]] = False
    return np.repeat(is_small_G[region_R], length_R).reshape(labels_HW.shape)
