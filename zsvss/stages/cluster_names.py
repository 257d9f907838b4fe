"""Class names of clusters inside the method, from the first frame's ground truth.

Shapes: n tokens, K clusters, L classes of the frame, c channels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def name_clusters(clusters_n: Tensor, classes_n: Tensor, centers_Kc: Tensor) -> Tensor:
    """Name each cluster by the majority class of its tokens in the first frame; ties go to the smallest class.

    Void tokens (negative classes) do not vote. A cluster without a vote takes the name of the nearest named cluster.
    If the whole frame is void, clusters keep void names of their own, -1, -2, ...: merged into one label they would
    be perfectly consistent over time.

    Args:
        clusters_n: int64 cluster of each token of the first frame.
        classes_n: int64 class of each token of the first frame.
        centers_Kc: centres of the clusters.

    Returns:
        int64 class of each cluster [K].
    """
    class_set_L, class_index_n = classes_n.unique(return_inverse=True)
    num_clusters, num_classes = len(centers_Kc), len(class_set_L)
    votes_KL = torch.bincount(clusters_n * num_classes + class_index_n, minlength=num_clusters * num_classes)
    if not bool((class_set_L >= 0).any()):
        return -1 - torch.arange(num_clusters, device=clusters_n.device)
    votes_KL = votes_KL.view(num_clusters, num_classes) * (class_set_L >= 0)
    rank_L = torch.arange(num_classes, device=votes_KL.device)
    names_K = class_set_L[(votes_KL * num_classes - rank_L).argmax(1)]
    named_K = votes_KL.sum(1) > 0
    nearest_K = torch.cdist(centers_Kc, centers_Kc[named_K]).argmin(1)
    return torch.where(named_K, names_K, names_K[named_K][nearest_K])
