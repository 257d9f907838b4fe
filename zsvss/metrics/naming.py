"""Naming protocols: which class id a class-agnostic cluster id is scored as.

Two families. `FirstFrameNaming` (the paper's) gives the first frame's ground truth to the method, whose predictions
then are class ids already. All others let the method run without any ground truth and name its clusters afterwards,
by their overlap with ground truth: a table of votes, one row a cluster, one column a class, from the frames that the
protocol looks at. Which protocol was used belongs beside every number; `ClusterNaming.note` says it in words.

A cluster without a class keeps an id of its own, ``num_classes + cluster id``: outside ``0..num_classes-1``, so wrong
in mIoU, and distinct, so that merging the unnamed clusters does not flatter video consistency.

Shapes: H W pixels, K clusters, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

VotingFrames = Literal["none", "first", "first_labelled", "all"]


class ClusterNaming(ABC):
    """A naming protocol: which frames vote, and how votes become names. Holds no state of a video."""

    name: ClassVar[str]
    """The protocol's name in result tables."""
    note: ClassVar[str]
    """What the protocol uses of the ground truth, for display beside every number."""
    voting_frames: ClassVar[VotingFrames]
    """Frames whose ground truth votes: ``none``, ``first`` (must be labelled), ``first_labelled``, or ``all``."""
    ground_truth_in_method: ClassVar[bool] = False
    """Whether the first frame's ground truth goes into the method itself (predictions then are class ids)."""

    @property
    def needs_first_frame_labels(self) -> bool:
        """Whether a video without ground truth for its first frame cannot be scored."""
        return self.ground_truth_in_method or self.voting_frames == "first"

    @property
    def needs_whole_video(self) -> bool:
        """Whether names are known only when the video has ended, so that predictions have to be kept until then."""
        return self.voting_frames == "all"

    @abstractmethod
    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Name clusters.

        Args:
            votes_KC: int64; pixels of each cluster id with each ground-truth class in the voting frames.

        Returns:
            class id of each named cluster id; a cluster that is absent stays without a class.
        """


class FirstFrameNaming(ClusterNaming):
    """The paper's protocol: K-means clusters take the majority label of the first frame inside the method.

    Clusters that share a label merge before the scene context model is fitted, and a class absent from the first
    frame can never appear.

    Args:
        void_as_label: [quirk] the released code treats void as one more ordinary label, which can win clusters and
            is modulated like the others; a pixel predicted as void then is wrong. By default void does not vote.
    """

    name = "first_frame"
    note = "uses the first frame's ground truth inside the method"
    voting_frames = "none"
    ground_truth_in_method = True

    def __init__(self, void_as_label: bool = False) -> None:
        self.void_as_label = void_as_label

    def first_labels(self, class_HW: Tensor, num_classes: int) -> Tensor:
        """Labels of the first frame as the method is to see them.

        Args:
            class_HW: ground-truth class ids, negative where void.
            num_classes: C; with `void_as_label` it becomes the id of void.

        Returns:
            int64 ``[H, W]``; negative values do not vote.

        >>> void_in_corner = torch.tensor([[-1, 0], [1, 1]])
        >>> FirstFrameNaming().first_labels(void_in_corner, num_classes=2)
        tensor([[-1,  0],
                [ 1,  1]])
        >>> FirstFrameNaming(void_as_label=True).first_labels(void_in_corner, num_classes=2)
        tensor([[2, 0],
                [1, 1]])
        """
        class_HW = class_HW.long()
        return torch.where(class_HW < 0, num_classes, class_HW) if self.void_as_label else class_HW

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Nothing to name: predictions are class ids."""
        raise RuntimeError("first_frame naming happens inside the method; its predictions are class ids already")


class GivenFirstFrameNaming(ClusterNaming):
    """The task of DAVIS: the first frame's ground truth is given to the method, which propagates it.

    For scene context models that take given labels, pixel by pixel, in place of naming clusters by majority.
    """

    name = "given_first_frame"
    note = "the first frame's ground truth is given to the method, at full resolution, and propagated"
    voting_frames = "none"
    ground_truth_in_method = True

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Nothing to name: predictions are class ids."""
        raise RuntimeError("given_first_frame gives labels to the method; its predictions are class ids already")


class PosthocMajorityNaming(ClusterNaming):
    """Each cluster takes its majority class in the first frame; ties go to the smallest class id."""

    name = "posthoc_majority"
    note = "clusters named after the run by the majority of the first frame's ground truth"
    voting_frames = "first"

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Majority of each row.

        >>> PosthocMajorityNaming().assign(torch.tensor([[2, 5, 0], [0, 0, 0], [3, 0, 3]]))
        {0: 1, 2: 0}
        """
        return _majority(votes_KC)


class LabelledFrameNaming(ClusterNaming):
    """Each cluster takes its majority class in the first frame that has ground truth, wherever that frame is.

    For benchmarks that label one frame in the middle of a snippet. That frame is scored as well, so its number is
    optimistic.
    """

    name = "labelled_frame"
    note = "clusters named after the run by the majority of the first labelled frame, which is itself scored"
    voting_frames = "first_labelled"

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Majority of each row; ties go to the smallest class id."""
        return _majority(votes_KC)


class PosthocVideoNaming(ClusterNaming):
    """An oracle: each cluster takes its majority class over the whole video; ties go to the smallest class id."""

    name = "posthoc_video"
    note = "oracle: clusters named after the run by the majority over the whole video's ground truth"
    voting_frames = "all"

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Majority of each row."""
        return _majority(votes_KC)


class HungarianNaming(ClusterNaming):
    """One-to-one: the assignment of clusters to classes that makes the most pixels of the whole video right.

    At most min(K, C) clusters get a class. A pair that shares no pixel is not assigned.
    """

    name = "hungarian"
    note = "clusters assigned to classes one to one after the run, over the whole video's ground truth"
    voting_frames = "all"

    def assign(self, votes_KC: Tensor) -> dict[int, int]:
        """Optimal assignment of rows to columns.

        >>> HungarianNaming().assign(torch.tensor([[5, 4], [5, 0], [0, 0]]))
        {0: 1, 1: 0}
        """
        votes = votes_KC.cpu().numpy()
        rows, columns = linear_sum_assignment(votes, maximize=True)
        return {
            int(cluster): int(class_id)
            for cluster, class_id in zip(rows, columns, strict=True)
            if votes[cluster, class_id]
        }


def cluster_votes(cluster_HW: Tensor, class_HW: Tensor, num_classes: int) -> Tensor:
    """Count pixels by cluster and ground-truth class; void pixels and negative cluster ids have no vote.

    Args:
        cluster_HW: predicted cluster ids.
        class_HW: ground-truth class ids of the same shape, negative where void.
        num_classes: C.

    Returns:
        int64 ``[K, C]``, K the largest cluster id + 1.

    >>> cluster_votes(torch.tensor([[0, 2, 2]]), torch.tensor([[1, 1, -1]]), num_classes=2)
    tensor([[0, 1],
            [0, 0],
            [0, 1]])
    """
    num_clusters = max(int(cluster_HW.max()) + 1, 0) if cluster_HW.numel() else 0
    # The first row and column collect what has no vote.
    cells = cluster_HW.long().clamp(min=-1).add_(1).mul_(num_classes + 1)
    cells += class_HW.clamp(min=-1).add_(1)
    votes = torch.bincount(cells.flatten(), minlength=(num_clusters + 1) * (num_classes + 1))
    return votes.reshape(num_clusters + 1, num_classes + 1)[1:, 1:]


def add_votes(votes_KC: Tensor, more_KC: Tensor) -> Tensor:
    """Add two tables of votes; the one with fewer clusters is filled up with zeros."""
    if len(votes_KC) < len(more_KC):
        votes_KC, more_KC = more_KC, votes_KC
    total_KC = votes_KC.clone()
    total_KC[: len(more_KC)] += more_KC
    return total_KC


def rename_clusters(cluster_HW: Tensor, names: dict[int, int], num_classes: int) -> Tensor:
    """Replace cluster ids by class ids.

    Args:
        cluster_HW: predicted cluster ids; negative ones stay as they are.
        names: class id of each named cluster.
        num_classes: C; a cluster k without a name becomes C + k.

    Returns:
        int64 of the same shape.

    >>> rename_clusters(torch.tensor([[0, 1, 2, -1]]), {0: 1, 2: 1}, num_classes=2)
    tensor([[ 1,  3,  1, -1]])
    """
    cluster_HW = cluster_HW.long()
    num_clusters = max([int(cluster_HW.max()) if cluster_HW.numel() else 0, *names]) + 1
    class_of_cluster = torch.arange(num_clusters, device=cluster_HW.device) + num_classes
    for cluster, class_id in names.items():
        class_of_cluster[cluster] = class_id
    return torch.where(cluster_HW < 0, cluster_HW, class_of_cluster[cluster_HW.clamp(min=0)])


def _majority(votes_KC: Tensor) -> dict[int, int]:
    winners = votes_KC.argmax(1).tolist()  # the first of equals
    return {cluster: winners[cluster] for cluster in votes_KC.sum(1).nonzero().flatten().tolist()}
