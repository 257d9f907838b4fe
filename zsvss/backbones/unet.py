"""Recording, injecting and modulating the attention of a U-Net's up blocks.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network (a row in one guidance half),
S sequences of frames, U attention maps that samples share, h w latent cells, n tokens, m context tokens, c channels,
G = 2 guidance halves.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention, ending_behind
from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.backbones.checks import check_inputs
from zsvss.backbones.compiled import CompiledPasses
from zsvss.backbones.denoising import DenoisingNetwork
from zsvss.backbones.feature_places import ALL_PROJECTIONS, FeaturePlaces, Layer, Projection
from zsvss.backbones.host_memory import picked
from zsvss.backbones.partial_pass import (
    ResumeState,
    modulated,
    resume_state,
    run_behind,
    select,
    watched_modules,
)
from zsvss.backbones.recording import RecordedPass, as_in_layer, last_module, recorded
from zsvss.backbones.samples import Samples
from zsvss.backbones.unet_layout import UNetLayout, check_layout


class UNetBackbone(DenoisingNetwork):
    """A latent diffusion model with a U-Net, whose up blocks may have any number of layers.

    Attributes:
        attention_of_layer: layer -> path of the attention module inside an output block; ``{}`` is the number of the
            transformer block.
        read_of_layer: layer -> what can be recorded of it.
        only_the_papers: whether only Stable Diffusion's own layout will do.
        modulated_layers: layers of the modulated block to whose output the offset is added.
        reuse_recorded: skip what a recording already holds, and compute attention maps that samples share once.
        compile_unet: run modulated passes through ``torch.compile``, in its default mode or in the one that is named.
        compile_backend: of ``torch.compile``.
    """

    network_part = "unet"
    attention_of_layer: ClassVar[Mapping[Layer, str]]
    read_of_layer: ClassVar[Mapping[Layer, tuple[Projection, ...]]] = {
        "self": ALL_PROJECTIONS,
        "cross": ALL_PROJECTIONS,
    }
    only_the_papers: ClassVar[bool] = False
    modulated_layers: ClassVar[tuple[Layer, ...]]
    reuse_recorded: bool
    compile_unet: bool | Literal["reduce-overhead"] = False
    compile_backend: Any = "inductor"
    unet: Any
    _compiled: CompiledPasses | None = None

    # What a subclass says about its network

    @property
    @abstractmethod
    def injected(self) -> Mapping[Layer, tuple[Projection, ...]]:
        """Recorded projections that replace those of a modulated pass, by layer."""

    @abstractmethod
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        """Keyword arguments of the U-Net for scaled latents; ``num_frames`` is the clip's."""

    @abstractmethod
    def block_options(
        self, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keyword arguments of the U-Net's residual blocks and of its transformers."""

    def modulation_gain(self) -> float | Tensor:
        """How many times the offset reaches the modulated block's last projection."""
        return 1.0

    # Weights

    @cached_property
    def layout(self) -> UNetLayout:
        """The up blocks, by the config."""
        return UNetLayout(self.source.config("unet"))

    @cached_property
    @override
    def places(self) -> FeaturePlaces:
        return self.layout.places(self.read_of_layer)

    @property
    @override
    def modulation_block(self) -> int:
        chosen = self._modulation_block
        if chosen is not None:
            return self.places.block(chosen)
        half = self.layout.half_resolution
        if not half:
            raise ValueError(
                f"{self.source.name}/unet has no attention at half the latents' resolution, where a block is modulated "
                f"by default: choose modulation_block. {self.places.listing()}"
            )
        return half[len(half) // 2]

    @property
    @override
    def size_multiple(self) -> int:
        return self.latent_stride << (self.layout.num_up_blocks - 1)

    @override
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        place = self.source.name
        if self.takes_turns and self.compile_unet == "reduce-overhead":
            raise ValueError(
                "backbone.offload = true and backbone.compile_unet = 'reduce-overhead' exclude each other: a CUDA "
                "graph finds weights where they lay when it was taken. Choose compile_unet: true, or leave out offload."
            )
        check_layout(config, self.network_class, f"{place}/unet", only_the_papers=self.only_the_papers)
        check_inputs(config, vae, self.concatenated, place, self.given)
        if not self.layout.blocks[self.modulation_block].depth:
            attentive = [self.layout.name(block) for block in self.layout.attentive]
            raise ValueError(
                f"modulation_block = {self._modulation_block} has no attention in {place}/unet; "
                f"choose one of {attentive}."
            )

    @override
    def load_networks(self) -> None:
        super().load_networks()
        self._check_reach()

    # Passes of the network

    def _pass(
        self,
        x_Bchw: Tensor,
        step: int,
        conditioning: Conditioning,
        samples: Samples,
        num_frames: int,
        compiled: CompiledPasses | None = None,
    ) -> Tensor:
        """Run the network; returns its float32 output [b, c, h, w]."""
        scaled_bchw = (x_Bchw / (self.sigmas[step] ** 2 + 1) ** 0.5)[samples.row_b].to(self.unet.dtype)
        inputs = self.network_inputs(scaled_bchw, step, conditioning, samples, num_frames)
        output: Tensor = self.unet(**inputs, return_dict=False)[0] if compiled is None else compiled.whole(**inputs)
        return output.float().view(-1, *x_Bchw.shape[1:])

    @override
    def _recorded_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        watched = watched_modules(self.unet, self.modulation_block) if self._resumes_at(step) else {}
        with recorded(self.unet, self._paths(keys), len(samples.row_b)) as tensors, captured_calls(watched) as calls:
            output_bchw = self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(
            output_bchw, tensors, resume_state(calls, self.unet, self.modulation_block) if watched else None
        )

    @override
    def _shortened_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        paths = self._paths(keys)
        with recorded(self.unet, paths, len(samples.row_b)) as tensors, ending_behind(last_module(self.unet, paths)):
            self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(x_Tchw[samples.row_b][:, :0], tensors, None)

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
        num_samples, num_frames = len(samples.row_b), len(recording.noised_Tchw)
        if self.compile_unet:
            self._compiled = self._compiled or CompiledPasses(self.unet, self.compile_backend, self.compile_unet)
            samples = samples.filled(self.samples.holds(*self._bounds(x_Bchw, num_frames)))
        edits = self._injection(step, recording, samples) if inject else {}
        if offset_Bn is None:
            output_bchw = self._edited_pass(x_Bchw, step, recording, samples, edits)
        elif self._resumes_at(step):
            output_bchw = self._resumed_pass(recording, samples, offset_Bn[samples.row_b], edits)
        else:
            self._modulate(edits, offset_Bn[samples.row_b], num_frames)
            output_bchw = self._edited_pass(x_Bchw, step, recording, samples, edits)
        return output_bchw[:num_samples]

    def _edited_pass(
        self, x_Bchw: Tensor, step: int, recording: Recording, samples: Samples, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run the network with its attention edited; returns its float32 output [b, c, h, w]."""
        with edited_attention(self.unet, edits):
            return self._pass(x_Bchw, step, recording.conditioning, samples, len(recording.noised_Tchw), self._compiled)

    def _resumed_pass(
        self, recording: Recording, samples: Samples, offset_bn: Tensor, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run only the blocks after the modulated one; returns the network's float32 output [b, c, h, w]."""
        if not isinstance(recording.resume, ResumeState):
            raise TypeError("the recording holds no state to resume from; record with reuse_recorded=True.")
        state = select(recording.resume, samples)
        state = modulated(state, self.unet, self.modulation_block, offset_bn * self.modulation_gain())
        options = self.block_options(recording.conditioning, samples, len(recording.noised_Tchw))
        with edited_attention(self.unet, edits):
            run = run_behind if self._compiled is None else self._compiled.behind
            return run(state, self.unet, self.modulation_block, *options).float()

    def _resumes_at(self, step: int) -> bool:
        return self.reuse_recorded and step == self.steps[0]

    # Edits of attention

    def _injection(self, step: int, recording: Recording, samples: Samples) -> dict[str, AttentionEdit]:
        edits: dict[str, AttentionEdit] = {}
        shared = self._shared_maps(samples)
        for key in sorted(self._injected_keys()):  # one order, by which a compiled network knows its inputs
            if key.step == step:
                edit = edits.setdefault(self._path(key.block, key.layer, key.depth), AttentionEdit())
                if shared is not None and key.layer == "self":
                    half_U, frame_U, edit.shared_map_B = shared
                    tensor_bnc = recording.tensors[key][half_U, frame_U]
                else:
                    tensor_bnc = picked(recording.tensors[key], samples)
                edit.replace[key.projection] = as_in_layer(tensor_bnc, key.layer, len(recording.noised_Tchw))
        return edits

    def _shared_maps(self, samples: Samples) -> tuple[Tensor, Tensor, Tensor] | None:
        """Recorded half and frame of each self-attention map that samples share, and the map of each sample.

        All labels and signs of a frame attend by one map, and only their values differ. Fused attention keeps no map;
        spelt out for two samples and more it is about as fast or faster on a CPU in float32.
        """
        is_cpu_float32 = self.device.type == "cpu" and self.unet.dtype == torch.float32
        if not (self.reuse_recorded and is_cpu_float32) or torch.is_autocast_enabled("cpu"):
            return None
        half_and_frame = torch.stack([samples.half_b, samples.frame_b])
        (half_U, frame_U), map_b = torch.unique(half_and_frame, dim=1, return_inverse=True)
        return (half_U, frame_U, map_b) if 2 * len(half_U) <= len(map_b) else None

    @override
    def _injected_keys(self) -> set[FeatureKey]:
        """What injection needs; blocks up to the modulated one only where they are run again."""
        return {
            FeatureKey(step, block, layer, projection, depth)
            for step in self.steps
            for block in self.layout.attentive
            if not (self._resumes_at(step) and block <= self.modulation_block)
            for layer, projections in self.injected.items()
            for projection in projections
            for depth in range(self.layout.blocks[block].depth)
        }

    def _modulate(self, edits: dict[str, AttentionEdit], offset_bn: Tensor, num_frames: int) -> None:
        for layer in self.modulated_layers:
            edit = edits.setdefault(self._path(self.modulation_block, layer), AttentionEdit())
            edit.offset_Bn = as_in_layer(offset_bn[..., None], layer, num_frames)[..., 0]

    def _paths(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, str | None]:
        """Path of the module of each key; ``None`` for the output of a block."""
        return {key: None if key.layer == "block" else self._path(key.block, key.layer, key.depth) for key in keys}

    def _path(self, block: int, layer: Layer, depth: int = 0) -> str:
        """Path of an attention module, or of the transformer block that holds it."""
        placed = self.layout.blocks[block]
        inner = "transformer_blocks.{}" if layer == "transformer" else self.attention_of_layer[layer]
        return f"up_blocks.{placed.up_block}.attentions.{placed.layer}.{inner.format(depth)}"

    def _check_reach(self) -> None:
        """Refuse a network in which injection would reach less than all layers that it should.

        Raises:
            ValueError: saying how many it would reach.
        """
        for layer in self.injected:
            pattern = re.escape(self.attention_of_layer[layer]).replace(r"\{\}", r"\d+")
            path = re.compile(rf"up_blocks\.\d+\.attentions\.\d+\.{pattern}\.processor")
            there = {name.removesuffix(".processor") for name in self.unet.attn_processors if path.fullmatch(name)}
            reached = {
                self._path(block, layer, depth)
                for block in self.layout.attentive
                for depth in range(self.layout.blocks[block].depth)
            }
            if there != reached:
                missed = sorted(there ^ reached)[0]
                raise ValueError(
                    f"{self.source.name}/unet: injection would reach {len(there & reached)} of {len(there)} "
                    f"{layer!r}-attention layers of the up blocks, by the config; the weights differ at {missed}."
                )
