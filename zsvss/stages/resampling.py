"""Bilinear enlargement and window means of maps: by OpenCV on a CPU, ten times as fast there, else by PyTorch.

Shape legend: L maps, H W pixels, h w cells.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor
from torch.nn import functional


def bilinear(maps_Lhw: Tensor, size: tuple[int, int], out_LHW: Tensor | None = None) -> Tensor:
    """Resize maps bilinearly; pixels beyond the outer cells' centres take those cells' values.

    Args:
        maps_Lhw: floating point.
        size: height and width.
        out_LHW: contiguous memory for the result, which saves fresh memory, the larger part of the cost on a CPU.

    Example:
        >>> bilinear(torch.tensor([[[0.0, 4.0]]]), (1, 4))
        tensor([[[0., 1., 3., 4.]]])
    """
    if maps_Lhw.device.type != "cpu":
        resized_LHW = functional.interpolate(maps_Lhw[None], size, mode="bilinear", align_corners=False)[0]
        return resized_LHW if out_LHW is None else out_LHW.copy_(resized_LHW)
    resized_LHW = maps_Lhw.new_empty(len(maps_Lhw), *size) if out_LHW is None else out_LHW
    for map_hw, resized_HW in zip(maps_Lhw.numpy(), resized_LHW.numpy(), strict=True):
        cv2.resize(map_hw, (size[1], size[0]), resized_HW, interpolation=cv2.INTER_LINEAR)
    return resized_LHW


def window_mean(maps_Lhw: Tensor, radius: int) -> Tensor:
    """Mean over square windows, cut off at the border.

    Args:
        maps_Lhw: floating point.
        radius: windows are ``2 radius + 1`` wide.

    Example:
        >>> window_mean(torch.arange(4.0).view(1, 1, 4), 1)
        tensor([[[0.5000, 1.0000, 2.0000, 2.5000]]])
    """
    if maps_Lhw.device.type == "cpu":
        width, sums_Lhw = 2 * radius + 1, torch.empty_like(maps_Lhw, memory_format=torch.contiguous_format)
        for map_hw, sum_hw in zip(maps_Lhw.numpy(), sums_Lhw.numpy(), strict=True):
            cv2.boxFilter(map_hw, -1, (width, width), sum_hw, normalize=False, borderType=cv2.BORDER_CONSTANT)
        rows_h, columns_w = (_num_in_window(side, radius).to(maps_Lhw) for side in maps_Lhw.shape[-2:])
        return sums_Lhw.div_(rows_h[:, None] * columns_w)
    for height, width in ((1, 0), (0, 1)):
        kernel, padding = (2 * radius * height + 1, 2 * radius * width + 1), (radius * height, radius * width)
        maps_Lhw = functional.avg_pool2d(maps_Lhw, kernel, stride=1, padding=padding, count_include_pad=False)
    return maps_Lhw


def _num_in_window(side: int, radius: int) -> Tensor:
    """How many cells of a side lie in the window around each."""
    place = torch.arange(side)
    return (place + radius).clamp(max=side - 1) - (place - radius).clamp(min=0) + 1
