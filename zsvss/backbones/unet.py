"""Recording, injecting and modulating the attention of a U-Net of Stable Diffusion's layout.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network (a row in one guidance half),
S sequences of frames, U attention maps that samples share, h w latent cells, n tokens, m context tokens, c channels,
G = 2 guidance halves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention, ending_behind
from zsvss.backbones.base import Conditioning, FeatureKey, Layer, Projection, Recording
from zsvss.backbones.latent_diffusion import LatentDiffusion
from zsvss.backbones.layout import LAYERS_PER_UP_BLOCK, NUM_BLOCKS, blocks_with_attention, output_block, token_grid
from zsvss.backbones.resume import (
    ResumeState,
    first_tensor,
    join,
    modulated,
    resume_state,
    run_behind,
    select,
    watched_modules,
)

_EDIT_OF_PROJECTION = {"query": "query_Bnc", "key": "key_Bmc", "output": "output_Bnc"}


class Samples(NamedTuple):
    """Samples of one pass of the network: their row, guidance half and frame, int64 [b]."""

    row_b: Tensor
    half_b: Tensor
    frame_b: Tensor

    @property
    def recorded_half_b(self) -> Tensor:
        """Index of the half in a recording, from the end: without guidance it holds the conditional one alone."""
        return self.half_b - 2


class UNetBackbone(LatentDiffusion):
    """A latent diffusion model whose U-Net has four up blocks of three layers.

    Attributes:
        attention_of_layer: layer -> path of the attention module inside an output block.
        modulated_layers: layers of the modulated block to whose output the offset is added.
        reuse_recorded: skip what a recording already holds, and compute attention maps that samples share once.
    """

    attention_of_layer: ClassVar[Mapping[Layer, str]]
    modulated_layers: ClassVar[tuple[Layer, ...]]
    reuse_recorded: bool

    @property
    def is_guided(self) -> bool:
        """Whether the unconditional half matters."""
        return True

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

    def modulation_gain(self) -> float:
        """How many times the offset reaches the modulated block's last projection."""
        return 1.0

    # Contract

    @override
    def record(
        self,
        noised_Tchw: Tensor,
        conditioning: Conditioning,
        keys: Collection[FeatureKey],
        *,
        for_denoising: bool = True,
    ) -> Recording:
        recording = Recording(noised_Tchw, conditioning)
        wanted = self._checked(keys) | (self._injected_keys() if for_denoising else set())
        height, width = noised_Tchw.shape[-2:]
        recording.grids = {block: token_grid(block, (height, width)) for block in range(NUM_BLOCKS)}
        frames_T = torch.arange(len(noised_Tchw), device=noised_Tchw.device)
        x_Tchw = noised_Tchw
        for step in self.steps:
            outputs, states = [], []
            collected: dict[FeatureKey, list[Tensor]] = {key: [] for key in wanted if key.step == step}
            is_cut_short = step == self.steps[-1] and not for_denoising
            last_block = max((key.block for key in collected), default=0) if is_cut_short else None
            for samples in self._passes(frames_T, len(frames_T), self._halves()):
                output, state = self._recorded_pass(x_Tchw, step, conditioning, samples, collected, last_block)
                outputs += [output] if output is not None else []
                states += [state] if state else []
            recording.tensors |= {key: self._by_half(tensors, len(x_Tchw)) for key, tensors in collected.items()}
            if states:
                recording.resume = join(states, len(x_Tchw))
            if outputs:
                x_Tchw = self.euler(x_Tchw, self._by_half(outputs, len(x_Tchw)), step, frames_T, len(frames_T))
                recording.latents[step] = x_Tchw
        return recording

    @override
    def denoise(
        self,
        x_Bchw: Tensor,
        step: int,
        recording: Recording,
        frames_B: Tensor,
        offset_Bn: Tensor | None = None,
        *,
        inject: bool = True,
        guided: bool = True,
        to_end: bool = False,
    ) -> Tensor:
        num_frames = len(recording.noised_Tchw)
        outputs = []
        for samples in self._passes(frames_B, num_frames, self._halves(guided=guided)):
            edits = self._injection(step, recording, samples) if inject else {}
            offset_bn = None if offset_Bn is None else offset_Bn[samples.row_b]
            if offset_bn is not None and self._resumes_at(step):
                output = self._resumed_pass(recording, samples, offset_bn, edits)
            else:
                if offset_bn is not None:
                    self._modulate(edits, offset_bn, num_frames)
                with edited_attention(self.unet, edits):
                    output = self._pass(x_Bchw, step, recording.conditioning, samples, num_frames)
            outputs.append(output)
        return self.euler(x_Bchw, self._by_half(outputs, len(x_Bchw)), step, frames_B, num_frames, to_end=to_end)

    # Passes of the network

    def _halves(self, *, guided: bool = True) -> tuple[int, ...]:
        """Guidance halves that must be run: the conditional one alone where there is no guidance."""
        return (0, 1) if guided and self.is_guided else (1,)

    def _passes(self, frames_B: Tensor, num_frames: int, halves: tuple[int, ...]) -> list[Samples]:
        """Split rows in their halves into passes of at most ``max_batch`` samples, but never a sequence of frames."""
        num_rows, device = len(frames_B), frames_B.device
        sequence = num_frames if self.couples_frames else 1
        if self.couples_frames:
            in_order_B = torch.arange(num_rows, device=device) % num_frames
            if num_rows % num_frames or not torch.equal(frames_B, in_order_B):
                raise ValueError(
                    f"rows must be whole clips of {num_frames} frames in order; found {frames_B.tolist()}."
                )
        rows_b = torch.arange(num_rows, device=device).repeat(len(halves))
        halves_b = torch.tensor(halves, device=device).repeat_interleave(num_rows)
        size = sequence * max(1, self.max_batch // sequence)
        self.begin_passes(min(len(rows_b), size) // sequence, sequence)
        parts = (tensor.split(size) for tensor in (rows_b, halves_b, frames_B.repeat(len(halves))))
        return [Samples(*part) for part in zip(*parts, strict=True)]

    def _pass(self, x_Bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int) -> Tensor:
        """Run the network; returns its float32 output [b, c, h, w]."""
        scaled_bchw = (x_Bchw / (self.sigmas[step] ** 2 + 1) ** 0.5)[samples.row_b].to(self.unet.dtype)
        inputs = self.network_inputs(scaled_bchw, step, conditioning, samples, num_frames)
        output: Tensor = self.unet(**inputs, return_dict=False)[0]
        return output.float().view(-1, *x_Bchw.shape[1:])

    def _recorded_pass(
        self,
        x_Tchw: Tensor,
        step: int,
        conditioning: Conditioning,
        samples: Samples,
        collected: dict[FeatureKey, list[Tensor]],
        last_block: int | None = None,
    ) -> tuple[Tensor | None, ResumeState | None]:
        """Run the network, up to ``last_block`` if given; append what was asked for to ``collected``, as [b, n, c]."""
        output_bchw = None
        edits: dict[str, AttentionEdit] = {}
        watches_state = self._resumes_at(step) and last_block is None
        watched = watched_modules(self.unet, self.modulation_block) if watches_state else {}
        for key in collected:
            if key.layer == "block":
                watched[f"block {key.block}"] = output_block(self.unet, key.block)
            else:
                edit = edits.setdefault(self._attention_path(key.block, key.layer), AttentionEdit())
                edit.record |= {key.projection}
        end = None if last_block is None else output_block(self.unet, last_block)
        with edited_attention(self.unet, edits), captured_calls(watched) as calls, ending_behind(end):
            output_bchw = self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        for key, tensors in collected.items():
            if key.layer == "block":
                tensors.append(first_tensor(calls[f"block {key.block}"][1]).flatten(2).transpose(1, 2))
            else:
                recorded = edits[self._attention_path(key.block, key.layer)].recorded[key.projection]
                tensors.append(_by_frame(recorded, key.layer, len(samples.row_b)))
        return output_bchw, resume_state(calls, self.modulation_block) if watches_state else None

    def _resumed_pass(
        self, recording: Recording, samples: Samples, offset_bn: Tensor, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run only the blocks behind the modulated one; returns the network's float32 output [b, c, h, w]."""
        if not isinstance(recording.resume, ResumeState):
            raise TypeError("the recording holds no state to resume from; record with reuse_recorded=True.")
        state = select(recording.resume, samples.recorded_half_b, samples.frame_b)
        state = modulated(state, self.unet, self.modulation_block, offset_bn * self.modulation_gain())
        options = self.block_options(recording.conditioning, samples, len(recording.noised_Tchw))
        with edited_attention(self.unet, edits):
            return run_behind(state, self.unet, self.modulation_block, *options).float()

    @staticmethod
    def _by_half(tensors_b: list[Tensor], num_rows: int) -> Tensor:
        """Join passes into [G, B, ...]."""
        joined_b = torch.cat(tensors_b)
        return joined_b.view(-1, num_rows, *joined_b.shape[1:])

    def _resumes_at(self, step: int) -> bool:
        return self.reuse_recorded and step == self.steps[0]

    # Edits of attention

    def _injection(self, step: int, recording: Recording, samples: Samples) -> dict[str, AttentionEdit]:
        edits: dict[str, AttentionEdit] = {}
        shared = self._shared_maps(samples)
        for key in self._injected_keys():
            if key.step == step:
                edit = edits.setdefault(self._attention_path(key.block, key.layer), AttentionEdit())
                half_b, frame_b = samples.recorded_half_b, samples.frame_b
                if shared is not None and key.layer == "self":
                    half_b, frame_b, edit.shared_map_B = shared
                tensor_bnc = recording.tensors[key][half_b, frame_b]
                arranged = _as_in_layer(tensor_bnc, key.layer, len(recording.noised_Tchw))
                setattr(edit, _EDIT_OF_PROJECTION[key.projection], arranged)
        return edits

    def _shared_maps(self, samples: Samples) -> tuple[Tensor, Tensor, Tensor] | None:
        """Recorded half and frame of each self-attention map that samples share, and the map of each sample.

        All labels and signs of a frame attend by one map, and only their values differ. Fused attention keeps no map;
        spelt out for two samples and more it is about as fast or faster on a CPU in float32.
        """
        is_cpu_float32 = self.device.type == "cpu" and self.unet.dtype == torch.float32
        if not (self.reuse_recorded and is_cpu_float32) or torch.is_autocast_enabled("cpu"):
            return None
        half_and_frame = torch.stack([samples.recorded_half_b, samples.frame_b])
        (half_U, frame_U), map_b = torch.unique(half_and_frame, dim=1, return_inverse=True)
        return (half_U, frame_U, map_b) if 2 * len(half_U) <= len(map_b) else None

    def _injected_keys(self) -> set[FeatureKey]:
        """What injection needs; blocks up to the modulated one only where they are run again."""
        return {
            FeatureKey(step, block, layer, projection)
            for step in self.steps
            for block in self._blocks
            if not (self._resumes_at(step) and block <= self.modulation_block)
            for layer, projections in self.injected.items()
            for projection in projections
        }

    def _modulate(self, edits: dict[str, AttentionEdit], offset_bn: Tensor, num_frames: int) -> None:
        for layer in self.modulated_layers:
            edit = edits.setdefault(self._attention_path(self.modulation_block, layer), AttentionEdit())
            edit.offset_Bn = _as_in_layer(offset_bn[..., None], layer, num_frames)[..., 0]

    @property
    def _blocks(self) -> list[int]:
        return blocks_with_attention(self.unet.config.up_block_types)

    def _attention_path(self, block: int, layer: Layer) -> str:
        i, j = divmod(block, LAYERS_PER_UP_BLOCK)
        return f"up_blocks.{i}.attentions.{j}.{self.attention_of_layer[layer]}"

    def _checked(self, keys: Iterable[FeatureKey]) -> set[FeatureKey]:
        """Refuse keys that this network cannot record."""
        for key in keys:
            if key.step not in self.steps:
                raise ValueError(f"{key} is of a step that is not run; steps are {list(self.steps)}.")
            if key.layer == "block" and 0 <= key.block < NUM_BLOCKS and key.projection == "output":
                continue
            if key.block not in self._blocks or key.layer not in self.attention_of_layer:
                raise ValueError(
                    f"{type(self).__name__} has no {key.layer!r} attention in output block {key.block}; blocks with "
                    f"attention are {self._blocks}, layers are {sorted(self.attention_of_layer)} (or 'block', which "
                    "has only an 'output')."
                )
            if key.layer == "temporal_cross" and key.projection in ("key", "value"):
                raise ValueError(f"{key}: temporal cross-attention has no {key.projection} of its own for each frame.")
        return set(keys)


def _as_in_layer(tensor_bnc: Tensor, layer: Layer, num_frames: int) -> Tensor:
    """Rearrange [S T, n, c] as temporal layers have it, [S n, T, c]; other layers have it as it is."""
    if not layer.startswith("temporal"):
        return tensor_bnc
    tensor_STnc = tensor_bnc.reshape(-1, num_frames, *tensor_bnc.shape[1:])
    return tensor_STnc.transpose(1, 2).flatten(0, 1)


def _by_frame(tensor: Tensor, layer: Layer, num_samples: int) -> Tensor:
    """Undo :func:`_as_in_layer`; returns [b, n, c]."""
    if not layer.startswith("temporal"):
        return tensor
    num_frames = tensor.shape[1]
    tensor_SnTc = tensor.reshape(num_samples // num_frames, -1, *tensor.shape[1:])
    return tensor_SnTc.transpose(1, 2).flatten(0, 1)
