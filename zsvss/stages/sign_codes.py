"""An approximation of masked modulation that modulates all labels at once, each by its own pattern of signs.

Shape legend: T frames of a clip, R rows (one code position in one frame), S = 2 signs, H W pixels, h w token cells,
P labels present in the clip, C code positions.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.backbones.batching import with_smaller_batches
from zsvss.stages.difference import blur
from zsvss.stages.modulation import LabelledClip, MaskedModulation, decoded_signs
from zsvss.stages.padding import mirror
from zsvss.stages.precision import full_precision
from zsvss.stages.trace import Trace


class SignCodedModulation(MaskedModulation):
    """Masked modulation in ``2 (1 + ceil(log2 P))`` passes a frame in place of ``2 P``.

    In the first pass every label's tokens get ``+strength``, in the others ``+`` or ``-strength`` by the bits of the
    label's number; each pass also runs with all signs swapped. How a pixel's difference in a pass points along or
    against its difference in the first one spells the code of the label that controls it; the label of the frame whose
    code agrees best takes the pixel. Nothing is blended, because no token is outside the mask.

    Args:
        strength: what is added and subtracted.
        guided, num_steps: as in :class:`MaskedModulation`.
    """

    def __init__(self, strength: float = 50.0, guided: bool = True, num_steps: int | None = None) -> None:
        super().__init__(strength, blend=False, guided=guided, num_steps=num_steps)

    @override
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        labels_Thw, present_P = clip.labels_Thw, clip.labels_Thw.unique()
        num_frames = len(labels_Thw)
        if num_frames == 0:
            return labels_Thw.new_empty(0, *clip.frames_THW3.shape[1:3])
        codes_PC = sign_codes(len(present_P)).to(labels_Thw.device)
        signs_CThw = codes_PC[torch.searchsorted(present_P, labels_Thw)].movedim(-1, 0)
        frames_R = torch.arange(num_frames, device=labels_Thw.device).repeat(codes_PC.shape[1])
        masks_Rhw = signs_CThw.flatten(0, 1)
        chunks: list[Tensor] = []
        done = 0
        while done < len(frames_R):
            compute = partial(self._differences, backbone, clip, frames_R[done:], masks_Rhw[done:])
            chunks.append(with_smaller_batches(backbone, compute))
            done += len(chunks[-1])
        differences_CT3HW = torch.cat(chunks).unflatten(0, (-1, num_frames))
        with full_precision(labels_Thw.device):
            return decoded_labels(differences_CT3HW, codes_PC, present_P, labels_Thw)

    def _differences(self, backbone: Backbone, clip: LabelledClip, frames_R: Tensor, masks_Rhw: Tensor) -> Tensor:
        """Differences [R, 3, H, W] between the images of both signs, for as many of the first rows as a pass holds."""
        num_rows = self.rows_per_pass(backbone, len(clip.labels_Thw))
        frames_R, masks_Rhw = frames_R[:num_rows], mirror(masks_Rhw[:num_rows], clip.margins)
        latents_SRcuv, _ = self.modulated_latents(backbone, clip.recording, frames_R, masks_Rhw)
        plus_R3HW, minus_R3HW = decoded_signs(backbone, clip, latents_SRcuv).unbind()
        return plus_R3HW - minus_R3HW


def sign_codes(num_labels: int) -> Tensor:
    """Signs of each label, float32 [P, C]: + in the first position, then the bits of its number.

    Example:
        >>> sign_codes(3).int().tolist()
        [[1, -1, -1], [1, 1, -1], [1, -1, 1]]
    """
    bits = torch.arange(max(1, (num_labels - 1).bit_length()))
    signs = (torch.arange(num_labels)[:, None] >> bits & 1) * 2 - 1
    return torch.cat([torch.ones(num_labels, 1), signs.float()], 1)


def decoded_labels(differences_CT3HW: Tensor, codes_PC: Tensor, present_P: Tensor, labels_Thw: Tensor) -> Tensor:
    """For each pixel the frame's label whose code agrees best with the differences; ties go to the first label.

    Args:
        differences_CT3HW: between the images of both signs, by code position; the first is the reference.
        codes_PC: the labels' signs.
        present_P: int64 sorted labels of the clip.
        labels_Thw: int64 token labels: labels that a frame's tokens do not bear are not given to its pixels.

    Returns:
        int64 labels [T, H, W].
    """
    labels_THW = []
    for t, differences_C3HW in enumerate(differences_CT3HW.unbind(1)):
        agreement_CHW = blur((differences_C3HW * differences_C3HW[0]).sum(1))
        of_frame_P = torch.isin(present_P, labels_Thw[t])
        scores_PHW = torch.einsum("pc,chw->phw", codes_PC[of_frame_P], agreement_CHW)
        labels_THW.append(present_P[of_frame_P][scores_PHW.argmax(0)])
    return torch.stack(labels_THW)
