"""Stage 1 without a scene context: every frame is clustered on its own.

Shape legend: T frames of a clip, n tokens of a frame, c channels, K clusters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from typing_extensions import override

from zsvss.stages.cluster_names import name_clusters
from zsvss.stages.context import Memory, SceneContext, check_at_least_one
from zsvss.stages.features import FeaturePass
from zsvss.stages.kmeans import KMeans, kmeans_of_each


class PerFrameClustering(SceneContext):
    """No scene context: K-means on every frame alone, as per-frame methods do.

    The clusters of a frame take the names of the previous frame's by the one-to-one assignment that minimises the sum
    of centre distances (Hungarian algorithm), so that labels can be compared over time at all.

    Args:
        num_clusters: K.
        num_restarts: restarts of K-means.

    Source: the per-frame baseline of the paper's Sec. 4, after EmerDiff (arXiv 2401.11739).
    """

    reads_latents = False

    def __init__(self, num_clusters: int = 20, num_restarts: int = 10) -> None:
        check_at_least_one("context", num_restarts=num_restarts)
        self.num_clusters = num_clusters
        self.num_restarts = num_restarts

    @override
    def start(
        self,
        features_Tnc: Tensor,
        generator: torch.Generator,
        names_n: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        seen: FeaturePass | None = None,
    ) -> tuple[Tensor, Memory]:
        first, *rest = self._cluster(features_Tnc, generator)
        labels_K = torch.arange(self.num_clusters, device=features_Tnc.device)
        if names_n is not None:
            labels_K = name_clusters(first.labels_N, names_n.to(labels_K.device), first.centers_Kc)
        memory = Memory(first.centers_Kc, labels_K, labels_K.unique())
        first_1n = labels_K[first.labels_N][None]
        clusters_2n = None if names_n is None else torch.stack([first.labels_N, first_1n[0]])
        if not rest:
            return first_1n, memory._replace(clusters_2n=clusters_2n)
        rest_Tn, memory = follow(rest, memory)
        return torch.cat([first_1n, rest_Tn]), memory._replace(clusters_2n=clusters_2n)

    @override
    def resume(
        self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator, seen: FeaturePass | None = None
    ) -> tuple[Tensor, Memory]:
        return follow(self._cluster(features_Tnc, generator), memory)

    def _cluster(self, features_Tnc: Tensor, generator: torch.Generator) -> list[KMeans]:
        frames = list(features_Tnc)
        return kmeans_of_each(frames, self.num_clusters, generator=generator, num_restarts=self.num_restarts)


def follow(clusters: Sequence[KMeans], memory: Memory) -> tuple[Tensor, Memory]:
    """Give the clusters of each frame the labels of those of the frame before that are closest, one to one.

    Args:
        clusters: of one or more frames.
        memory: centres and labels of the frame before them.

    Returns:
        int64 labels [T, n] and the memory of the last frame.
    """
    centers = [memory.points_Nc, *(of_frame.centers_Kc for of_frame in clusters)]
    distances_TKK = torch.stack([torch.cdist(now, before) for before, now in itertools.pairwise(centers)])
    previous = np.stack([linear_sum_assignment(distances_KK)[1] for distances_KK in distances_TKK.cpu().numpy()])
    labels_K, labels_Tn = memory.labels_N, []
    for of_frame, previous_K in zip(clusters, torch.from_numpy(previous).to(labels_K.device), strict=True):
        labels_K = labels_K[previous_K]
        labels_Tn.append(labels_K[of_frame.labels_N])
    return torch.stack(labels_Tn), Memory(centers[-1], labels_K, memory.label_set_L)
