"""K-nearest-neighbours in torch, on the device of their input.

Matrix products, cut into chunks so that no temporary exceeds a memory bound; ties have a stated winner.

Shape legend: N points, M queries, c channels, k neighbours, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsvss.stopwatch import measured

MEMORY_BOUND = 256 * 2**20
"""Bytes that one temporary matrix may take."""

_CANDIDATES_TO_RERANK = 4
"""Neighbours found in float32 beyond the k wanted, so that the exact order is decided among enough of them."""


def squared_distances(rows_Mc: Tensor, points_Nc: Tensor) -> Tensor:
    """Squared Euclidean distances [M, N], by expansion, not below 0."""
    squares_M1 = rows_Mc.square().sum(1, keepdim=True)
    return torch.addmm(squares_M1 + points_Nc.square().sum(1), rows_Mc, points_Nc.T, alpha=-2).clamp_(min=0)


def nearest_neighbors(queries_Mc: Tensor, points_Nc: Tensor, num_neighbors: int) -> Tensor:
    """Indices [M, k] of the Euclidean nearest neighbours, nearest first; equal distances by the smaller index.

    Candidates are found by float32 matrix products and ordered by float64 differences, so the answer does not depend
    on rounding, device or chunking.

    Example:
        >>> nearest_neighbors(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 2)
        tensor([[1, 0]])
    """
    num_points = len(points_Nc)
    num_neighbors = min(num_neighbors, num_points)
    num_candidates = min(num_neighbors + _CANDIDATES_TO_RERANK, num_points)
    points_Nc = points_Nc.to(torch.promote_types(points_Nc.dtype, torch.float32))
    offset_c = points_Nc.mean(0)
    centered_Nc = points_Nc - offset_c
    bytes_per_query = max(num_points * points_Nc.element_size(), num_candidates * points_Nc.shape[1] * 8)
    found = []
    for chunk_Mc in queries_Mc.to(points_Nc.dtype).split(max(1, MEMORY_BOUND // bytes_per_query)):
        distances_MN = squared_distances(chunk_Mc - offset_c, centered_Nc)
        candidates = distances_MN.topk(num_candidates, largest=False).indices.sort(1).values
        differences = points_Nc[candidates].double() - chunk_Mc.double()[:, None]
        order = differences.square().sum(2).sort(dim=1, stable=True).indices
        found.append(candidates.gather(1, order[:, :num_neighbors]))
    return torch.cat(found)


def knn_votes(
    queries_Mc: Tensor, points_Nc: Tensor, labels_N: Tensor, label_set_L: Tensor, num_neighbors: int = 4
) -> Tensor:
    """Votes [M, L] (int64 counts) of the nearest neighbours for each label of the sorted ``label_set_L``."""
    neighbors_Mk = nearest_neighbors(queries_Mc, points_Nc, num_neighbors)
    index_N = torch.searchsorted(label_set_L, labels_N)
    votes_ML = torch.zeros(len(neighbors_Mk), len(label_set_L), dtype=torch.int64, device=labels_N.device)
    return votes_ML.scatter_add_(1, index_N[neighbors_Mk], torch.ones_like(neighbors_Mk))


def elect(votes_ML: Tensor, label_set_L: Tensor) -> Tensor:
    """Label [M] with the most votes; ties go to the smallest label.

    Example:
        >>> elect(torch.tensor([[2, 2, 0], [0, 1, 3]]), torch.tensor([4, 7, 9]))
        tensor([4, 9])
    """
    num_labels = len(label_set_L)
    rank_L = torch.arange(num_labels, device=votes_ML.device)
    return label_set_L[(votes_ML * num_labels - rank_L).argmax(1)]  # no two scores are equal: argmax is well defined


@measured("knn")
def knn_classify(
    queries_Mc: Tensor,
    points_Nc: Tensor,
    labels_N: Tensor,
    num_neighbors: int = 4,
    label_set_L: Tensor | None = None,
) -> Tensor:
    """Classify queries by a uniform vote of their nearest neighbours; ties go to the smallest label.

    Args:
        queries_Mc: points to classify.
        points_Nc: labelled points.
        labels_N: int64 labels, any ids.
        num_neighbors: k; all points vote where there are fewer.
        label_set_L: sorted labels, those of the points among them; found here, for which a device is asked, if
            ``None``.

    Returns:
        int64 labels [M].
    """
    label_set_L = labels_N.unique() if label_set_L is None else label_set_L
    return elect(knn_votes(queries_Mc, points_Nc, labels_N, label_set_L, num_neighbors), label_set_L)
