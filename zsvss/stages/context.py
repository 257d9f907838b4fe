"""Stage 1, the scene context model: which cluster each feature token belongs to, consistently through a video.

Shape legend: T frames of a clip, n tokens of a frame, N points of the memory, c channels, K clusters, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.stages.cluster_names import name_clusters
from zsvss.stages.features import FeaturePass
from zsvss.stages.initialization import Initialization, cluster_means
from zsvss.stages.kmeans import check_num_clusters, kmeans
from zsvss.stages.neighbors import knn_classify
from zsvss.stages.newcomers import Newcomers, NewcomersState
from zsvss.stages.novelty import FIRST_UNNAMED_LABEL, Novelty, NoveltyState
from zsvss.stages.soft_labels import Propagated


class Memory(NamedTuple):
    """What a scene context model carries from clip to clip.

    Attributes:
        points_Nc: labelled feature tokens or cluster centres.
        labels_N: int64 label of each.
        label_set_L: sorted labels of the whole video, fixed by its first clip unless new ones may open.
        novelty: what opening new labels needs to know; ``None`` if it is off.
        propagated: what the propagation of given labels needs to know; ``None`` where clusters are labelled.
        clusters_2n: cluster and class of each token of the first frame, where clusters take classes in the clip.
    """

    points_Nc: Tensor
    labels_N: Tensor
    label_set_L: Tensor
    novelty: NoveltyState | NewcomersState | None = None
    propagated: Propagated | None = None
    clusters_2n: Tensor | None = None


class SceneContext(ABC):
    """Labels the tokens of a clip, given the memory of the video so far; holds no state itself.

    Attributes:
        num_clusters: K, where the tokens are clustered.
        takes_given_labels: whether :meth:`propagate` takes labels that are given for some of the frames.
        reads_latents: as of :class:`~zsvss.stages.features.Features`, beside the features.
    """

    num_clusters: int
    takes_given_labels: bool = False
    reads_latents: bool = True

    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        """What :meth:`start` reads of the feature pass beside the features; nothing by default."""
        return []

    def check(self, num_frames: int, num_tokens: int) -> None:
        """Refuse more clusters than there are tokens to cluster, before anything is computed.

        Args:
            num_frames: of the first clip.
            num_tokens: of a frame.
        """
        check_num_clusters(self.num_clusters, num_tokens)

    @abstractmethod
    def start(
        self,
        features_Tnc: Tensor,
        generator: torch.Generator,
        names_n: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        seen: FeaturePass | None = None,
    ) -> tuple[Tensor, Memory]:
        """Label the first clip of a video.

        Args:
            features_Tnc: normalised features.
            generator: CPU generator of the clustering.
            names_n: ground-truth class of each token of the first frame, negative where void; clusters then take
                their majority class and clusters of one class merge. ``None`` keeps cluster ids 0..K-1.
            grid: height and width of the token grid, for those that need it.
            seen: the feature pass, for those that read more of it than the features.

        Returns:
            int64 labels [T, n] and the memory for the next clip.
        """

    @abstractmethod
    def resume(
        self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator, seen: FeaturePass | None = None
    ) -> tuple[Tensor, Memory]:
        """Label a later clip; returns int64 labels [T, n] and the new memory. Arguments are those of :meth:`start`."""

    def propagate(
        self, features_Tnc: Tensor, grid: tuple[int, int], given_THW: Tensor | None, memory: Memory | None = None
    ) -> tuple[Tensor, Memory]:
        """Label a clip from labels that are given for some frames of it, or were given for earlier ones.

        Args:
            features_Tnc: normalised features.
            grid: height and width of the token grid.
            given_THW: int64 labels of pixels at any size, negative where none is given; ``None`` for a clip without.
            memory: of the video so far; ``None`` opens a video.

        Returns:
            int64 labels [T, n] and the memory for the next clip.

        Raises:
            ValueError: if this scene context model takes no given labels.
        """
        raise ValueError(
            f"{type(self).__name__} takes no given labels; choose a scene context model that propagates them: "
            "--model.context GivenLabels"
        )

    def update(self, features_Tnc: Tensor, labels_Tn: Tensor, memory: Memory) -> Memory:
        """Take the refined labels of the clip into the memory; by default they change nothing."""
        return memory

    def reopened(self, memory: Memory) -> Memory:
        """A memory whose last clip is not the one before the next; by default the same."""
        return memory

    def relabelled(self, memory: Memory, first_free: int) -> Memory:
        """A memory of a first clip whose labels got other names, below ``first_free``; by default the same."""
        return memory

    def of_last_frame(self, memory: Memory, tokens_nc: Tensor) -> Memory:
        """What is worth keeping of a memory when a shot is over; by default all of it.

        Args:
            memory: of :meth:`update`.
            tokens_nc: features of the shot's last frame.
        """
        return memory


class KNNSceneContext(SceneContext):
    """The paper's scene context model: K-means opens the video, K-nearest-neighbours carries it on.

    K-means over the first clip labels the first frame; a KNN classifier fitted on that frame labels every frame of
    the clip. Each later clip is labelled by a KNN fitted on all frames of the clip before it with their refined
    labels (the autoregressive update), so the label set never changes within a video unless ``novelty`` opens labels.

    Args:
        num_clusters: K.
        num_neighbors: neighbours that vote.
        num_restarts: restarts of K-means.
        fit_frames: cluster the tokens of the whole first clip, as the released code does, or of its first frame, as
            the paper's text says.
        initialization: clusters the first frame in place of K-means; those that choose the number of clusters
            themselves ignore ``num_clusters``.
        novelty: lets what enters open new labels, by novelty alone or with motion; ``None`` keeps the label set.
        memory_frames: label a clip by so many of the last frames before it; ``None`` takes the whole clip before it.

    Source: the paper's Sec. 3.2, "Scene context model".
    """

    def __init__(
        self,
        num_clusters: int = 20,
        num_neighbors: int = 4,
        num_restarts: int = 10,
        fit_frames: Literal["clip", "first"] = "clip",
        initialization: Initialization | None = None,
        novelty: Novelty | Newcomers | None = None,
        memory_frames: int | None = None,
    ) -> None:
        check_at_least_one("context", num_neighbors=num_neighbors, num_restarts=num_restarts)
        check_at_least_one("context", memory_frames=1 if memory_frames is None else memory_frames)
        self.num_clusters = num_clusters
        self.num_neighbors = num_neighbors
        self.num_restarts = num_restarts
        self.fit_frames = fit_frames
        self.initialization = initialization
        self.novelty = novelty
        self.memory_frames = memory_frames
        self.reads_latents = initialization is not None and initialization.reads_latents

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        return self.initialization.keys(backbone) if self.initialization else []

    @override
    def check(self, num_frames: int, num_tokens: int) -> None:
        if self.initialization is None:  # some choose the number of clusters themselves
            super().check(num_frames, num_tokens * (num_frames if self.fit_frames == "clip" else 1))

    @override
    def start(
        self,
        features_Tnc: Tensor,
        generator: torch.Generator,
        names_n: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        seen: FeaturePass | None = None,
    ) -> tuple[Tensor, Memory]:
        first_n, centers_Kc = self._clusters(features_Tnc, generator, grid, seen)
        clusters_2n = None
        if names_n is not None:
            named_n = name_clusters(first_n, names_n.to(first_n.device), centers_Kc)[first_n]
            first_n, clusters_2n = named_n, torch.stack([first_n, named_n])
        memory = Memory(features_Tnc[0], first_n, first_n.unique(), clusters_2n=clusters_2n)
        if isinstance(self.novelty, Novelty):
            memory = memory._replace(novelty=self.novelty.calibrate(features_Tnc, needed(grid), names_n is not None))
        elif self.novelty is not None:
            first_new = max(int(first_n.max()) + 1, 0 if names_n is None else FIRST_UNNAMED_LABEL)
            images_T3HW, num_wanted = seen_by(seen).own_images, seen_by(seen).num_wanted
            state = self.novelty.begin(features_Tnc, images_T3HW, needed(grid), first_new, num_wanted)
            memory = memory._replace(novelty=state)
        return self._classify(features_Tnc, memory), memory

    @override
    def resume(
        self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator, seen: FeaturePass | None = None
    ) -> tuple[Tensor, Memory]:
        if isinstance(self.novelty, Novelty) and isinstance(memory.novelty, NoveltyState):
            new_Tn = self.novelty.find(features_Tnc, memory.points_Nc, memory.label_set_L, memory.novelty)
            memory = extended(memory, features_Tnc, new_Tn)
        labels_Tn = self._classify(features_Tnc, memory)
        if isinstance(self.novelty, Newcomers) and isinstance(memory.novelty, NewcomersState):
            return self._with_newcomers(self.novelty, features_Tnc, labels_Tn, memory, memory.novelty, seen_by(seen))
        return labels_Tn, memory

    def _with_newcomers(
        self,
        newcomers: Newcomers,
        features_Tnc: Tensor,
        labels_Tn: Tensor,
        memory: Memory,
        state: NewcomersState,
        seen: FeaturePass,
    ) -> tuple[Tensor, Memory]:
        is_old_N = memory.labels_N < state.first_new
        old_Tn = labels_Tn
        if is_old_N.any() and not is_old_N.all():
            old = memory._replace(points_Nc=memory.points_Nc[is_old_N], labels_N=memory.labels_N[is_old_N])
            old_Tn = self._classify(features_Tnc, old)
        free = max(int(memory.label_set_L.max()) + 1, state.first_new)
        labels_Tn, state = newcomers.label(
            features_Tnc, seen.own_images, labels_Tn, old_Tn, free, state, seen.num_wanted
        )
        label_set_L = torch.cat([memory.label_set_L, labels_Tn.flatten()]).unique()
        return labels_Tn, memory._replace(label_set_L=label_set_L, novelty=state)

    @override
    def reopened(self, memory: Memory) -> Memory:
        if isinstance(memory.novelty, NewcomersState):
            return memory._replace(novelty=memory.novelty._replace(frame_HW3=None))
        return memory

    @override
    def relabelled(self, memory: Memory, first_free: int) -> Memory:
        if isinstance(memory.novelty, NewcomersState):
            first_new = max(first_free, memory.novelty.first_new)
            return memory._replace(novelty=memory.novelty._replace(first_new=first_new))
        return memory

    @override
    def update(self, features_Tnc: Tensor, labels_Tn: Tensor, memory: Memory) -> Memory:
        last = slice(None if self.memory_frames is None else -self.memory_frames, None)
        points_Nc, labels_N = features_Tnc[last].flatten(0, 1), labels_Tn[last].flatten()
        if len(points_Nc) < features_Tnc.shape[:2].numel():
            points_Nc, labels_N = points_Nc.clone(), labels_N.clone()  # views would keep the whole clip
        return Memory(points_Nc, labels_N, memory.label_set_L, memory.novelty)

    @override
    def of_last_frame(self, memory: Memory, tokens_nc: Tensor) -> Memory:
        novelty = memory.novelty
        if isinstance(novelty, NewcomersState):
            novelty = novelty.of_ended_shot()
        labels_N = memory.labels_N[-len(tokens_nc) :].clone()
        return memory._replace(points_Nc=tokens_nc, labels_N=labels_N, novelty=novelty)

    def _clusters(
        self,
        features_Tnc: Tensor,
        generator: torch.Generator,
        grid: tuple[int, int] | None,
        seen: FeaturePass | None,
    ) -> tuple[Tensor, Tensor]:
        """Cluster of each token of the first frame [n], and the centres [K, c]."""
        if self.initialization is not None:
            first_n = self.initialization(features_Tnc[0], needed(grid), self.num_clusters, seen)
            return first_n, cluster_means(features_Tnc[0], first_n)
        fitted = features_Tnc.flatten(0, 1) if self.fit_frames == "clip" else features_Tnc[0]
        clusters = kmeans(fitted, self.num_clusters, generator=generator, num_restarts=self.num_restarts)
        return clusters.labels_N[: features_Tnc.shape[1]], clusters.centers_Kc

    def _classify(self, features_Tnc: Tensor, memory: Memory) -> Tensor:
        labels = knn_classify(
            features_Tnc.flatten(0, 1), memory.points_Nc, memory.labels_N, self.num_neighbors, memory.label_set_L
        )
        return labels.view(features_Tnc.shape[:2])


def check_at_least_one(slot: str, **counts: int) -> None:
    """Refuse a count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{slot}.{name} = {count} must be at least 1.")


def extended(memory: Memory, features_Tnc: Tensor, new_Tn: Tensor) -> Memory:
    """Take tokens with new labels (negative where there is none) into the memory and its label set."""
    is_new_Tn = new_Tn >= 0
    if not is_new_Tn.any():
        return memory
    return memory._replace(
        points_Nc=torch.cat([memory.points_Nc, features_Tnc[is_new_Tn]]),
        labels_N=torch.cat([memory.labels_N, new_Tn[is_new_Tn]]),
        label_set_L=torch.cat([memory.label_set_L, new_Tn[is_new_Tn]]).unique(),
    )


def needed(grid: tuple[int, int] | None) -> tuple[int, int]:
    """The token grid, where it is needed."""
    if grid is None:
        raise ValueError("this scene context model needs the token grid: give start() its height and width.")
    return grid


def seen_by(seen: FeaturePass | None) -> FeaturePass:
    """The feature pass, where it is needed."""
    if seen is None:
        raise ValueError(
            "labels for newcomers are told from the frames, too: give start() and resume() the feature pass."
        )
    return seen
