"""Nearest-neighbour resizing as Pillow does it: each new cell takes the value at its centre.

Torch's ``nearest`` takes the value at the cell's top-left corner, which names other clusters, and ``nearest-exact``
rounds ties in another way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def nearest(maps_HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the last two dimensions; ties are Pillow's, to the last bit.

    Args:
        maps_HW: any dtype, any leading dimensions.
        size: new height and width.

    Example:
        >>> nearest(torch.tensor([[1, 2], [3, 4]]), (3, 4))
        tensor([[1, 1, 2, 2],
                [3, 3, 4, 4],
                [3, 3, 4, 4]])
        >>> nearest(torch.arange(6)[None], (1, 3))
        tensor([[1, 3, 5]])
    """
    for dim, side in zip((-2, -1), size, strict=True):
        if maps_HW.shape[dim] != side:
            maps_HW = maps_HW.index_select(dim, sampled_on(maps_HW.device, maps_HW.shape[dim], side))
    return maps_HW


@lru_cache(maxsize=256)
def sampled_on(device: torch.device, side: int, new_side: int) -> Tensor:
    """Which of ``side`` cells each of ``new_side`` takes, int64; kept on the device, which is told once."""
    with torch.inference_mode(mode=False):
        return torch.tensor(_sampled(side, new_side), device=device)


def _sampled(side: int, new_side: int) -> tuple[int, ...]:
    """Which of ``side`` cells each of ``new_side`` takes, asked of Pillow itself, whose centres add up in float64."""
    ramp = Image.fromarray(np.arange(side, dtype=np.int32)[None])
    return tuple(np.asarray(ramp.resize((new_side, 1), Image.Resampling.NEAREST))[0].tolist())


def to_grid(labels_HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sample a label map at the centre of each cell of the token grid, as the released code does; int64."""
    return nearest(labels_HW, grid).long()
