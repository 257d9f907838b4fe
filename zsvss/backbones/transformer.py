"""Recording, injecting and modulating the attention of a diffusion transformer.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network (a row in one guidance half), h w latent
cells, n image tokens, m text tokens, c channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from zsvss.backbones.attention import ending_behind
from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.backbones.hooks import Change, Part, adding, begun_at, changed, inputs_kept, keeping, replacing
from zsvss.backbones.host_memory import picked
from zsvss.backbones.partial_pass import ResumeState, select
from zsvss.backbones.recording import RecordedPass
from zsvss.backbones.samples import Samples
from zsvss.backbones.transformer_places import PlacedTransformer
from zsvss.backbones.weights import Variant


class TransformerBackbone(PlacedTransformer):
    """A latent diffusion model with a transformer of alike blocks.

    The modulation differs from the paper's, which adds its offset to a U-Net's cross-attention. Behind the attention
    of a pre-norm transformer, a number that is constant over the channels is removed by the next norm. Here it is added
    to the image tokens' attention output ahead of the gate of the adaptive norm, which weights it by channel. This is
    ours, not the paper's.

    Attributes:
        image_index: which of a block's two results are the image tokens, where it has a stream for the text as well.
        modulated_attention: attention module, inside a block, to whose output the offset is added.

    Args:
        weights: local diffusers folder or hub id.
        variant: file variant, such as ``fp16``, of each part that has it; or part -> variant.
        revision: branch, tag or commit of a hub repository.
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        guidance: scale of classifier-free guidance between zeros and the empty prompt; 1 is none, and then only the
            conditional half is run.
        modulation_block: block whose attention is modulated, by name (``block.9``); ``None`` takes the default one.
        max_batch: samples a pass of the transformer; bounds memory, as in `StableDiffusion`.
        reuse_recorded: begin the modulated step at the modulated block. The arithmetic is the same; ``False`` runs all.
        compile_decoder: decode through ``torch.compile``, as `StableDiffusion` does.
        offload: bring transformer and autoencoder to the device in turns, as `StableDiffusion` does.
        tiling: encode and decode large images tile by tile, as `StableDiffusion` does.
    """

    image_index: ClassVar[int | None] = None
    modulated_attention: ClassVar[str]

    def __init__(
        self,
        weights: str,
        *,
        variant: Variant = None,
        revision: str | None = None,
        num_steps: int = 28,
        first_step: int = 25,
        guidance: float = 1.0,
        modulation_block: str | None = None,
        max_batch: int = 8,
        reuse_recorded: bool = True,
        compile_decoder: bool = False,
        offload: bool = False,
        tiling: bool = False,
    ) -> None:
        super().__init__(
            weights,
            variant,
            revision,
            num_steps,
            first_step,
            modulation_block,
            max_batch,
            compile_decoder,
            offload,
            tiling,
        )
        self.blended_steps = range(first_step, num_steps - 1)
        self.guidance = guidance
        self.reuse_recorded = reuse_recorded

    # What a subclass says about its network

    @abstractmethod
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        """Keyword arguments of the transformer for scaled latents; ``num_frames`` is the clip's."""

    def predicted(self, output: Tensor, x_bchw: Tensor) -> Tensor:
        """What the network predicts [b, c, h, w], out of its output for latents of the same shape."""
        return output

    def returned(self, hidden: Tensor, text: Tensor | None) -> Any:
        """A block's result of image and text tokens."""
        if self.image_index is None:
            return hidden
        return (hidden, text) if self.image_index == 0 else (text, hidden)

    def scaled(self, x_bchw: Tensor, step: int) -> Tensor:
        """Latents of unit variance, as the network takes them; flow matching takes them as they are."""
        scale: float = (self.sigmas[step] ** 2 + 1) ** 0.5
        return x_bchw / scale

    @property
    @override
    def is_guided(self) -> bool:
        return self.guidance != 1

    @override
    def guidance_scale(self, frames_B: Tensor, num_frames: int) -> Tensor:
        return torch.tensor(self.guidance, dtype=torch.float32)

    @override
    def decode_images(self, latents_bchw: Tensor) -> Tensor:
        images: Tensor = self.vae.decode(latents_bchw).sample
        return images

    @override
    def load_networks(self) -> None:
        self._name_distillation(self.guidance)
        super().load_networks()

    # Passes of the network

    def _pass(self, x_Bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int) -> Tensor:
        """Run the network; returns its float32 output [b, c, h, w]."""
        x_bchw = self.scaled(x_Bchw, step)[samples.row_b].to(self.transformer.dtype)
        inputs = self.network_inputs(x_bchw, step, conditioning, samples, num_frames)
        return self.predicted(self.transformer(**inputs, return_dict=False)[0], x_bchw).float()

    def _keeping(
        self, keys: Iterable[FeatureKey], conditioning: Conditioning, kept: dict[FeatureKey, Tensor]
    ) -> list[tuple[nn.Module, Change]]:
        num_text = conditioning.context_Gmc.shape[1]
        changes: list[tuple[nn.Module, Change]] = []
        for key in keys:
            if key.layer == "block":
                changes.append((self._blocks[key.block], self._keeping_output(key, kept)))
            else:
                path, seam = self._path(key)
                changes.append((self.transformer.get_submodule(path), keeping(key, seam, num_text, kept)))
        return changes

    def _keeping_output(self, key: FeatureKey, kept: dict[FeatureKey, Tensor]) -> Change:
        def keep(_: tuple[Any, ...], result: Any) -> None:
            kept[key] = result if self.image_index is None else result[self.image_index]

        return keep

    @override
    def _recorded_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        kept: dict[FeatureKey, Tensor] = {}
        block = self._blocks[self.modulation_block]
        watch: AbstractContextManager[list[ResumeState]] = nullcontext([])
        if self._resumes_at(step):
            watch = inputs_kept(block, has_text=self.image_index is not None)
        with changed(self._keeping(keys, conditioning, kept)), watch as states:
            output_bchw = self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(output_bchw, kept, states[0] if states else None)

    @override
    def _shortened_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        kept: dict[FeatureKey, Tensor] = {}
        last = self._blocks[max((key.block for key in keys), default=0)]
        with changed(self._keeping(keys, conditioning, kept)), ending_behind(last):
            self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(x_Tchw[samples.row_b][:, :0], kept, None)

    @override
    def _modulated_pass(
        self,
        x_Bchw: Tensor,
        step: int,
        recording: Recording,
        samples: Samples,
        offset_Bn: Tensor | None,
        *,
        inject: bool,
    ) -> Tensor:
        changes = self._injection(step, recording, samples) if inject else []
        num_frames = len(recording.noised_Tchw)
        with ExitStack() as stack:
            if offset_Bn is not None:
                path = f"{self._block_paths[self.modulation_block]}.{self.modulated_attention}"
                offset_bn = self._offset_of(offset_Bn, samples, num_frames)
                changes.append((self.transformer.get_submodule(path), adding(offset_bn)))
                if self._resumes_at(step):
                    if not isinstance(recording.resume, ResumeState):
                        raise TypeError("the recording holds no state to resume from; record with reuse_recorded=True.")
                    state = self._state_of(recording.resume, samples, num_frames)
                    stack.enter_context(begun_at(self._blocks, self.modulation_block, state, self.returned))
            stack.enter_context(changed(changes))
            return self._pass(x_Bchw, step, recording.conditioning, samples, num_frames)

    def _resumes_at(self, step: int) -> bool:
        return self.reuse_recorded and step == self.steps[0]

    # What of a recording, and of an offset, belongs to each sample

    def _picked(self, tensor_GTnc: Tensor, samples: Samples, num_frames: int) -> Tensor:
        return picked(tensor_GTnc, samples)

    def _state_of(self, state: ResumeState, samples: Samples, num_frames: int) -> ResumeState:
        return select(state, samples)

    def _offset_of(self, offset_Bn: Tensor, samples: Samples, num_frames: int) -> Tensor:
        return offset_Bn[samples.row_b]

    # Injection

    def _injection(self, step: int, recording: Recording, samples: Samples) -> list[tuple[nn.Module, Change]]:
        parts: defaultdict[str, dict[Part, Tensor]] = defaultdict(dict)
        for key in sorted(self._injected_keys()):
            if key.step == step:
                path, seam = self._path(key)
                parts[path][seam.part] = self._picked(recording.tensors[key], samples, len(recording.noised_Tchw))
        return [(self.transformer.get_submodule(path), replacing(tensors)) for path, tensors in parts.items()]

    @override
    def _injected_keys(self) -> set[FeatureKey]:
        return {
            key
            for step in self.steps
            for key in self._all_keys(step)
            if not (self._resumes_at(step) and key.block < self.modulation_block)
        }
