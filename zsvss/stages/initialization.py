"""Initial clustering of a video's first frame, in place of K-means.

Shape legend: n tokens of a frame, c channels, K clusters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.stages.features import FeaturePass


class Initialization(ABC):
    """Clusters the tokens of a video's first frame; pure and deterministic.

    Attributes:
        reads_latents: as of :class:`~zsvss.stages.features.Features`, beside the features.
    """

    reads_latents: bool = True

    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        """Tensors that the feature pass must record beside the clustering features; none by default."""
        return []

    @abstractmethod
    def __call__(
        self, features_nc: Tensor, grid: tuple[int, int], num_clusters: int, seen: FeaturePass | None = None
    ) -> Tensor:
        """Cluster the first frame.

        Args:
            features_nc: clustering features of the first frame.
            grid: height and width of the token grid.
            num_clusters: K, or the most there may be; ignored by those that choose it themselves.
            seen: the feature pass, for those that read more of it than the features.

        Returns:
            int64 clusters [n], 0..K-1, each with at least one token, in the order of their first tokens.
        """


class WardInitialization(Initialization):
    """Grid-connected agglomerative clustering by Ward's criterion.

    Neighbouring tokens are merged as long as the sum of squared distances to the cluster means grows least, so every
    cluster is one connected region of the first frame.

    Args:
        stop: stop where the next merge would add more than this share of the frame's sum of squared distances to its
            mean, 0..1: the frame then has as many clusters as it needs, and ``num_clusters`` at most. ``None`` merges
            until ``num_clusters`` are left.

    Source: Ward, "Hierarchical Grouping to Optimize an Objective Function" (1963), in scikit-learn's
    connectivity-constrained implementation.
    """

    reads_latents = False

    def __init__(self, stop: float | None = None) -> None:
        if stop is not None and not 0 < stop <= 1:
            raise ValueError(f"initialization.stop = {stop} must be null, or above 0 and at most 1.")
        self.stop = stop

    @override
    def __call__(
        self, features_nc: Tensor, grid: tuple[int, int], num_clusters: int, seen: FeaturePass | None = None
    ) -> Tensor:
        from sklearn.cluster import AgglomerativeClustering
        from sklearn.feature_extraction.image import grid_to_graph

        if not 1 <= num_clusters <= len(features_nc):
            raise ValueError(
                f"num_clusters = {num_clusters} does not fit {len(features_nc)} tokens: choose between 1 and "
                f"{len(features_nc)}, or give larger frames."
            )
        if len(features_nc) == 1:
            return torch.zeros(1, dtype=torch.int64, device=features_nc.device)
        points_nc = features_nc.double().cpu().numpy()
        ward = AgglomerativeClustering(num_clusters, linkage="ward", connectivity=grid_to_graph(*grid))
        if self.stop is not None:
            # scikit-learn's distance of two clusters is the square root of twice what their merge adds to the sum.
            total = float(np.square(points_nc - points_nc.mean(0)).sum())
            ward.set_params(n_clusters=None, distance_threshold=(2 * self.stop * total) ** 0.5)
            if ward.fit(points_nc).n_clusters_ > num_clusters:
                ward.set_params(n_clusters=num_clusters, distance_threshold=None)
        clusters_n = torch.from_numpy(ward.fit_predict(points_nc))
        return by_first_token(clusters_n.to(features_nc.device))


def by_first_token(clusters_n: Tensor) -> Tensor:
    """Renumber clusters 0..K-1 in the order of their first tokens.

    Example:
        >>> by_first_token(torch.tensor([7, 2, 7, 5]))
        tensor([0, 1, 0, 2])
    """
    found_K, cluster_n = clusters_n.unique(return_inverse=True)
    num_tokens = len(clusters_n)
    number_n = torch.arange(num_tokens, device=clusters_n.device)
    first_K = torch.full_like(found_K, num_tokens).scatter_reduce(0, cluster_n, number_n, "amin")
    return first_K.argsort().argsort()[cluster_n]


def cluster_means(features_nc: Tensor, clusters_n: Tensor) -> Tensor:
    """Mean feature [K, c] of each cluster 0..K-1; every cluster has a token."""
    num_clusters = int(clusters_n.max()) + 1
    member_Kn = (clusters_n == torch.arange(num_clusters, device=clusters_n.device)[:, None]).to(features_nc.dtype)
    return member_Kn @ features_nc / member_Kn.sum(1, keepdim=True)
