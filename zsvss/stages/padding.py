"""Mirroring what the backbone sees beyond its border, and taking the mirrored cells off again.

The edge is repeated (half-sample symmetry), so a margin of whole cells mirrors whole cells: a mirrored token stands for
the same pixels as the token that it mirrors.

Shape legend: H W pixels or cells.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mirror(tensor_HW: Tensor, margins: tuple[int, int]) -> Tensor:
    """Extend the last two dimensions by a margin on either side, mirrored at the edge.

    Args:
        tensor_HW: any leading dimensions.
        margins: how far in y and in x; at most the height and the width.

    Example:
        >>> mirror(torch.tensor([[1, 2, 3]]), (0, 2))
        tensor([[2, 1, 1, 2, 3, 3, 2]])
    """
    if margins == (0, 0):
        return tensor_HW
    for dim, margin in zip((-2, -1), margins, strict=True):
        if margin:
            before = tensor_HW.narrow(dim, 0, margin).flip(dim)
            after = tensor_HW.narrow(dim, -margin, margin).flip(dim)
            tensor_HW = torch.cat([before, tensor_HW, after], dim)
    return tensor_HW


def crop(tensor_HW: Tensor, margins: tuple[int, int]) -> Tensor:
    """Undo :func:`mirror`; a view.

    Example:
        >>> crop(torch.tensor([[2, 1, 1, 2, 3, 3, 2]]), (0, 2))
        tensor([[1, 2, 3]])
    """
    if margins == (0, 0):
        return tensor_HW
    (y, x), (height, width) = margins, tensor_HW.shape[-2:]
    return tensor_HW[..., y : height - y, x : width - x]


def margins_on(grid: tuple[int, int], padding: int, size: tuple[int, int]) -> tuple[int, int]:
    """How many cells of a grid the padding takes on either side, in y and in x.

    Args:
        grid: height and width of the grid, padding included.
        padding: pixels on either side.
        size: height and width in pixels, padding included.

    Raises:
        ValueError: if the padding is no whole number of cells.

    Example:
        >>> margins_on((28, 52), 32, (448, 832))
        (2, 2)
    """
    parts = [divmod(padding * cells, side) for cells, side in zip(grid, size, strict=True)]
    if any(rest for _, rest in parts):
        cell = size[0] // grid[0]
        raise ValueError(f"padding = {padding} must be a multiple of {cell}, the size of a feature cell in pixels.")
    return parts[0][0], parts[1][0]
