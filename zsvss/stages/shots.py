"""Shots of one video: at a cut the scene context opens anew, and what was seen in earlier shots keeps its labels.

Shape legend: T frames of a clip, n tokens of a frame, c channels, K labels of the new shot, L labels of earlier ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zsvss.stages.context import Memory, SceneContext, check_at_least_one
from zsvss.stages.features import FeaturePass
from zsvss.stages.novelty import nearest_distances


class SeenShot(NamedTuple):
    """What is kept of a shot, so that it can go on when its view comes back.

    Attributes:
        number: of the shot.
        memory: of the scene context model after the shot's last clip; of its last frame only when a later shot began.
        tokens_nc: features of the shot's last frame.
        reach: how far the tokens of this shot move in a clip, see `within_shot`; 0 while that is not known.
    """

    number: int
    memory: Memory
    tokens_nc: Tensor
    reach: float


class SeenLabels(NamedTuple):
    """All labels of a video so far, those that were seen last at the end.

    Attributes:
        labels_L: int64.
        prototypes_Lc: mean of each one's tokens in the last clip that it was in.
        spread_L: root of the mean squared distance of these tokens from it.
        drift_L: distance of its means in the first and the last frame of that clip, divided by the spread; NaN where
            one of the frames lacks it.
    """

    labels_L: Tensor
    prototypes_Lc: Tensor
    spread_L: Tensor
    drift_L: Tensor


class ShotBank(NamedTuple):
    """What a video's shots have taught; its size does not grow with the video.

    Attributes:
        shots: the latest last.
        seen: labels of all shots.
        first_free: smallest label above all that were ever given.
    """

    shots: tuple[SeenShot, ...] = ()
    seen: SeenLabels | None = None
    first_free: int = 0

    def ends_before(self, shot: int | None) -> bool:
        """Whether a clip of this shot is no longer of the last one; ``None`` follows no shots."""
        return shot is not None and bool(self.shots) and self.shots[-1].number != shot


class ShotMatching:
    """Finds in a new shot what was there before.

    A new shot whose tokens are those of an earlier one, up to how far tokens moved within that shot, goes on with that
    shot's memory: the view has come back, or the cut was none. Any other shot is clustered anew. Its clusters take the
    labels of earlier ones whose prototypes are close, one to one (Hungarian algorithm), or get new labels. How close is
    learned from the distances between the first and the last frame of the clips seen so far.

    Args:
        same_view: share of a frame's tokens, 0..1, that an earlier shot must explain to go on.
        margin: factor on the distances that prototypes move within a shot; more finds more labels again.
        num_shots: earlier shots that may come back.
        num_labels: labels that may come back.
    """

    def __init__(self, same_view: float = 0.8, margin: float = 1.5, num_shots: int = 8, num_labels: int = 256) -> None:
        check_at_least_one("shots", num_shots=num_shots, num_labels=num_labels)
        if not 0 < same_view <= 1:
            raise ValueError(f"shots.same_view = {same_view} must be above 0 and at most 1.")
        self.same_view = same_view
        self.margin = margin
        self.num_shots = num_shots
        self.num_labels = num_labels

    def start(
        self,
        context: SceneContext,
        bank: ShotBank,
        features_Tnc: Tensor,
        generator: torch.Generator,
        names_n: Tensor | None,
        grid: tuple[int, int],
        seen: FeaturePass,
    ) -> tuple[Tensor, Memory]:
        """Label the first clip of a new view: `SceneContext.start`, with the labels of what was there before."""
        labels_Tn, memory = context.start(features_Tnc, generator, names_n, grid, seen)
        if bank.seen is None or context.takes_given_labels:
            return labels_Tn, memory
        labels_Tn, memory = self.relabel(bank, features_Tnc, labels_Tn, memory)
        return labels_Tn, context.relabelled(memory, max(bank.first_free, int(memory.label_set_L.max()) + 1))

    def resume(
        self,
        context: SceneContext,
        bank: ShotBank,
        features_Tnc: Tensor,
        memory: Memory,
        generator: torch.Generator,
        seen: FeaturePass,
    ) -> tuple[Tensor, Memory]:
        """Label a later clip of a shot: `SceneContext.resume`, with labels that no other shot has."""
        labels_Tn, resumed = context.resume(features_Tnc, memory, generator, seen)
        if bank.seen is None or context.takes_given_labels:
            return labels_Tn, resumed
        return self.set_apart(bank, labels_Tn, resumed, memory)

    def remember(
        self,
        context: SceneContext,
        bank: ShotBank,
        number: int,
        features_Tnc: Tensor,
        labels_Tn: Tensor,
        memory: Memory,
    ) -> ShotBank:
        """Take a clip into the bank.

        Args:
            context: the scene context model.
            bank: of the video so far.
            number: of the clip's shot.
            features_Tnc: of the clip.
            labels_Tn: int64 labels, negative where there is none.
            memory: of the scene context model after the clip.
        """
        before = bank.shots[-1] if bank.shots and bank.shots[-1].number == number else None
        reach = max(within_shot(features_Tnc), before.reach if before else 0.0)
        others = bank.shots[:-1]
        if bank.ends_before(number):
            others += (_ended(context, bank.shots[-1]),)
        tokens_nc = features_Tnc[-1].clone()  # a view would keep the whole clip
        shots = (*others, SeenShot(number, memory, tokens_nc, reach))[-self.num_shots :]
        first_free = max(bank.first_free, int(memory.label_set_L.max()) + 1)
        return ShotBank(shots, self._with_labels(bank.seen, features_Tnc, labels_Tn), first_free)

    def find_again(self, bank: ShotBank, features_Tnc: Tensor) -> tuple[Memory | None, ShotBank]:
        """Memory of the earlier shot that a new one goes on with, judged by the new shot's first clip.

        Of several shots that explain it, the one that explains most; of equals the latest.

        Returns:
            the memory, ``None`` where no shot explains it; and the bank without that shot, whose place the new one
            takes.
        """
        shares = [self._explained(shot, features_Tnc) for shot in bank.shots]
        best = max(range(len(shares)), key=lambda index: (shares[index], index), default=None)
        if best is None or shares[best] < self.same_view:
            return None, bank
        return bank.shots[best].memory, bank._replace(shots=bank.shots[:best] + bank.shots[best + 1 :])

    def relabel(self, bank: ShotBank, features_Tnc: Tensor, labels_Tn: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Give the labels of a shot that was clustered anew the names of earlier labels, or new ones.

        Returns:
            int64 labels [T, n] and the memory with these labels.
        """
        if bank.seen is None:
            return labels_Tn, memory
        new = described(features_Tnc, labels_Tn)
        names = dict(zip(new.labels_L.tolist(), self._matches(bank.seen, new), strict=True))
        first_free = bank.first_free
        mapping: dict[int, int] = {}
        for label in memory.label_set_L.tolist():
            name = names.get(label)
            if name is None:
                name, first_free = first_free, first_free + 1
            mapping[label] = name
        return renamed(labels_Tn, memory, mapping)

    def set_apart(self, bank: ShotBank, labels_Tn: Tensor, memory: Memory, before: Memory) -> tuple[Tensor, Memory]:
        """Renumber labels that opened within a shot and that another shot has already."""
        known = set(before.label_set_L.tolist())
        opened = [label for label in memory.label_set_L.tolist() if label not in known]
        if not opened or min(opened) >= bank.first_free:
            return labels_Tn, memory
        mapping = {label: label for label in known}
        return renamed(labels_Tn, memory, mapping | {label: bank.first_free + i for i, label in enumerate(opened)})

    def _explained(self, shot: SeenShot, features_Tnc: Tensor) -> float:
        """Share of the tokens of the first or the last frame that are as near as tokens of one shot are."""
        # A shot of one frame has taught nothing, and shots with fast motion would explain anything.
        scale = rms_spread(shot.tokens_nc)
        limit = min(max(shot.reach, _LEAST_REACH * scale), _LARGEST_REACH * scale)
        frames = features_Tnc[:: max(1, len(features_Tnc) - 1)]
        return max(float((nearest_distances(frame, shot.tokens_nc) <= limit).float().mean()) for frame in frames)

    def _matches(self, seen: SeenLabels, new: SeenLabels) -> list[int | None]:
        """Earlier label of each new one."""
        distances_KL = torch.cdist(new.prototypes_Lc.double(), seen.prototypes_Lc.double())
        spread_KL = ((new.spread_L[:, None].square() + seen.spread_L.square()) / 2).sqrt().clamp(min=1e-12)
        relative_KL = (distances_KL / spread_KL).cpu().numpy()
        drift = torch.cat([seen.drift_L, new.drift_L]).cpu().numpy()
        learned = float(np.nanquantile(drift, 0.9)) if not np.isnan(drift).all() else 0.0
        limit = min(max(self.margin * learned, _LEAST_DRIFT), 1.0)
        # Pairs beyond the limit cost more than all others together, so that they take no place from one below it.
        cost_KL = np.where(relative_KL <= limit, relative_KL, 1e6)
        matches: list[int | None] = [None] * len(new.labels_L)
        for row, column in zip(*linear_sum_assignment(cost_KL), strict=True):
            if relative_KL[row, column] <= limit:
                matches[row] = int(seen.labels_L[column])
        return matches

    def _with_labels(self, seen: SeenLabels | None, features_Tnc: Tensor, labels_Tn: Tensor) -> SeenLabels | None:
        """The labels seen so far and those of a clip, which replace what was known of them."""
        new = described(features_Tnc, labels_Tn)
        if not len(new.labels_L):
            return seen
        if seen is not None:
            is_old_L = ~torch.isin(seen.labels_L, new.labels_L)
            new = SeenLabels(*(torch.cat([old[is_old_L], now]) for old, now in zip(seen, new, strict=True)))
        return SeenLabels(*(field[-self.num_labels :] for field in new))


# Of the tokens' root mean squared distance from their mean: how far tokens of one view may lie apart at any rate.
_LEAST_REACH, _LARGEST_REACH = 0.3, 0.6
# Of a label's spread: how far its prototype may move at any rate.
_LEAST_DRIFT = 0.25


def _ended(context: SceneContext, shot: SeenShot) -> SeenShot:
    """A shot after which another one has begun, with less of a memory."""
    return shot._replace(memory=context.of_last_frame(shot.memory, shot.tokens_nc))


def within_shot(features_Tnc: Tensor) -> float:
    """How far the last frame's tokens are from the first frame's: that distance which 95 % of them stay below.

    Returns:
        Euclidean distance to the nearest token; 0 for a clip of one frame, which shows no motion.
    """
    if len(features_Tnc) == 1:
        return 0.0
    return float(nearest_distances(features_Tnc[-1], features_Tnc[0]).quantile(0.95))


def rms_spread(tokens_nc: Tensor) -> float:
    """Root of the mean squared distance of tokens from their mean."""
    return math.sqrt(float((tokens_nc - tokens_nc.mean(0)).square().sum(1).mean()))


def described(features_Tnc: Tensor, labels_Tn: Tensor) -> SeenLabels:
    """The labels of a clip by their tokens; negative ones are left out."""
    known_Tn = labels_Tn >= 0
    labels_L = labels_Tn[known_Tn].unique()
    member_LTn = ((labels_Tn == labels_L[:, None, None]) & known_Tn).to(features_Tnc.dtype)
    size_LT = member_LTn.sum(2)
    sums_LTc = torch.einsum("ltn,tnc->ltc", member_LTn, features_Tnc)
    prototypes_Lc = sums_LTc.sum(1) / size_LT.sum(1, keepdim=True)
    squares_Tn = features_Tnc.square().sum(2)
    mean_square_L = torch.einsum("ltn,tn->l", member_LTn, squares_Tn) / size_LT.sum(1)
    spread_L = (mean_square_L - prototypes_Lc.square().sum(1)).clamp(min=0).sqrt()
    ends_L2c = sums_LTc[:, [0, -1]] / size_LT[:, [0, -1], None]  # NaN where a frame lacks the label
    drift_L = (ends_L2c[:, 1] - ends_L2c[:, 0]).square().sum(1).sqrt() / spread_L.clamp(min=1e-12)
    if len(features_Tnc) == 1:
        drift_L = torch.full_like(drift_L, torch.nan)
    return SeenLabels(labels_L, prototypes_Lc, spread_L, drift_L)


def renamed(labels_Tn: Tensor, memory: Memory, mapping: dict[int, int]) -> tuple[Tensor, Memory]:
    """Labels and memory with other names for the labels of the memory's set; negative labels stay."""
    table = torch.arange(int(memory.label_set_L.max()) + 1, device=labels_Tn.device)
    for label, name in mapping.items():
        table[label] = name

    def to_names(labels: Tensor) -> Tensor:
        return torch.where(labels < 0, labels, table[labels.clamp(min=0)])

    named = memory._replace(labels_N=to_names(memory.labels_N), label_set_L=to_names(memory.label_set_L).sort().values)
    return to_names(labels_Tn), named
