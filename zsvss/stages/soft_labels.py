"""Soft labels: each label's share of every cell, so that objects smaller than a token survive.

Shape legend: T frames of a clip, F remembered frames, H W pixels, h w token grid, n = h w tokens of a frame,
c channels, L labels, S = s s sub-cells of a token's cell, u v = s h, s w sub-cells of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LabelShares(NamedTuple):
    """Each label's share of every sub-cell of a clip's frames.

    Attributes:
        shares_TLuv: 0..1; they add up to 1 over the labels, or are all 0 in a frame without labels.
        labels_L: int64 sorted labels.
    """

    shares_TLuv: Tensor
    labels_L: Tensor

    def part(self, frames: slice) -> LabelShares:
        """The same of some of the frames."""
        return LabelShares(self.shares_TLuv[frames], self.labels_L)


class Bank(NamedTuple):
    """Labelled frames that the next frame is compared with.

    Attributes:
        features_Fnc: their features.
        shares_FnLS: each label's share of each sub-cell; they add up to 1 over the labels.
        labels_L: int64 sorted labels.
        num_given: how many frames, the first ones, were given; the others were propagated, the latest last.
        scale: mean squared distance of the tokens of the first given frame from their mean.
    """

    features_Fnc: Tensor
    shares_FnLS: Tensor
    labels_L: Tensor
    num_given: int
    scale: float


class Propagated(NamedTuple):
    """What the propagation of given labels carries from clip to clip.

    Attributes:
        grid: height and width of the token grid.
        bank: ``None`` before the first given frame.
        shares: of the clip that was labelled last; ``None`` before the first given frame.
    """

    grid: tuple[int, int]
    bank: Bank | None = None
    shares: LabelShares | None = None


def area_shares(labels_HW: Tensor, labels_L: Tensor, grid: tuple[int, int], subcells: int = 1) -> Tensor:
    """Share of each sub-cell's area that bears each label; pixels of other labels bear none.

    Args:
        labels_HW: int64 labels of pixels, of any size.
        labels_L: the labels to look for.
        grid: height and width of the token grid that covers the pixels.
        subcells: s, parts of a token's cell in y and in x.

    Returns:
        float32 [n, L, S].

    Example:
        >>> area_shares(torch.tensor([[0, 0, 5]]), torch.tensor([0, 5]), (1, 2))[:, :, 0]
        tensor([[1.0000, 0.0000],
                [0.3333, 0.6667]])
    """
    rows_uH = overlaps(labels_HW.shape[0], grid[0] * subcells, labels_HW.device)
    columns_vW = overlaps(labels_HW.shape[1], grid[1] * subcells, labels_HW.device)
    shares = []
    for label in labels_L.tolist():  # one map at a time: there are many labels and pixels
        shares_uv = rows_uH @ (labels_HW == label).to(torch.float32) @ columns_vW.T
        shares.append(to_tokens(shares_uv, grid, subcells))
    return torch.stack(shares, 1)


def overlaps(num_pixels: int, num_cells: int, device: torch.device) -> Tensor:
    """Share of each cell's length that each pixel covers, both dividing one side of a frame; float32 [cells, pixels].

    Example:
        >>> overlaps(3, 2, torch.device("cpu"))
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])
    """
    edges = torch.arange(num_cells + 1, dtype=torch.float64, device=device) * num_pixels / num_cells
    pixels = torch.arange(num_pixels, dtype=torch.float64, device=device)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (covered.clamp(min=0) * num_cells / num_pixels).to(torch.float32)


def to_tokens(maps_uv: Tensor, grid: tuple[int, int], subcells: int) -> Tensor:
    """Maps of sub-cells [u, v] as tokens [n, S]."""
    return maps_uv.view(grid[0], subcells, grid[1], subcells).transpose(1, 2).reshape(grid[0] * grid[1], subcells**2)


def to_maps(shares_TnLS: Tensor, grid: tuple[int, int]) -> Tensor:
    """Shares of tokens as maps of sub-cells [T, L, u, v]; undoes :func:`to_tokens`."""
    num_frames, _, num_labels, num_subcells = shares_TnLS.shape
    subcells = round(num_subcells**0.5)
    shares = shares_TnLS.view(num_frames, *grid, num_labels, subcells, subcells).permute(0, 3, 1, 4, 2, 5)
    return shares.reshape(num_frames, num_labels, grid[0] * subcells, grid[1] * subcells)


def with_labels(shares_FnLS: Tensor, labels_L: Tensor, wanted_L: Tensor) -> Tensor:
    """Shares of a larger set of sorted labels: 0 for those that are new."""
    if len(wanted_L) == len(labels_L):
        return shares_FnLS
    num_frames, num_tokens, _, num_subcells = shares_FnLS.shape
    wider = shares_FnLS.new_zeros(num_frames, num_tokens, len(wanted_L), num_subcells)
    wider[:, :, torch.searchsorted(wanted_L, labels_L)] = shares_FnLS
    return wider


def imposed(labels_THW: Tensor, given_THW: Tensor) -> Tensor:
    """Labels with those that are given in their places.

    Args:
        labels_THW: int64.
        given_THW: int64, negative where none is given.
    """
    given_THW = given_THW.to(labels_THW)
    return torch.where(given_THW >= 0, given_THW, labels_THW)
