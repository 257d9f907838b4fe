"""Regions that a clip may fall into: the nodes of Ward trees over cells that touch, in a frame or in time.

Shape legend: T frames of a clip, h w cells, c channels, M cells of a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LEAST_CELLS, LEAST_FRAMES, _LEAST_IN_A_FRAME = 30, 3, 8
_HIGHEST = 1e3  # of a tree's root


class Region(NamedTuple):
    """A node of a tree.

    Attributes:
        places: frame, row and column of its cells, [3, M].
        merged_at: Ward distance at which it became one.
        ends_at: that at which it becomes part of something else.
    """

    places: Ints
    merged_at: float
    ends_at: float


def regions(mask_Thw: Bools, flow_Thw2: Floats, described_Thwc: Floats) -> Iterator[Region]:
    """All nodes of the Ward trees of a mask's connected parts that are neither tiny nor of a moment."""
    places, graph = np.stack(np.nonzero(mask_Thw)), _graph(mask_Thw, flow_Thw2)
    values_Mc = described_Thwc[mask_Thw]
    num_parts, part_M = connected_components(graph, directed=False)
    for number in range(num_parts):
        members = np.flatnonzero(part_M == number)
        if len(members) >= LEAST_CELLS:
            for leaves, merged_at, ends_at in _nodes(values_Mc[members], csr_array(graph[members][:, members])):
                region = Region(places[:, members[leaves]], merged_at, ends_at)
                num_cells_T = np.bincount(region.places[0])
                if np.count_nonzero(num_cells_T) >= LEAST_FRAMES and num_cells_T.max() >= _LEAST_IN_A_FRAME:
                    yield region


def _nodes(values_Mc: Floats, graph: csr_array) -> Iterator[tuple[Ints, float, float]]:
    """Leaves, own height and parent's height of each node that is large enough."""
    from sklearn.cluster import ward_tree

    children, _, num_leaves, _, heights = ward_tree(values_Mc, connectivity=graph, return_distance=True)
    num_nodes = num_leaves + len(children)
    size, parent, begin = np.ones(num_nodes, np.int64), np.full(num_nodes, -1), np.zeros(num_nodes, np.int64)
    for node, pair in enumerate(children, num_leaves):
        size[node], parent[pair] = size[pair].sum(), node
    for node in range(num_nodes - 1, num_leaves - 1, -1):  # leaves of a node lie side by side
        first, second = children[node - num_leaves]
        begin[first], begin[second] = begin[node], begin[node] + size[first]
    order = np.argsort(begin[:num_leaves])
    for node in range(num_leaves, num_nodes):
        if size[node] >= LEAST_CELLS:
            above = heights[parent[node] - num_leaves] if parent[node] >= 0 else _HIGHEST
            leaves = order[begin[node] : begin[node] + size[node]]
            yield leaves, float(heights[node - num_leaves]), float(min(above, _HIGHEST))


def _graph(mask_Thw: Bools, flow_Thw2: Floats) -> csr_array:
    """Which cells of a mask touch in a frame, or are the same by the flow to the frame before."""
    index_Thw = np.full(mask_Thw.shape, -1)
    index_Thw[mask_Thw] = np.arange(mask_Thw.sum())
    pairs = [(index_Thw[:, :-1], index_Thw[:, 1:]), (index_Thw[:, :, :-1], index_Thw[:, :, 1:])]
    times, rows, columns = np.nonzero(mask_Thw)
    shift = flow_Thw2[times, rows, columns]
    rows_back, columns_back = np.rint(rows + shift[:, 1]).astype(int), np.rint(columns + shift[:, 0]).astype(int)
    height, width = mask_Thw.shape[1:]
    kept = (times > 0) & (rows_back >= 0) & (rows_back < height) & (columns_back >= 0) & (columns_back < width)
    before = index_Thw[times[kept] - 1, rows_back[kept], columns_back[kept]]
    pairs.append((index_Thw[times[kept], rows[kept], columns[kept]], before))
    ends = np.concatenate([np.stack([one.ravel(), other.ravel()]) for one, other in pairs], 1)
    ends = ends[:, (ends >= 0).all(0)]
    half = csr_array((np.ones(ends.shape[1]), (ends[0], ends[1])), (int(mask_Thw.sum()),) * 2)
    return csr_array(half + half.T)
