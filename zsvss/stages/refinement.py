"""Stage 2, correspondence-based refinement: tokens that track each other through the clip agree on a label.

Shape legend: T frames of a clip, L of the frames or latent frames that are compared, n tokens of one, c channels,
P trajectories.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.stages.features import AttentionFeatures, CorrespondenceFeatures, FeaturePass, Features


class Compared(NamedTuple):
    """What a refinement compares of a clip.

    Attributes:
        features_Lnc: features, or queries.
        keys_Lnc: what queries are compared with; ``None`` where features are compared with each other.
        head_channels: channels of a head of queries and keys; ``None`` where there is one.
        latent_T: int64 row of the features for each frame, where frames share latent frames; else ``None``.
    """

    features_Lnc: Tensor
    keys_Lnc: Tensor | None = None
    head_channels: int | None = None
    latent_T: Tensor | None = None


class Refinement(ABC):
    """Refines the coarse labels of a clip by comparing its frames; pure."""

    features: Features

    def reads(self, backbone: Backbone) -> list[Features]:
        """What is read of a backbone; all of it lies on one token grid."""
        return [self.features]

    def compared(self, seen: FeaturePass) -> tuple[Compared, tuple[int, int]]:
        """Read what is compared, by default of each frame; returns its token grid as well."""
        features_Tnc, grid = seen.read(self.features)
        return Compared(features_Tnc), grid

    def refine(self, compared: Compared, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Refine the labels of a clip by what :meth:`compared` has read; returns what a call does."""
        return self(compared.features_Lnc, labels_Tn, grid)

    @abstractmethod
    def __call__(self, features_Tnc: Tensor, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Refine the labels of a clip.

        Args:
            features_Tnc: features of :attr:`features`, unit length.
            labels_Tn: int64 coarse labels, any ids.
            grid: height and width of the token grid.

        Returns:
            int64 refined labels [T, n] and, for inspection, the trajectories as int64 token numbers [T, P].
        """


def check_grids(correspondence: tuple[int, int], features: tuple[int, int]) -> None:
    """Refuse a refinement that compares frames on another grid than the one that bears labels."""
    if correspondence != features:
        raise ValueError(
            f"refinement.features lie on a grid of {correspondence[0]}x{correspondence[1]} tokens, features on one of "
            f"{features[0]}x{features[1]}: give both places of one resolution (of Stable Diffusion's blocks, 3..5, "
            "6..8 or 9..11)."
        )


class CorrespondenceRefinement(Refinement):
    """Majority label along feature trajectories.

    Every token of the first frame is followed by nearest feature from frame to frame; a trajectory that ever moves
    more than ``max_displacement`` cells in a hop is dropped, the others write their most common coarse label to all
    their tokens. Where frames share latent frames, hops go from latent frame to latent frame, and all frames of one
    vote and are written to in the same place.

    Args:
        max_displacement: cells that a hop may move in y and in x.
        features: features that are compared; ``None`` takes those that suit the backbone, by cosine similarity: block 7
            alone in the paper.
        key_features: what is read of the frame that is hopped to, where ``features`` are queries: hops then follow
            attention, the softmax of their products over the frame's tokens. ``None`` with ``features`` compares
            features; without them, it takes what suits the backbone.
        head_channels: channels of a head of ``key_features``, over which attention is averaged; ``None`` is one head.
        skip_first_hop: [quirk] the released code weights the second frame by 0 at the first hop, so that every
            trajectory stays in place there.
        one_sided_displacement: [quirk] the released code forgets the absolute value and drops only trajectories that
            move too far down or right.
        truncate_start_points: [quirk] the released code passes the start points through float32 fractions of the grid
            and truncates them, which loses some cells at some sizes (column 31 of 56) and starts twice in others.

    Source: the paper's Sec. 3.3, "Correspondence-based refinement".

    Differs from the paper: hop t -> t+1 weights the next frame by t' / (t'+1) with t' = t+1 where the published code
    uses t' = t, unless ``skip_first_hop`` is set. Attention in place of similarity is DiffTrack's (arXiv 2506.17220),
    and no part of the paper.
    """

    def __init__(
        self,
        max_displacement: int = 1,
        features: Features | None = None,
        key_features: Features | None = None,
        head_channels: int | None = None,
        skip_first_hop: bool = False,
        one_sided_displacement: bool = False,
        truncate_start_points: bool = False,
    ) -> None:
        if max_displacement < 0:
            raise ValueError(f"refinement.max_displacement = {max_displacement} must be 0 or more cells.")
        self.max_displacement = max_displacement
        if key_features is not None and features is None:
            raise ValueError("refinement.key_features need queries: give refinement.features, too.")
        if head_channels is not None and (key_features is None or head_channels < 1):
            raise ValueError(
                f"refinement.head_channels = {head_channels} must be 1 or more, with refinement.key_features."
            )
        self.features: Features = features or CorrespondenceFeatures()
        self.key_features, self.head_channels = key_features, head_channels
        self._is_chosen = features is not None
        self.skip_first_hop = skip_first_hop
        self.one_sided_displacement = one_sided_displacement
        self.truncate_start_points = truncate_start_points

    def _matched(self, backbone: Backbone) -> tuple[Features, Features | None, int | None]:
        """What is compared: features; or queries, keys and the channels of their heads."""
        places = backbone.places
        if self._is_chosen or not places.matched:
            return self.features, self.key_features, self.head_channels
        queries, keys = (AttentionFeatures(places=of, normalization="none") for of in (places.compared, places.matched))
        return queries, keys, places.head_channels

    @override
    def reads(self, backbone: Backbone) -> list[Features]:
        features, keys, _ = self._matched(backbone)
        return [features] if keys is None else [features, keys]

    @override
    def compared(self, seen: FeaturePass) -> tuple[Compared, tuple[int, int]]:
        features, keys, head_channels = self._matched(seen.backbone)
        latent_T = seen.backbone.latent_frames(len(seen.images_T3HW), seen.images_T3HW.device)
        features_Lnc, grid = seen.read(features, on_latents=latent_T is not None)
        if keys is None:
            return Compared(features_Lnc, latent_T=latent_T), grid
        keys_Lnc, keys_grid = seen.read(keys, on_latents=latent_T is not None)
        if keys_Lnc.shape != features_Lnc.shape or keys_grid != grid:
            raise ValueError(
                f"refinement.key_features are {tuple(keys_Lnc.shape)} on a grid of {keys_grid[0]}x{keys_grid[1]} "
                f"tokens, refinement.features {tuple(features_Lnc.shape)} on one of {grid[0]}x{grid[1]}: give query "
                "and key of one layer."
            )
        if head_channels is not None and keys_Lnc.shape[2] % head_channels:
            raise ValueError(
                f"refinement.head_channels = {head_channels} must divide the {keys_Lnc.shape[2]} channels of the keys."
            )
        return Compared(features_Lnc, keys_Lnc, head_channels, latent_T), grid

    @override
    def refine(self, compared: Compared, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        start_P = truncated_start_points(grid, labels_Tn.device) if self.truncate_start_points else None
        features_Lnc, keys_Lnc, head_channels, latent_T = compared
        trajectories_TP = track(
            features_Lnc, start_P, skip_first_hop=self.skip_first_hop, keys_Tnc=keys_Lnc, head_channels=head_channels
        )
        survives_P = self._survives(trajectories_TP, grid[1])
        if latent_T is not None:
            trajectories_TP = trajectories_TP[latent_T]
        return vote_along(labels_Tn, trajectories_TP, survives_P), trajectories_TP

    @override
    def __call__(self, features_Tnc: Tensor, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return self.refine(Compared(features_Tnc), labels_Tn, grid)

    def _survives(self, trajectories_TP: Tensor, width: int) -> Tensor:
        """Which trajectories never move too far."""
        position_2TP = torch.stack([trajectories_TP // width, trajectories_TP % width])
        moves = position_2TP.diff(dim=1)
        if not self.one_sided_displacement:
            moves = moves.abs()
        survives_P: Tensor = (moves <= self.max_displacement).all(1).all(0)
        return survives_P


def truncated_start_points(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Token numbers [n] of the start points after the released code's round trip through float32 fractions."""
    y_h, x_w = ((torch.arange(side, device=device).float() / side * side).long() for side in grid)
    return (y_h[:, None] * grid[1] + x_w).flatten()


def track(
    features_Tnc: Tensor,
    start_P: Tensor | None = None,
    *,
    skip_first_hop: bool = False,
    keys_Tnc: Tensor | None = None,
    head_channels: int | None = None,
) -> Tensor:
    """Follow tokens of the first frame through the clip by nearest feature, or by attention.

    Hop t -> t+1 goes to the token s that maximises ``a f_t[p] . f_{t+1}[s] + (1 - a) f_t[p] . f_0[s]`` with
    ``a = t' / (t' + 1)``; equal similarities go to the first token. With keys, :func:`attention` of the query f_t[p]
    to frames t+1 and 0 takes the place of the products.

    Args:
        features_Tnc: unit-length features, or queries.
        start_P: int64 tokens of the first frame to follow; every token, in order, if ``None``.
        skip_first_hop: t' = t in place of t + 1.
        keys_Tnc: keys of the same channels.
        head_channels: of a head of queries and keys; ``None`` takes them for one.

    Returns:
        int64 token numbers [T, P]; row 0 is ``start_P``.
    """
    num_frames, num_tokens, _ = features_Tnc.shape
    position_P = torch.arange(num_tokens, device=features_Tnc.device) if start_P is None else start_P
    trajectory = [position_P]
    for t in range(num_frames - 1):
        weight = t + (0 if skip_first_hop else 1)
        share = weight / (weight + 1)
        here_Pc = features_Tnc[t][position_P]
        if keys_Tnc is None:
            target_nc = share * features_Tnc[t + 1] + (1 - share) * features_Tnc[0]
            similarity_Pn = here_Pc @ target_nc.T
        else:
            next_Pn, first_Pn = (attention(here_Pc, keys_Tnc[s], head_channels) for s in (t + 1, 0))
            similarity_Pn = share * next_Pn + (1 - share) * first_Pn
        position_P = similarity_Pn.argmax(1)
        trajectory.append(position_P)
    return torch.stack(trajectory)


def attention(queries_Pc: Tensor, keys_nc: Tensor, head_channels: int | None = None) -> Tensor:
    """Attention of queries to the tokens of a frame [P, n], averaged over heads: the softmax of scaled products.

    >>> attention(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]]), 1)
    tensor([[0.2512, 0.7488]])
    """
    num_channels = head_channels or keys_nc.shape[1]
    heads = list(zip(queries_Pc.split(num_channels, 1), keys_nc.split(num_channels, 1), strict=True))
    total_Pn = queries_Pc.new_zeros(len(queries_Pc), len(keys_nc))
    for queries, keys in heads:  # one after another, as a map of each takes memory
        total_Pn += (queries @ keys.T / math.sqrt(num_channels)).softmax(1)
    return total_Pn / len(heads)


def vote_along(labels_Tn: Tensor, trajectories_TP: Tensor, survives_P: Tensor | None = None) -> Tensor:
    """Write the most common label along each trajectory to all its tokens.

    Ties go to the label met first in time; where trajectories share a token, the later one in order wins; tokens
    without a trajectory keep their label.

    Args:
        labels_Tn: int64 labels.
        trajectories_TP: int64 token numbers.
        survives_P: which trajectories write; all if ``None``.

    Example:
        >>> labels = torch.tensor([[1, 2], [1, 2], [2, 2]])
        >>> vote_along(labels, torch.tensor([[0], [0], [0]])).tolist()
        [[1, 2], [1, 2], [1, 2]]
    """
    num_frames, num_trajectories = trajectories_TP.shape
    if not num_trajectories:
        return labels_Tn.clone()
    along_TP = labels_Tn.gather(1, trajectories_TP)
    counts_TP = (along_TP[:, None] == along_TP[None]).sum(0)
    earliness_T1 = torch.arange(num_frames, 0, -1, device=labels_Tn.device)[:, None]
    winner_1P = (counts_TP * (num_frames + 1) + earliness_T1).argmax(0, keepdim=True)
    label_P = along_TP.gather(0, winner_1P)[0]

    number_P = torch.arange(num_trajectories, device=labels_Tn.device)
    if survives_P is not None:
        number_P = torch.where(survives_P, number_P, -1)
    number_TP = number_P.expand_as(trajectories_TP)
    owner_Tn = torch.full_like(labels_Tn, -1).scatter_reduce(1, trajectories_TP, number_TP, "amax")
    return torch.where(owner_Tn >= 0, label_P[owner_Tn.clamp(min=0)], labels_Tn)
