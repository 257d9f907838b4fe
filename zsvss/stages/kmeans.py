"""K-means in torch, on the device of its input.

Matrix products, cut into chunks so that no temporary exceeds a memory bound, and deterministic: sums are matrix
products in a fixed order, random numbers come from an explicit CPU generator, ties have a stated winner.

Shape legend: N points, c channels, K clusters, F sets of points, R restarts, S trials of a seed, q blocks of s values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from zsvss.stages import neighbors
from zsvss.stages.neighbors import squared_distances
from zsvss.stopwatch import measured

_ITERATIONS_UNASKED = 16
"""Lloyd iterations after which an accelerator is asked whether any restart still moves; asking makes the host wait."""


class KMeans(NamedTuple):
    """Result of :func:`kmeans`.

    Attributes:
        centers_Kc: cluster centres, floating point.
        labels_N: int64 cluster of each point, 0..K-1.
        inertia: sum of squared distances of the points to their centres.
        num_iterations: Lloyd iterations of the best restart.
    """

    centers_Kc: Tensor
    labels_N: Tensor
    inertia: float
    num_iterations: int


def check_num_clusters(num_clusters: int, num_points: int) -> None:
    """Refuse more clusters than points."""
    if not 1 <= num_clusters <= num_points:
        raise ValueError(
            f"num_clusters = {num_clusters} does not fit {num_points} points (feature tokens): "
            f"choose between 1 and {num_points}, or give larger frames."
        )


def kmeans(
    points_Nc: Tensor,
    num_clusters: int,
    *,
    generator: torch.Generator | None = None,
    num_restarts: int = 10,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    initial_centers_Kc: Tensor | None = None,
) -> KMeans:
    """Cluster points by Lloyd's algorithm from greedy k-means++ seeds, keeping the best of several restarts.

    All restarts run side by side as one batch. Conventions (greedy seeding with ``2 + log K`` candidates, a tolerance
    relative to the mean variance, an empty cluster moved to the point farthest from its centre) are scikit-learn's,
    which the published code uses.

    Args:
        points_Nc: floating-point points; computed in float32 at least.
        num_clusters: K, at most N.
        generator: CPU generator of the seeds; required unless ``initial_centers_Kc`` is given.
        num_restarts: R; ignored with ``initial_centers_Kc``.
        max_iterations: upper bound of Lloyd iterations.
        tolerance: stop when the summed squared shift of the centres is below this share of the mean variance.
        initial_centers_Kc: start from these centres, once.

    Returns:
        The restart with the smallest inertia; ties go to the first.

    Raises:
        ValueError: if there are fewer points than clusters or no source of randomness.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> result = kmeans(points, 2, generator=torch.Generator().manual_seed(0))
        >>> sorted(round(center, 2) for center in result.centers_Kc.flatten().tolist())
        [0.05, 5.05]
        >>> round(result.inertia, 4)
        0.01
    """
    (result,) = kmeans_of_each(
        [points_Nc],
        num_clusters,
        generator=generator,
        num_restarts=num_restarts,
        max_iterations=max_iterations,
        tolerance=tolerance,
        initial_centers_Kc=initial_centers_Kc,
    )
    return result


@measured("kmeans")
def kmeans_of_each(
    point_sets: Sequence[Tensor],
    num_clusters: int,
    *,
    generator: torch.Generator | None = None,
    num_restarts: int = 10,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    initial_centers_Kc: Tensor | None = None,
) -> list[KMeans]:
    """Cluster each of several sets of points alone, so that a device is asked for all of them at once.

    Random numbers are drawn for one set after another, so that each result is :func:`kmeans`'s.

    Args:
        point_sets: floating-point points [N, c] of each set; N may differ.
        num_clusters: K, at most N.
        generator: as in :func:`kmeans`, as are the others.
        num_restarts: R.
        max_iterations: upper bound of Lloyd iterations.
        tolerance: of the centres' shift.
        initial_centers_Kc: start each set from these centres, once.

    Raises:
        ValueError: if a set has fewer points than clusters or there is no source of randomness.
    """
    for points_Nc in point_sets:
        check_num_clusters(num_clusters, len(points_Nc))
    if initial_centers_Kc is None and generator is None:
        raise ValueError("kmeans needs a generator or initial_centers_Kc.")
    runs = [_Lloyd(points_Nc, tolerance) for points_Nc in point_sets]
    if initial_centers_Kc is not None:
        for run in runs:
            run.start((initial_centers_Kc.to(run.points_Nc) - run.offset_c)[None])
    elif generator is not None:
        draws = [_draw(len(points_Nc), num_clusters, num_restarts, generator) for points_Nc in point_sets]
        device = point_sets[0].device
        first_FR, uniform_FKRS = (torch.stack(numbers).to(device) for numbers in zip(*draws, strict=True))
        for run, first_R, uniform_KRS in zip(runs, first_FR, uniform_FKRS, strict=True):
            run.start(_seed_centers(run.points_Nc, first_R, uniform_KRS))
    is_free = asking_is_free(point_sets[0].device)
    for iteration in range(max_iterations):
        if is_free or iteration % _ITERATIONS_UNASKED == 0:
            active_F = torch.stack([run.active_R.any() for run in runs]).tolist()
        if not any(active_F):
            break
        for run, is_active in zip(runs, active_F, strict=True):
            if is_active:
                run.iterate(run.active_R.nonzero().flatten() if is_free else None)
    best = [run.best() for run in runs]
    numbers = torch.stack([numbers_2 for _, _, numbers_2 in best]).tolist()
    return [
        KMeans(centers_Kc, labels_N, inertia, int(num_iterations))
        for (centers_Kc, labels_N, _), (inertia, num_iterations) in zip(best, numbers, strict=True)
    ]


def asking_is_free(device: torch.device) -> bool:
    """Whether the host knows at once what the device has computed."""
    return device.type == "cpu"


class _Lloyd:
    """Lloyd's iterations of all restarts of one set of points; asks its device for nothing."""

    def __init__(self, points_Nc: Tensor, tolerance: float) -> None:
        points_Nc = points_Nc.to(torch.promote_types(points_Nc.dtype, torch.float32))
        self.offset_c = points_Nc.mean(0)  # distances are more accurate around the origin
        self.points_Nc = points_Nc - self.offset_c
        variance = self.points_Nc.var(0, correction=0).mean()
        self.threshold = (variance.double() * tolerance).to(variance.dtype)

    def start(self, centers_RKc: Tensor) -> None:
        """Begin at these centres."""
        self.centers_RKc = centers_RKc
        self.labels_RN, self.distances_RN = _assign(self.points_Nc, centers_RKc)
        self.active_R = torch.ones(len(centers_RKc), dtype=torch.bool, device=centers_RKc.device)
        self.iterations_R = torch.zeros_like(self.active_R, dtype=torch.int64)

    def iterate(self, running: Tensor | None) -> None:
        """Move the centres of the restarts that are active.

        Args:
            running: their numbers, so that the others cost nothing; ``None`` where these are not known: then all are
                computed, and the others stay as they are.
        """
        chosen = slice(None) if running is None else running
        was_active_R, labels_RN = self.active_R[chosen], self.labels_RN[chosen]
        before_RKc = self.centers_RKc[chosen]
        moved_RKc = _update_centers(self.points_Nc, labels_RN, self.distances_RN[chosen], before_RKc.shape[1])
        moved_RKc = torch.where(was_active_R[:, None, None], moved_RKc, before_RKc)
        shift_R = (moved_RKc - before_RKc).square().sum((1, 2))
        new_labels_RN, distances_RN = _assign(self.points_Nc, moved_RKc)
        settled_R = (new_labels_RN == labels_RN).all(1) | (shift_R <= self.threshold)
        self.iterations_R[chosen] += was_active_R
        self.centers_RKc[chosen] = moved_RKc
        self.labels_RN[chosen], self.distances_RN[chosen] = new_labels_RN, distances_RN
        self.active_R[chosen] = was_active_R & ~settled_R

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the best restart the centres, the labels, and its inertia and number of iterations [2]."""
        # Distances by expansion lose digits; the inertia that chooses the restart is computed from differences.
        inertia_R = torch.stack(
            [
                (self.points_Nc - centers_Kc[labels_N]).square().sum(dtype=torch.float64)
                for centers_Kc, labels_N in zip(self.centers_RKc, self.labels_RN, strict=True)
            ]
        )
        best_1 = inertia_R.argmin(0, keepdim=True)
        numbers_R2 = torch.stack([inertia_R, self.iterations_R.double()], 1)
        centers_Kc, labels_N, numbers_2 = (
            tensor.index_select(0, best_1)[0] for tensor in (self.centers_RKc, self.labels_RN, numbers_R2)
        )
        return centers_Kc + self.offset_c, labels_N, numbers_2


def _draw(num_points: int, num_clusters: int, num_restarts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random numbers of a seeding: the first points [R], and in 0..1 those of the trials of the others [K-1, R, S]."""
    num_trials = 2 + int(math.log(num_clusters))
    first_R = torch.randint(num_points, (num_restarts,), generator=generator)
    shape = (num_restarts, num_trials)
    uniform = [torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(num_clusters - 1)]
    return first_R, torch.stack(uniform) if uniform else torch.empty(0, *shape, dtype=torch.float64)


def _seed_centers(points_Nc: Tensor, first_R: Tensor, uniform_KRS: Tensor) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): [R, K, c] centres drawn by squared distance."""
    num_points = len(points_Nc)
    chosen = [first_R]
    closest_RN = squared_distances(points_Nc[first_R], points_Nc)
    for uniform_RS in uniform_KRS:
        cumulative_RN = cumulative_sums(closest_RN.double())
        trials_RS = torch.searchsorted(cumulative_RN, uniform_RS * cumulative_RN[:, -1:]).clamp_(max=num_points - 1)
        distances_RSN = squared_distances(points_Nc[trials_RS.flatten()], points_Nc)
        distances_RSN = distances_RSN.view(*trials_RS.shape, num_points).minimum(closest_RN[:, None])
        best_R1 = distances_RSN.sum(2, dtype=torch.float64).argmin(1, keepdim=True)
        chosen.append(trials_RS.gather(1, best_R1)[:, 0])
        closest_RN = distances_RSN.gather(1, best_R1[..., None].expand(-1, 1, num_points))[:, 0]
    return points_Nc[torch.stack(chosen, 1)]


def cumulative_sums(values_RN: Tensor) -> Tensor:
    """Sums [R, N] of each row's values up to each one.

    On a GPU PyTorch's own sums floating-point values in no fixed order, and refuses to in deterministic mode; there,
    blocks are summed by matrix products.
    """
    if values_RN.device.type == "cpu":
        return values_RN.cumsum(1)
    num_values, size = values_RN.shape[1], 256
    blocks_Rqs = functional.pad(values_RN, (0, -num_values % size)).unflatten(1, (-1, size))
    within_Rqs = blocks_Rqs @ values_RN.new_ones(size, size).triu()
    num_blocks = within_Rqs.shape[1]
    before_Rq = within_Rqs[..., -1] @ values_RN.new_ones(num_blocks, num_blocks).triu(1)
    sums_RN: Tensor = (within_Rqs + before_Rq[..., None]).flatten(1)[:, :num_values].contiguous()
    return sums_RN


def _assign(points_Nc: Tensor, centers_RKc: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centre of each point per restart: labels [R, N] and squared distances [R, N]."""
    num_restarts, num_clusters, _ = centers_RKc.shape
    flat_Qc = centers_RKc.flatten(0, 1)
    labels, distances = [], []
    rows = max(1, neighbors.MEMORY_BOUND // (len(flat_Qc) * points_Nc.element_size()))
    for chunk_Nc in points_Nc.split(rows):
        distances_NRK = squared_distances(chunk_Nc, flat_Qc).view(-1, num_restarts, num_clusters)
        nearest = distances_NRK.min(2)
        labels.append(nearest.indices)
        distances.append(nearest.values)
    return torch.cat(labels).T.contiguous(), torch.cat(distances).T.contiguous()


def _update_centers(points_Nc: Tensor, labels_RN: Tensor, distances_RN: Tensor, num_clusters: int) -> Tensor:
    """Means [R, K, c] of the assigned points; an empty cluster moves to the point farthest from its centre."""
    num_restarts, num_points = labels_RN.shape
    sums_RKc = points_Nc.new_zeros(num_restarts * num_clusters, points_Nc.shape[1])
    counts_RK = points_Nc.new_zeros(num_restarts, num_clusters)
    rows = max(1, neighbors.MEMORY_BOUND // (num_restarts * num_clusters * points_Nc.element_size()))
    clusters_K1 = torch.arange(num_clusters, device=labels_RN.device)[:, None]
    for start in range(0, num_points, rows):
        chunk = slice(start, start + rows)
        member_RKN = (labels_RN[:, None, chunk] == clusters_K1).to(points_Nc.dtype)
        sums_RKc.addmm_(member_RKN.flatten(0, 1), points_Nc[chunk])
        counts_RK += member_RKN.sum(2)
    sums_RKc = sums_RKc.view(num_restarts, num_clusters, -1)
    centers_RKc = sums_RKc / counts_RK.clamp(min=1)[..., None]
    is_empty_RK = counts_RK == 0  # rare: on a CPU nothing more is computed without any
    if points_Nc.device.type == "cpu" and not is_empty_RK.any():
        return centers_RKc
    farthest = distances_RN.sort(dim=1, descending=True, stable=True)
    # Of points that all lie on their centres, the first one is the farthest again and again.
    order_RN = torch.where(farthest.values > 0, farthest.indices, 0)
    place_RK = (is_empty_RK.cumsum(1) - 1).clamp(min=0)
    return torch.where(is_empty_RK[..., None], points_Nc[order_RN.gather(1, place_RK)], centers_RKc)
