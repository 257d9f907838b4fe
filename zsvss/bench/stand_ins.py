"""What the benchmark of the modes puts in place of weights and of footage: random networks, frames with fewer labels.

Shape legend: T frames of a clip, n tokens, c channels, P trajectories.
"""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.weights import WeightsSource
from zsvss.stages.refinement import CorrespondenceRefinement, Refinement


class RandomWeights(WeightsSource):
    """In place of a folder of weights: an architecture's configs, filled with random numbers.

    Args:
        folder: of the configs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._networks: dict[str, Any] = {}

    @override
    def check(self, *parts: str) -> None:
        """Nothing can be missing."""

    @override
    def tensors(self, filename: str) -> dict[str, Tensor]:
        """The embedding of the empty prompt."""
        width = self.config("unet")["cross_attention_dim"]
        return {"cond": torch.randn(1, 77, width, generator=torch.Generator().manual_seed(0))}

    @override
    def load(self, model_class: Any, part: str) -> Any:
        """The network of a part; all that are loaded share their numbers."""
        if part not in self._networks:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._networks[part] = model_class.from_config(self.config(part))
        network = self._networks[part]
        shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
        return copy.deepcopy(network, shared)


class SparseLabels(Refinement):
    """Takes labels away until a frame shows no more than a share of them; another share in every frame.

    Args:
        refinement: whose labels to thin out.
        num_labels: L.
        present: share of the labels that stays.
    """

    def __init__(self, refinement: CorrespondenceRefinement, num_labels: int, present: float) -> None:
        self.features = refinement.features
        self.refinement, self.num_labels = refinement, num_labels
        self.num_kept = max(1, int(present * num_labels + 1e-9))

    @override
    def __call__(self, features_Tnc: Tensor, labels_Tn: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        refined_Tn, trajectories_TP = self.refinement(features_Tnc, labels_Tn, grid)
        shift_T1 = torch.arange(len(refined_Tn), device=refined_Tn.device)[:, None]
        place_Tn = (refined_Tn - shift_T1) % self.num_labels
        return (place_Tn % self.num_kept + shift_T1) % self.num_labels, trajectories_TP
