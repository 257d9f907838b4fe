"""Nearest neighbours of tokens in other frames, within a window around their own place.

Shape legend: F frames that are searched, h w token grid, n = h w tokens of a frame, y x a tile of queries, v u the
window around it, m queries of a tile, p points around it, c channels, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TILE = 8
"""Queries are taken in square tiles of so many tokens a side, which share the tokens around them."""


def local_neighbors(
    queries_nc: Tensor, points_Fnc: Tensor, grid: tuple[int, int], num_neighbors: int, radius: int
) -> tuple[Tensor, Tensor]:
    """Euclidean nearest neighbours of each token of a frame among tokens of other frames that lie near its place.

    Args:
        queries_nc: floating-point tokens of one frame, row by row.
        points_Fnc: tokens of the frames that are searched, on the same grid.
        grid: its height and width.
        num_neighbors: k.
        radius: tokens that are farther away than this in y or in x are left out.

    Returns:
        Squared distances [n, k], nearest first, and int64 places in ``points_Fnc.flatten(0, 1)`` [n, k]. Where the
        window holds fewer than k tokens, the distances of the missing ones are infinite.

    Example:
        >>> queries, points = torch.tensor([[0.0], [0.9], [5.0]]), torch.tensor([[[5.0], [1.0], [0.0]]])
        >>> squared, places = local_neighbors(queries, points, (1, 3), num_neighbors=1, radius=1)
        >>> places.flatten().tolist(), [round(distance, 2) for distance in squared.flatten().tolist()]
        ([1, 1, 1], [1.0, 0.01, 16.0])
    """
    num_frames, num_tokens, num_channels = points_Fnc.shape
    height, width = grid
    center_c = points_Fnc.mean((0, 1))  # distances are more accurate around the origin
    queries_hwc = (queries_nc - center_c).view(height, width, num_channels)
    points_Fhwc = (points_Fnc - center_c).view(num_frames, height, width, num_channels)
    squares_Fhw = points_Fhwc.square().sum(3)
    device = queries_nc.device
    places_Fhw = torch.arange(num_frames * num_tokens, device=device).view(num_frames, height, width)
    squared_hwk = queries_hwc.new_full((height, width, num_neighbors), torch.inf)
    places_hwk = torch.zeros(height, width, num_neighbors, dtype=torch.int64, device=device)
    for rows, near_rows in _tiles(height, radius):
        for columns, near_columns in _tiles(width, radius):
            queries_mc = queries_hwc[rows, columns].flatten(0, 1)
            window = (slice(None), near_rows, near_columns)
            squared_mp = torch.addmm(
                squares_Fhw[window].flatten() + queries_mc.square().sum(1, keepdim=True),
                queries_mc,
                points_Fhwc[window].flatten(0, 2).T,
                alpha=-2,
            ).clamp_(min=0)
            is_far_mq = _is_far(rows, near_rows, columns, near_columns, radius, device)
            squared_mp.view(len(queries_mc), num_frames, -1).masked_fill_(is_far_mq[:, None], torch.inf)
            found = squared_mp.topk(min(num_neighbors, squared_mp.shape[1]), largest=False)
            shape = (rows.stop - rows.start, columns.stop - columns.start, found.indices.shape[1])
            squared_hwk[rows, columns, : shape[2]] = found.values.view(shape)
            places_hwk[rows, columns, : shape[2]] = places_Fhw[window].flatten()[found.indices].view(shape)
    return squared_hwk.flatten(0, 1), places_hwk.flatten(0, 1)


def _tiles(side: int, radius: int) -> list[tuple[slice, slice]]:
    """Tiles of one side, each with what lies within the radius of it."""
    tiles = [slice(start, min(start + _TILE, side)) for start in range(0, side, _TILE)]
    return [(tile, slice(max(0, tile.start - radius), min(side, tile.stop + radius))) for tile in tiles]


def _is_far(
    rows: slice, near_rows: slice, columns: slice, near_columns: slice, radius: int, device: torch.device
) -> Tensor:
    """Which tokens around a tile are out of reach of each of its queries: bool [y x, v u]."""

    def apart(tile: slice, near: slice) -> Tensor:
        ours = torch.arange(tile.start, tile.stop, device=device)
        theirs = torch.arange(near.start, near.stop, device=device)
        return (ours[:, None] - theirs).abs() > radius

    is_far_yxvu = apart(rows, near_rows)[:, None, :, None] | apart(columns, near_columns)[None, :, None, :]
    return is_far_yxvu.flatten(2).flatten(0, 1)
