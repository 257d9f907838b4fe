"""Initial clustering by recursive normalised cuts, which choose the number of segments themselves.

Shape legend: n tokens of a frame or of a part of it, c channels, S candidate splits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.stages.features import FeaturePass, Features, normalize
from zsvss.stages.initialization import Initialization, by_first_token

Array = npt.NDArray[np.float64]


class RecursiveNormalizedCut(Initialization):
    """Cuts the graph of the first frame's tokens in two, and each part again, while the cut is cheap.

    Tokens are linked by their cosine similarity to the power of ``exponent``. A part is split along the second
    smallest generalised eigenvector of its graph Laplacian, at the best of ``num_splits`` evenly spaced values, if the
    normalised cut is below ``threshold``.

    Args:
        threshold: largest normalised cut (0..2) that splits a part; more gives more segments.
        exponent: of the similarity.
        num_splits: candidate values.
        features: what is compared, on the grid of the clustering features; ``None`` takes those.

    Source: DiffCut (arXiv 2406.02842); the cut of Shi and Malik, "Normalized Cuts and Image Segmentation" (2000).

    Differs from the paper: features are read from the up blocks of this package's feature pass, by default the
    clustering features, where DiffCut reads the last self-attention of the down blocks; labels are not refined to
    pixels here, as the last stage does that.
    """

    def __init__(
        self, threshold: float = 0.5, exponent: float = 10.0, num_splits: int = 10, features: Features | None = None
    ) -> None:
        self.threshold = threshold
        self.exponent = exponent
        self.num_splits = num_splits
        self.features = features
        self.reads_latents = features is not None and features.reads_latents

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        return self.features.keys(backbone) if self.features else []

    @override
    def __call__(
        self, features_nc: Tensor, grid: tuple[int, int], num_clusters: int, seen: FeaturePass | None = None
    ) -> Tensor:
        if self.features is not None:
            if seen is None:
                raise ValueError("RecursiveNormalizedCut with features of its own needs the feature pass.")
            features_Tnc, own_grid = seen.read(self.features)
            if own_grid != grid:
                raise ValueError(f"initialization.features lie on a grid of {own_grid} tokens, features on {grid}.")
            features_nc = features_Tnc[0]
        unit_nc = normalize(features_nc.double(), "euclidean")
        affinity_nn = (unit_nc @ unit_nc.T).clamp(min=0).pow(self.exponent).cpu().numpy()
        parts = self._parts(affinity_nn)
        clusters_n = torch.empty(len(features_nc), dtype=torch.int64)
        for k, part in enumerate(parts):
            clusters_n[torch.from_numpy(part)] = k
        return by_first_token(clusters_n.to(features_nc.device))

    def _parts(self, affinity_nn: Array) -> list[npt.NDArray[np.int64]]:
        """Token numbers of each segment."""
        done, queue = [], [np.arange(len(affinity_nn))]
        while queue:
            part = queue.pop()
            within = affinity_nn[np.ix_(part, part)]
            is_upper, cut = best_split(within, self.num_splits) if len(part) > 1 else (None, np.inf)
            if is_upper is None or not cut < self.threshold:
                done.append(part)
            else:
                queue += [part[is_upper], part[~is_upper]]
        return done


def best_split(affinity_nn: Array, num_splits: int) -> tuple[npt.NDArray[np.bool_] | None, float]:
    """Split a graph in two along its second eigenvector.

    Returns:
        Which tokens are on the upper side [n] and the normalised cut; ``None`` if there is nothing to split.
    """
    degree_n = affinity_nn.sum(1)
    scale_n = 1 / np.sqrt(np.maximum(degree_n, np.finfo(np.float64).tiny))
    laplacian_nn = np.eye(len(affinity_nn)) - scale_n[:, None] * affinity_nn * scale_n
    _, vectors = eigh(laplacian_nn, subset_by_index=[1, 1])
    value_n = scale_n * vectors[:, 0]
    candidates_S = np.linspace(value_n.min(), value_n.max(), num_splits + 2)[1:-1]
    is_upper_Sn = value_n > candidates_S[:, None]
    cuts = [normalized_cut(affinity_nn, is_upper_n) for is_upper_n in is_upper_Sn]
    best = int(np.argmin(cuts))
    return (is_upper_Sn[best], cuts[best]) if np.isfinite(cuts[best]) else (None, np.inf)


def normalized_cut(affinity_nn: Array, is_upper_n: npt.NDArray[np.bool_]) -> float:
    """Weight between both sides over each side's weight to all, summed over the sides; infinite if a side is empty."""
    inside = is_upper_n.astype(np.float64)
    to_upper_n = affinity_nn @ inside
    between = float(to_upper_n[~is_upper_n].sum())
    weights = float(to_upper_n.sum()), float(affinity_nn.sum() - to_upper_n.sum())
    if not is_upper_n.any() or is_upper_n.all() or min(weights) <= 0:
        return np.inf
    return between / weights[0] + between / weights[1]
