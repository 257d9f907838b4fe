"""An approximation of masked modulation that decodes nothing: differences between latents.

Shape legend: B rows (one label in one frame), S = 2 signs, H W pixels, u v latent cells, c channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.stages.modulation import LabelledClip, MaskedModulation
from zsvss.stages.padding import crop
from zsvss.stages.precision import full_precision
from zsvss.stages.upsampling import GuidedUpsampling


class LatentDifferences(MaskedModulation):
    """Masked modulation whose difference maps are taken between latents and enlarged by a guided filter.

    The two decodes of every label are most of what masked modulation costs behind a shortened schedule
    (``num_steps: 1``). A latent cell covers several pixels, so borders come from the frame's colours.

    Args:
        strength, mask_prior, blend, guided, num_steps: as in :class:`MaskedModulation`.
        radius, eps: of the guided filter, as in :class:`GuidedUpsampling`.
    """

    def __init__(
        self,
        strength: float = 50.0,
        mask_prior: float | None = None,
        blend: bool = True,
        guided: bool = True,
        num_steps: int | None = None,
        radius: int = 12,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(strength, mask_prior=mask_prior, blend=blend, guided=guided, num_steps=num_steps)
        self.filter = GuidedUpsampling(radius, eps)

    @override
    def difference_maps(
        self, backbone: Backbone, clip: LabelledClip, frames_B: Tensor, latents_SBcuv: Tensor
    ) -> Tensor:
        plus_Bcuv, minus_Bcuv = latents_SBcuv
        with full_precision(latents_SBcuv.device):
            distance_Buv = torch.linalg.vector_norm(plus_Bcuv - minus_Bcuv, dim=1)
            cell = distance_Buv.shape[-2] // (clip.labels_Thw.shape[1] + 2 * clip.margins[0])
            inside_Buv = crop(distance_Buv, (clip.margins[0] * cell, clip.margins[1] * cell))
            maps_BHW = inside_Buv.new_empty(len(frames_B), *clip.frames_THW3.shape[1:3])
            for frame in frames_B.unique():
                rows = (frames_B == frame).nonzero().flatten()
                score = self.filter.upsampler(inside_Buv[rows], clip.frames_THW3[frame].to(inside_Buv.device))
                for index, row in enumerate(rows):
                    maps_BHW[row] = score(index).clamp(min=0)
        return maps_BHW
