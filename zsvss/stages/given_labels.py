"""Labels that are given for some frames, propagated to the others: annotate one frame, get the video.

Shape legend: T frames of a clip, F remembered frames, H W pixels, h w token grid, n tokens of a frame, c channels,
L labels, S sub-cells of a token's cell, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.stages.context import Memory, SceneContext, check_at_least_one, needed
from zsvss.stages.features import FeaturePass
from zsvss.stages.local_neighbors import local_neighbors
from zsvss.stages.neighbors import nearest_neighbors
from zsvss.stages.soft_labels import Bank, LabelShares, Propagated, area_shares, to_maps, with_labels


class GivenLabels(SceneContext):
    """Propagates labels that are given for the first frame, or for any frames, in place of clustering.

    The labels of each frame are a weighted vote of its tokens' nearest neighbours in labelled frames: those that were
    given and the last ones that were propagated. Nothing is named by majority: a token carries each label's share of
    its cell, in finer sub-cells, so that objects smaller than a token survive, and the last stage can interpolate the
    shares. Given labels are the truth of their frame. Frames before the first given one have no label (-1).

    Refinement, where there is one, changes the labels of a clip but not what is propagated.

    Args:
        num_neighbors: neighbours that vote.
        reach: how far from a token's place in y and x its neighbours may lie, as a share of the frame's longer side.
        num_frames: propagated frames that are remembered.
        num_given: given frames that are remembered: the first one and the latest.
        temperature: a neighbour's vote falls by e for each such step of its squared distance beyond that of the
            nearest one, in units of the tokens' variance in the first given frame.
        subcells: parts into which a token's cell is divided in y and in x.

    Source: label propagation as space-time correspondence (arXiv 2006.14613), DINO (arXiv 2104.14294) and DIFT (arXiv
    2306.03881) evaluate features on DAVIS. `Differs from them:` shares of sub-cells in place of one label a token,
    Euclidean distances, and a temperature that follows the features' scale.
    """

    takes_given_labels = True
    reads_latents = False

    def __init__(
        self,
        num_neighbors: int = 10,
        reach: float = 0.1,
        num_frames: int = 20,
        num_given: int = 4,
        temperature: float = 0.05,
        subcells: int = 2,
    ) -> None:
        check_at_least_one("context", num_neighbors=num_neighbors, num_given=num_given, subcells=subcells)
        if num_frames < 0:
            raise ValueError(f"context.num_frames = {num_frames} must be 0 or more.")
        if reach <= 0 or temperature <= 0:
            raise ValueError(f"context.reach = {reach} and temperature = {temperature} must be above 0.")
        self.num_neighbors = num_neighbors
        self.reach = reach
        self.num_frames = num_frames
        self.num_given = num_given
        self.temperature = temperature
        self.subcells = subcells

    @override
    def check(self, num_frames: int, num_tokens: int) -> None:
        """Nothing is clustered: any number of tokens will do."""

    @override
    def start(
        self,
        features_Tnc: Tensor,
        generator: torch.Generator,
        names_n: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        seen: FeaturePass | None = None,
    ) -> tuple[Tensor, Memory]:
        given_Thw = None
        if names_n is not None:  # labels given at the grid's own resolution
            given_Thw = names_n.new_full((len(features_Tnc), *needed(grid)), -1)
            given_Thw[0] = names_n.view(needed(grid))
        return self.propagate(features_Tnc, needed(grid), given_Thw)

    @override
    def resume(
        self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator, seen: FeaturePass | None = None
    ) -> tuple[Tensor, Memory]:
        assert memory.propagated is not None
        return self.propagate(features_Tnc, memory.propagated.grid, None, memory)

    @override
    def propagate(
        self, features_Tnc: Tensor, grid: tuple[int, int], given_THW: Tensor | None, memory: Memory | None = None
    ) -> tuple[Tensor, Memory]:
        bank = None if memory is None or memory.propagated is None else memory.propagated.bank
        frames: list[Bank | None] = []  # of each frame what it was labelled with, itself included
        given_THW = None if given_THW is None else given_THW.to(features_Tnc.device)
        is_given_T = [False] * len(features_Tnc)
        if given_THW is not None:
            is_given_T = (given_THW >= 0).flatten(1).any(1).tolist()
        for t, features_nc in enumerate(features_Tnc):
            if given_THW is not None and is_given_T[t]:
                bank, shares_nLS = self._given(bank, features_nc, given_THW[t], grid)
            elif bank is not None:
                shares_nLS = self._votes(bank, features_nc, grid)
                bank = self._remember(bank, features_nc, shares_nLS)
            else:
                frames.append(None)
                continue
            frames.append(bank._replace(features_Fnc=features_nc[None], shares_FnLS=shares_nLS[None]))
        labels_Tn = torch.stack([_labels(frame, features_Tnc[0]) for frame in frames])
        known = [labels_Tn.flatten(), *([memory.label_set_L] if memory else []), *([bank.labels_L] if bank else [])]
        propagated = Propagated(grid, bank, None if bank is None else _clip_shares(frames, bank, grid))
        no_points, no_labels = features_Tnc[0, :0].clone(), labels_Tn[0, :0].clone()  # views would keep the whole clip
        return labels_Tn, Memory(no_points, no_labels, torch.cat(known).unique(), None, propagated)

    def _votes(self, bank: Bank, features_nc: Tensor, grid: tuple[int, int]) -> Tensor:
        """Shares [n, L, S] of a frame by the vote of its neighbours in the bank."""
        radius = max(1, round(self.reach * max(grid)))
        squared_nk, places_nk = local_neighbors(features_nc, bank.features_Fnc, grid, self.num_neighbors, radius)
        return self._weighted(squared_nk, bank.shares_FnLS.flatten(0, 1), places_nk, bank.scale)

    def _weighted(self, squared_nk: Tensor, shares_NLS: Tensor, places_nk: Tensor, scale: float) -> Tensor:
        weights_nk = torch.softmax(-squared_nk / (self.temperature * scale), 1)
        voted_nLS = shares_NLS.new_zeros(len(weights_nk), *shares_NLS.shape[1:])
        for weights_n, places_n in zip(weights_nk.T, places_nk.T, strict=True):  # one neighbour at a time: less memory
            voted_nLS += weights_n[:, None, None] * shares_NLS[places_n]
        return voted_nLS

    def _given(
        self, bank: Bank | None, features_nc: Tensor, given_HW: Tensor, grid: tuple[int, int]
    ) -> tuple[Bank, Tensor]:
        """Take a given frame into the bank; what it leaves open is voted on. Also returns its shares [n, L, S]."""
        given_L = given_HW[given_HW >= 0].unique()
        labels_L = given_L if bank is None else torch.cat([given_L, bank.labels_L]).unique()
        shares_nLS = area_shares(given_HW, labels_L, grid, self.subcells)
        scale = float((features_nc - features_nc.mean(0)).square().sum(1).mean()) or 1.0
        if bank is not None:
            wider = with_labels(bank.shares_FnLS, bank.labels_L, labels_L)
            bank, scale = bank._replace(shares_FnLS=wider, labels_L=labels_L), bank.scale
        if bool((given_HW < 0).any()):
            if bank is not None:
                voted_nLS = self._votes(bank, features_nc, grid)
            else:
                voted_nLS = self._votes_within(features_nc, shares_nLS, scale)
            shares_nLS = shares_nLS + (1 - shares_nLS.sum(1, keepdim=True)) * voted_nLS
        if bank is None:
            return Bank(features_nc[None], shares_nLS[None], labels_L, 1, scale), shares_nLS
        is_full = bank.num_given == self.num_given
        oldest = min(1, bank.num_given - 1)  # but the first, unless only one is kept
        bank = _with_frame(bank, features_nc, shares_nLS, bank.num_given, oldest if is_full else None)
        return bank._replace(num_given=bank.num_given + (not is_full)), shares_nLS

    def _votes_within(self, features_nc: Tensor, shares_nLS: Tensor, scale: float) -> Tensor:
        """Votes of a frame's own labelled tokens, wherever they are, on its open ones; shares [n, L, S]."""
        mass_nL = shares_nLS.sum(2)
        labelled = (mass_nL.sum(1) > 0).nonzero().flatten()
        shares_NL = mass_nL[labelled] / mass_nL[labelled].sum(1, keepdim=True)
        places_nk = nearest_neighbors(features_nc, features_nc[labelled], self.num_neighbors)
        squared_nk = (features_nc[:, None] - features_nc[labelled][places_nk]).square().sum(2)
        voted_nL1 = self._weighted(squared_nk, shares_NL[:, :, None], places_nk, scale)
        return voted_nL1.expand(shares_nLS.shape)

    def _remember(self, bank: Bank, features_nc: Tensor, shares_nLS: Tensor) -> Bank:
        """Take a propagated frame into the bank, in place of the oldest one if it is full."""
        if self.num_frames == 0:
            return bank
        is_full = len(bank.features_Fnc) - bank.num_given == self.num_frames
        return _with_frame(bank, features_nc, shares_nLS, len(bank.features_Fnc), bank.num_given if is_full else None)


def _with_frame(bank: Bank, features_nc: Tensor, shares_nLS: Tensor, place: int, dropped: int | None) -> Bank:
    """Put a frame at a place of the bank and take another one, which lies before it, out."""
    cut = place if dropped is None else dropped
    kept = (slice(0, cut), slice(cut + 1, place))  # slices: of numbers in a list a device would have to be told

    def changed(frames_F: Tensor, new: Tensor) -> Tensor:
        return torch.cat([*(frames_F[part] for part in kept), new[None], frames_F[place:]])

    return bank._replace(
        features_Fnc=changed(bank.features_Fnc, features_nc), shares_FnLS=changed(bank.shares_FnLS, shares_nLS)
    )


def _labels(frame: Bank | None, features_nc: Tensor) -> Tensor:
    """Label [n] with the largest share; ties go to the smallest label; -1 without a bank."""
    if frame is None:
        return torch.full(features_nc.shape[:1], -1, dtype=torch.int64, device=features_nc.device)
    return frame.labels_L[frame.shares_FnLS[0].sum(2).argmax(1)]


def _clip_shares(frames: list[Bank | None], bank: Bank, grid: tuple[int, int]) -> LabelShares:
    """Shares of all frames of a clip over the labels known at its end."""
    none_1nLS = torch.zeros_like(bank.shares_FnLS[:1])
    shares = [
        none_1nLS if frame is None else with_labels(frame.shares_FnLS, frame.labels_L, bank.labels_L)
        for frame in frames
    ]
    return LabelShares(to_maps(torch.cat(shares), grid), bank.labels_L)
