"""Stage 3, masked modulation: what each label's tokens control in the image becomes its mask at full resolution.

Shape legend: T frames of a clip, B rows (one label in one frame), S = 2 signs, H W pixels, h w token cells,
u v latent cells, n tokens, c channels, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone, Recording
from zsvss.backbones.batching import in_batches
from zsvss.progress import part
from zsvss.stages.difference import Difference, difference_map, mask_prior, peak_normalized
from zsvss.stages.finiteness import FiniteCheck
from zsvss.stages.nearest_resizing import nearest
from zsvss.stages.padding import crop, mirror
from zsvss.stages.precision import full_precision
from zsvss.stages.soft_labels import LabelShares
from zsvss.stages.trace import Trace


class LabelledClip(NamedTuple):
    """What the last stage knows of a clip.

    Attributes:
        labels_Thw: int64 refined labels on the token grid, of the clip's first T frames.
        label_set_L: int64 sorted labels of the video.
        frames_THW3: uint8 frames at their own size.
        recording: of the feature pass, over T frames or more.
        features_Tnc: what was clustered; ``None`` where nobody asks.
        margins: mirrored token cells on either side, in y and in x, that the recording has around these.
        shares: what is known of labels within the tokens' cells, for those who can use it.
    """

    labels_Thw: Tensor
    label_set_L: Tensor
    frames_THW3: Tensor
    recording: Recording
    features_Tnc: Tensor | None = None
    margins: tuple[int, int] = (0, 0)
    shares: LabelShares | None = None

    def part(self, frames: slice) -> LabelledClip:
        """The same with some of the first frames; the recording stays whole."""
        return self._replace(
            labels_Thw=self.labels_Thw[frames],
            frames_THW3=self.frames_THW3[frames],
            features_Tnc=None if self.features_Tnc is None else self.features_Tnc[frames],
            shares=None if self.shares is None else self.shares.part(frames),
        )


class _DenoisedPass(NamedTuple):
    """Pairs (frame, label index), their final latents and those after each step (before blending), [B, S, c, u, v]."""

    frames_B: Tensor
    label_index_B: Tensor
    latents_SBcuv: Tensor
    steps: dict[int, Tensor]

    @classmethod
    def joined(cls, passes: Sequence[_DenoisedPass]) -> _DenoisedPass:
        """Several as one."""
        frames, label_indices, latents, steps = zip(*passes, strict=True)
        joined = {step: torch.cat([of_pass[step] for of_pass in steps]) for step in steps[0]}
        return cls(torch.cat(frames), torch.cat(label_indices), torch.cat(latents, 1), joined)

    def part(self, rows: slice) -> _DenoisedPass:
        """Some of the pairs."""
        steps = {step: x_BScuv[rows] for step, x_BScuv in self.steps.items()}
        return _DenoisedPass(self.frames_B[rows], self.label_index_B[rows], self.latents_SBcuv[:, rows], steps)


class _ModulatedPass(NamedTuple):
    """The same with difference maps."""

    frames_B: Tensor
    label_index_B: Tensor
    latents_SBcuv: Tensor
    steps: dict[int, Tensor]
    maps_BHW: Tensor


class Modulation(ABC):
    """Turns labels on the token grid into labels at the frames' own size; pure.

    Attributes:
        denoises: whether it denoises again, so that the feature pass must record what that needs.
    """

    denoises: bool = False

    @abstractmethod
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        """Return int64 labels [T, H, W]; intermediates go into ``trace`` if one is given."""


class NearestUpsampling(Modulation):
    """No modulation: every pixel takes the label of the token cell that it lies in."""

    @override
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        return nearest(clip.labels_Thw, (clip.frames_THW3.shape[1], clip.frames_THW3.shape[2]))


class MaskedModulation(Modulation):
    """The paper's masked modulation with latent blending.

    For every label and both signs the clip is denoised again from the same noised latents with the recorded
    attention injected; in the first step ``strength`` times the label's mask is added to the attention output of the
    modulated block. After the blended steps, latents outside the mask are put back to the recorded ones. Where the two
    decoded images differ most, relative to the label's own maximum in the frame, the pixel takes that label.

    Args:
        strength: lambda, what is added inside the mask.
        difference: how decoded images are compared, see :func:`zsvss.stages.difference.difference_map`; ``published``
            is a [quirk].
        mask_prior: weight of the difference outside the label's upsampled mask, 0..1 (0.7 in the released code);
            ``None`` applies no prior.
        blend: put back the recorded latents outside the mask.
        inject: use the recorded attention; without it the modulated passes attend freely.
        guided: guide the modulated passes; without it they cost half.
        num_steps: sampling steps of a modulated pass, the last of which goes to the end of the schedule; ``null``
            takes all of the backbone's.

    Source: the paper's Sec. 3.4, "Masked modulation" and "Latent blending". ``guided: false`` and ``num_steps`` are
    approximations of it.
    """

    denoises = True

    def __init__(
        self,
        strength: float = 50.0,
        difference: Difference = "float",
        mask_prior: float | None = None,
        blend: bool = True,
        inject: bool = True,
        guided: bool = True,
        num_steps: int | None = None,
    ) -> None:
        if mask_prior is not None and not 0 <= mask_prior <= 1:
            raise ValueError(f"modulation.mask_prior = {mask_prior} must be null or between 0 and 1.")
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"modulation.num_steps = {num_steps} must be null or at least 1.")
        self.strength = strength
        self.difference: Difference = difference
        self.mask_prior = mask_prior
        self.blend = blend
        self.inject = inject
        self.guided = guided
        self.num_steps = num_steps

    @override
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        size = (clip.frames_THW3.shape[1], clip.frames_THW3.shape[2])
        election = LargestDifference(clip.labels_Thw, clip.label_set_L, size, self.mask_prior)
        frames_B, label_index_B = self._rows(backbone, clip)
        frames = frames_B.tolist()
        check = FiniteCheck(backbone)
        num_done = 0
        for done in self._passes(backbone, clip, frames_B, label_index_B, check, is_traced=trace is not None):
            num_added = num_done + len(done.frames_B)
            election.add(frames[num_done:num_added], done.label_index_B, done.maps_BHW)
            num_done = num_added
            if trace is not None:
                latents_BScuv = done.latents_SBcuv.transpose(0, 1)
                trace.add_rows(
                    done.frames_B, done.label_index_B, modulated_latents=latents_BScuv, difference_maps=done.maps_BHW
                )
                for step, x_BScuv in done.steps.items():
                    trace.modulated_steps.setdefault(step, []).append(x_BScuv)
        check.ask()
        return election.labels_THW

    def _passes(
        self,
        backbone: Backbone,
        clip: LabelledClip,
        frames_B: Tensor,
        label_index_B: Tensor,
        check: FiniteCheck,
        *,
        is_traced: bool,
    ) -> Iterator[_ModulatedPass]:
        """All pairs in batches, each denoised and decoded; where the networks take turns, all are denoised first."""
        relief = partial(backbone.free_memory, clip.recording)
        whole = len(clip.labels_Thw) if backbone.couples_frames else 1
        run = partial(in_batches, num_items=len(frames_B), limit=backbone.pairs, whole=whole, relief=relief)

        def denoise(rows: slice) -> _DenoisedPass:
            return self._denoised(backbone, clip, frames_B[rows], label_index_B[rows], check)

        def modulate(rows: slice) -> _ModulatedPass:
            return self._decoded(backbone, clip, denoise(rows), check)

        def denoise_ahead(rows: slice) -> _DenoisedPass:
            done = denoise(rows)
            return done if is_traced else done._replace(steps={})  # those of all pairs at once would take memory

        def decode(rows: slice) -> _ModulatedPass:
            return self._decoded(backbone, clip, denoised.part(rows), check)

        if not backbone.takes_turns:
            yield from run(modulate)
        elif len(frames_B):
            with part(0, 1, 2):
                denoised = _DenoisedPass.joined(list(run(denoise_ahead)))
            with part(1, 2, 2):
                yield from run(decode)

    def _rows(self, backbone: Backbone, clip: LabelledClip) -> tuple[Tensor, Tensor]:
        """Pairs (frame, label index) that must be computed; labels of a frame in ascending order.

        A frame without a label has difference 0 everywhere unless the network couples frames: then every label needs
        whole clips.
        """
        num_frames, device = len(clip.labels_Thw), clip.labels_Thw.device
        if backbone.couples_frames:
            label_index_B, frames_B = torch.cartesian_prod(
                torch.arange(len(clip.label_set_L), device=device), torch.arange(num_frames, device=device)
            ).T
            return frames_B, label_index_B
        present_TL = (clip.labels_Thw[..., None] == clip.label_set_L).flatten(1, 2).any(1)
        frames_B, label_index_B = present_TL.nonzero(as_tuple=True)
        return frames_B, label_index_B

    def _denoised(
        self, backbone: Backbone, clip: LabelledClip, frames_B: Tensor, label_index_B: Tensor, check: FiniteCheck
    ) -> _DenoisedPass:
        masks_Bhw = clip.labels_Thw[frames_B] == clip.label_set_L[label_index_B][:, None, None]
        masks_Bhw = mirror(masks_Bhw.float(), clip.margins)
        latents_SBcuv, steps = self._modulated_latents(backbone, clip.recording, frames_B, masks_Bhw)
        check.add("latents after the last modulated step", latents_SBcuv)
        return _DenoisedPass(frames_B, label_index_B, latents_SBcuv, steps)

    def _decoded(
        self, backbone: Backbone, clip: LabelledClip, denoised: _DenoisedPass, check: FiniteCheck
    ) -> _ModulatedPass:
        num_steps = len(denoised.steps)
        with part(num_steps, num_steps + 1, num_steps + 1):
            plus_B3HW, minus_B3HW = signs_SB3HW = _decoded_signs(backbone, clip, denoised.latents_SBcuv)
            check.add("decoded images", signs_SB3HW)
        with full_precision(plus_B3HW.device):
            maps_BHW = difference_map(plus_B3HW, minus_B3HW, self.difference)
        return _ModulatedPass(*denoised, maps_BHW)

    def _modulated_latents(
        self, backbone: Backbone, recording: Recording, frames_B: Tensor, masks_Bhw: Tensor
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Final latents [S, B, c, u, v] for the signs + and -, and those after each step, before blending."""
        frames_R = frames_B.repeat(2)  # rows of both signs
        modulated_grid = recording.grids.get(backbone.modulation_block, (masks_Bhw.shape[1], masks_Bhw.shape[2]))
        offset_Bn = self.strength * nearest(masks_Bhw, modulated_grid).flatten(1)
        x_Rcuv = recording.noised_Tchw[frames_R]
        blend_masks_R1uv = nearest(masks_Bhw[:, None], (x_Rcuv.shape[-2], x_Rcuv.shape[-1])).repeat(2, 1, 1, 1)
        steps: dict[int, Tensor] = {}
        run = backbone.steps[: self.num_steps]
        for number, step in enumerate(run):
            offset = torch.cat([offset_Bn, -offset_Bn]) if step == backbone.steps[0] else None
            to_end = step == run[-1]
            with part(number, number + 1, len(run) + 1):
                x_Rcuv = backbone.denoise(
                    x_Rcuv, step, recording, frames_R, offset, inject=self.inject, guided=self.guided, to_end=to_end
                )
            steps[step] = x_Rcuv.unflatten(0, (2, -1)).transpose(0, 1)
            if self.blend and step in backbone.blended_steps and not to_end:
                x_Rcuv = blend_latents(x_Rcuv, recording.latents[step][frames_R], blend_masks_R1uv)
        return x_Rcuv.view(2, -1, *x_Rcuv.shape[1:]), steps


class LargestDifference:
    """Running arg max over labels of the peak-normalised difference maps, in memory that does not grow with L.

    Args:
        labels_Thw: int64 refined labels on the token grid.
        label_set_L: int64 sorted labels.
        size: height and width of the frames.
        prior: weight outside a label's upsampled mask, or ``None``.

    Attributes:
        labels_THW: int64 label of the largest difference so far; ties go to the first label.
    """

    def __init__(self, labels_Thw: Tensor, label_set_L: Tensor, size: tuple[int, int], prior: float | None) -> None:
        self._labels_Thw, self._label_set_L, self._size, self._prior = labels_Thw, label_set_L, size, prior
        # A label that is never added has difference 0: from the first label at 0, only a larger difference takes over.
        self._best_THW = torch.zeros(len(labels_Thw), *size, dtype=torch.float64, device=labels_Thw.device)
        self.labels_THW = label_set_L[0].expand(self._best_THW.shape).clone()

    def add(self, frames: Sequence[int], label_index_B: Tensor, maps_BHW: Tensor) -> None:
        """Take in the difference map of each row's frame and label; the labels of a frame come in ascending order."""
        labels_B = self._label_set_L[label_index_B]
        weighted_BHW = peak_normalized(maps_BHW)
        if self._prior is not None:
            # Stacked, not indexed by a list, which a device would wait for.
            masks_Bhw = torch.stack([self._labels_Thw[frame] for frame in frames]) == labels_B[:, None, None]
            weighted_BHW *= mask_prior(masks_Bhw.float(), self._size, self._prior)
        for frame, label, weighted_HW in zip(frames, labels_B, weighted_BHW, strict=True):
            larger_HW = weighted_HW > self._best_THW[frame]
            self._best_THW[frame] = torch.where(larger_HW, weighted_HW, self._best_THW[frame])
            self.labels_THW[frame] = torch.where(larger_HW, label, self.labels_THW[frame])


def _decoded_signs(backbone: Backbone, clip: LabelledClip, latents_SBcuv: Tensor) -> Tensor:
    """Decode both signs without the padding, at the frames' own size: [S, B, 3, H, W], nominally in [-1, 1]."""
    decoded = backbone.decode(latents_SBcuv.flatten(0, 1), len(clip.labels_Thw))
    cell = decoded.shape[-2] // (clip.labels_Thw.shape[1] + 2 * clip.margins[0])
    size = (clip.frames_THW3.shape[1], clip.frames_THW3.shape[2])
    images = resize_images(crop(decoded, (clip.margins[0] * cell, clip.margins[1] * cell)), size)
    return images.view(2, -1, *images.shape[1:])


def blend_latents(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """Latent blending: ``inside`` where the mask is 1, ``outside`` where it is 0."""
    return inside * mask + outside * (1 - mask)


def resize_images(images_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize to the frame's own size; the identity if it is that already."""
    if images_B3HW.shape[-2:] == size:
        return images_B3HW
    return functional.interpolate(images_B3HW, size, mode="bilinear", align_corners=False)
