"""Labels that are given for some frames, propagated to the others: annotate one frame, get the video.

Shape legend: T frames of a clip, F remembered frames, H W pixels, h w token grid, n tokens of a frame, c channels,
L labels, S = s s sub-cells of a token's cell, u v = s h, s w sub-cells of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.clustering import nearest_neighbors
from zsvss.stages.context import Memory, SceneContext, check_at_least_one, needed
from zsvss.stages.features import FeaturePass
from zsvss.stages.local_neighbors import local_neighbors


class Bank(NamedTuple):
    """Labelled frames that the next frame is compared with.

    Attributes:
        features_Fnc: their features.
        shares_FnLS: each label's share of each sub-cell; they add up to 1.
        labels_L: int64 sorted labels.
        num_given: how many frames, the first ones, were given; they stay.
        scale: mean squared distance of the tokens of the first given frame from their mean.
    """

    features_Fnc: Tensor
    shares_FnLS: Tensor
    labels_L: Tensor
    num_given: int
    scale: float


class GivenLabels(SceneContext):
    """Propagates labels that are given for the first frame, or for any frames, in place of clustering.

    The labels of each frame are a weighted vote of its tokens' nearest neighbours in labelled frames: those that were
    given and the last ones that were propagated. Nothing is named by majority: a token carries each label's share of
    its cell, in finer sub-cells, so that objects smaller than a token survive, and the last stage can interpolate the
    shares. Given labels are the truth of their frame. Frames before the first given one have no label (-1).

    Args:
        num_neighbors: neighbours that vote.
        reach: how far from a token's place in y and x its neighbours may lie, as a share of the longer side of the
            frame.
        num_frames: propagated frames that are remembered.
        num_given: given frames that are remembered: the first one and the latest.
        temperature: a neighbour's vote falls by e for each such step of its squared distance beyond that of the
            nearest one, in units of the tokens' variance in the first given frame.
        subcells: parts into which a token's cell is divided in y and in x.

    Source: label propagation as Space-Time Correspondence (arXiv 2006.14613), DINO (arXiv 2104.14294) and DIFT (arXiv
    2306.03881) evaluate features on DAVIS. `Differs from them:` shares of sub-cells in place of one label a token,
    Euclidean distances, and a temperature that follows the features' scale.
    """

    takes_given_labels = True

    def __init__(
        self,
        num_neighbors: int = 10,
        reach: float = 0.1,
        num_frames: int = 14,
        num_given: int = 4,
        temperature: float = 0.05,
        subcells: int = 2,
    ) -> None:
        check_at_least_one(
            "context", num_neighbors=num_neighbors, num_frames=num_frames, num_given=num_given, subcells=subcells
        )
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
        """Label the first clip of a video by ``names_n``, if there are any, as labels given at the grid's resolution."""
        given_Thw = None
        if names_n is not None:
            given_Thw = names_n.new_full((len(features_Tnc), *needed(grid)), -1)
            given_Thw[0] = names_n.view(needed(grid))
        return self.propagate(features_Tnc, needed(grid), given_Thw)

    @override
    def resume(self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        return self.propagate(features_Tnc, needed(memory.grid), None, memory)

    @override
    def propagate(
        self, features_Tnc: Tensor, grid: tuple[int, int], given_THW: Tensor | None, memory: Memory | None = None
    ) -> tuple[Tensor, Memory]:
        bank = None if memory is None else memory.bank
        labels_Tn = torch.full(features_Tnc.shape[:2], -1, dtype=torch.int64, device=features_Tnc.device)
        shares: list[Tensor | None] = []
        for t, features_nc in enumerate(features_Tnc):
            given_HW = None if given_THW is None or bool((given_THW[t] < 0).all()) else given_THW[t]
            if given_HW is not None:
                bank = self._with_given(bank, features_nc, given_HW.to(labels_Tn.device), grid)
            elif bank is not None:
                bank = self._with_propagated(bank, features_nc, self._votes(bank, features_nc, grid))
            if bank is None:
                shares.append(None)
                continue
            shares_nLS = bank.shares_FnLS[bank.num_given - 1 if given_HW is not None else -1]
            labels_Tn[t] = bank.labels_L[shares_nLS.sum(2).argmax(1)]
            shares.append(shares_nLS)
        known_L = labels_Tn.unique() if memory is None else torch.cat([memory.label_set_L, labels_Tn.flatten()])
        if bank is None:
            return labels_Tn, Memory(features_Tnc[0, :0], labels_Tn[0, :0], known_L.unique(), grid=grid)
        votes = ClipShares(_stacked(shares, bank.shares_FnLS), bank.labels_L, grid)
        label_set_L = torch.cat([known_L, bank.labels_L]).unique()
        return labels_Tn, Memory(features_Tnc[0, :0], labels_Tn[0, :0], label_set_L, None, grid, bank, votes)
