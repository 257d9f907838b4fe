"""Stage 2, correspondence-based refinement: tokens that track each other through the clip agree on a label.

Shape legend: T frames of a clip, n tokens of a frame, c channels, P trajectories.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.stages.features import AttentionFeatures, Features


class Refinement(ABC):
    """Refines the coarse labels of a clip by comparing its frames; pure."""

    features: Features

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


class CorrespondenceRefinement(Refinement):
    """Majority label along feature trajectories.

    Every token of the first frame is followed by nearest feature from frame to frame; a trajectory that ever moves
    more than ``max_displacement`` cells in a hop is dropped, the others write their most common coarse label to all
    their tokens.

    Args:
        max_displacement: cells that a hop may move in y and in x.
        features: features that are compared; block 7 alone, by cosine similarity, in the paper.
        skip_first_hop: [quirk] the released code weights the second frame by 0 at the first hop, so that every
            trajectory stays in place there.
        one_sided_displacement: [quirk] the released code forgets the absolute value and drops only trajectories that
            move too far down or right.
        truncate_start_points: [quirk] the released code passes the start points through float32 fractions of the grid
            and truncates them, which loses some cells at some sizes (column 31 of 56) and starts twice in others.

    Source: the paper's Sec. 3.3, "Correspondence-based refinement".

    Differs from the paper: hop t -> t+1 weights the next frame by t' / (t'+1) with t' = t+1 where the published code
    uses t' = t, unless ``skip_first_hop`` is set.
    """

    def __init__(
        self,
        max_displacement: int = 1,
        features: Features | None = None,
        skip_first_hop: bool = False,
        one_sided_displacement: bool = False,
        truncate_start_points: bool = False,
    ) -> None:
        if max_displacement < 0:
            raise ValueError(f"refinement.max_displacement = {max_displacement} must be 0 or more cells.")
        self.max_displacement = max_displacement
        self.features: Features = features or AttentionFeatures(blocks=(7,), normalization="euclidean")
        self.skip_first_hop = skip_first_hop
        self.one_sided_displacement = one_sided_displacement
        self.truncate_start_points = truncate_start_points

    @override
    def __call__(self, features_Tnc: Tensor, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        start_P = truncated_start_points(grid, labels_Tn.device) if self.truncate_start_points else None
        trajectories_TP = track(features_Tnc, start_P, skip_first_hop=self.skip_first_hop)
        survives_P = self._survives(trajectories_TP, grid[1])
        return vote_along(labels_Tn, trajectories_TP, survives_P), trajectories_TP

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


def track(features_Tnc: Tensor, start_P: Tensor | None = None, *, skip_first_hop: bool = False) -> Tensor:
    """Follow tokens of the first frame through the clip by nearest feature.

    Hop t -> t+1 goes to the token s that maximises ``a f_t[p] . f_{t+1}[s] + (1 - a) f_t[p] . f_0[s]`` with
    ``a = t' / (t' + 1)``; equal similarities go to the first token.

    Args:
        features_Tnc: unit-length features.
        start_P: int64 tokens of the first frame to follow; every token, in order, if ``None``.
        skip_first_hop: t' = t in place of t + 1.

    Returns:
        int64 token numbers [T, P]; row 0 is ``start_P``.
    """
    num_frames, num_tokens, _ = features_Tnc.shape
    position_P = torch.arange(num_tokens, device=features_Tnc.device) if start_P is None else start_P
    trajectory = [position_P]
    for t in range(num_frames - 1):
        weight = t + (0 if skip_first_hop else 1)
        share = weight / (weight + 1)
        target_nc = share * features_Tnc[t + 1] + (1 - share) * features_Tnc[0]
        position_P = (features_Tnc[t][position_P] @ target_nc.T).argmax(1)
        trajectory.append(position_P)
    return torch.stack(trajectory)


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


def check_grids(correspondence: tuple[int, int], features: tuple[int, int]) -> None:
    """Refuse a refinement that compares frames on another grid than the one that bears labels."""
    if correspondence != features:
        raise ValueError(
            f"refinement.features lie on a grid of {correspondence[0]}x{correspondence[1]} tokens, features on one of "
            f"{features[0]}x{features[1]}: give both blocks of one resolution (3..5, 6..8 or 9..11)."
        )
