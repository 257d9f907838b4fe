"""Recording, injecting and modulating the attention of a U-Net of Stable Diffusion's layout.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network (a row in one guidance half),
S sequences of frames, U attention maps that samples share, h w latent cells, n tokens, m context tokens, c channels,
G = 2 guidance halves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention, ending_behind
from zsvss.backbones.base import Conditioning, FeatureKey, Layer, Projection, Recording
from zsvss.backbones.batching import in_batches, once
from zsvss.backbones.compiled import CompiledPasses
from zsvss.backbones.host_memory import picked
from zsvss.backbones.latent_diffusion import LatentDiffusion
from zsvss.backbones.layout import LAYERS_PER_UP_BLOCK, NUM_BLOCKS, blocks_with_attention, token_grid
from zsvss.backbones.recording import RecordedPass, as_in_layer, by_half, join_passes, last_module, recorded
from zsvss.backbones.resume import (
    ResumeState,
    modulated,
    resume_state,
    run_behind,
    select,
    watched_modules,
)
from zsvss.backbones.samples import CONDITIONAL, UNCONDITIONAL, Samples
from zsvss.progress import part

# Batches of one attention call that CUDA's kernels take (a dimension of their grid).
MOST_ATTENTION_BATCHES = 65_535

_T = TypeVar("_T")


class UNetBackbone(LatentDiffusion):
    """A latent diffusion model whose U-Net has four up blocks of three layers.

    Attributes:
        attention_of_layer: layer -> path of the attention module inside an output block.
        modulated_layers: layers of the modulated block to whose output the offset is added.
        reuse_recorded: skip what a recording already holds, and compute attention maps that samples share once.
        compile_unet: run modulated passes through ``torch.compile``, in its default mode or in the one that is named.
        compile_backend: of ``torch.compile``.
    """

    attention_of_layer: ClassVar[Mapping[Layer, str]]
    modulated_layers: ClassVar[tuple[Layer, ...]]
    reuse_recorded: bool
    compile_unet: bool | Literal["reduce-overhead"] = False
    compile_backend: Any = "inductor"
    _compiled: CompiledPasses | None = None

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

    def modulation_gain(self) -> float | Tensor:
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
        wanted = self._checked(keys) | (self._injected_keys() if for_denoising else set())
        height, width = noised_Tchw.shape[-2:]
        recording = Recording(noised_Tchw, conditioning)
        recording.grids = {block: token_grid(block, (height, width)) for block in range(NUM_BLOCKS)}
        num_frames = len(noised_Tchw)
        frames_T = torch.arange(num_frames, device=noised_Tchw.device)
        x_Tchw = noised_Tchw
        for number, step in enumerate(self.steps):
            ends_early = step == self.steps[-1] and not for_denoising
            of_step = {key for key in wanted if key.step == step}
            run = partial(self._shortened_pass if ends_early else self._recorded_pass, x_Tchw, step, conditioning)
            passes: list[RecordedPass] = []
            relief = partial(self._free_memory_of, recording, passes)
            with part(number, number + 1, len(self.steps)):
                for done in self._in_passes(partial(run, of_step), x_Tchw, frames_T, num_frames, relief=relief):
                    passes.append(done.to_host() if self.keeps_on_host else done)
                    del done  # `relief` moves them while the next pass is run
            joined = once(partial(join_passes, passes, num_frames), "clip's recording", relief)
            recording.tensors |= joined.tensors
            recording.resume = joined.state or recording.resume
            if not ends_early:
                x_Tchw = self.euler(x_Tchw, joined.output, step, frames_T, num_frames)
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
        if self.compile_unet and self._compiled is None:
            self._compiled = CompiledPasses(self.unet, self.compile_backend, self.compile_unet)

        def run(samples: Samples) -> Tensor:
            num_samples = len(samples.row_b)
            if self.compile_unet:
                samples = samples.filled(self.samples.holds(*self._bounds(x_Bchw, num_frames)))
            return edited(samples)[:num_samples]

        def edited(samples: Samples) -> Tensor:
            edits = self._injection(step, recording, samples) if inject else {}
            if offset_Bn is None:
                return self._edited_pass(x_Bchw, step, recording, samples, edits)
            offset_bn = offset_Bn[samples.row_b]
            if self._resumes_at(step):
                return self._resumed_pass(recording, samples, offset_bn, edits)
            self._modulate(edits, offset_bn, num_frames)
            return self._edited_pass(x_Bchw, step, recording, samples, edits)

        relief = partial(self.free_memory, recording)
        outputs = list(self._in_passes(run, x_Bchw, frames_B, num_frames, guided=guided, relief=relief))
        return self.euler(x_Bchw, by_half(outputs, len(x_Bchw)), step, frames_B, num_frames, to_end=to_end)

    # Passes of the network

    def _free_memory_of(self, recording: Recording, passes: list[RecordedPass]) -> bool:
        """:meth:`free_memory` of a recording that is not finished; ``passes`` are those of its current step."""
        is_freed = self.free_memory(recording)
        if is_freed:
            passes[:] = [done.to_host() for done in passes]
        return is_freed

    def _in_passes(
        self,
        run: Callable[[Samples], _T],
        x_Bchw: Tensor,
        frames_B: Tensor,
        num_frames: int,
        *,
        guided: bool = True,
        relief: Callable[[], bool] | None = None,
    ) -> Iterator[_T]:
        """Run rows, in the guidance halves that matter, in passes that memory holds.

        A network that couples frames gets whole clips.
        """
        num_rows, device = len(frames_B), frames_B.device
        whole, at_most = self._bounds(x_Bchw, num_frames)
        if self.couples_frames:
            # Of numbers on a device only how many there are is known without a wait.
            in_order = device.type != "cpu" or frames_B.equal(torch.arange(num_rows) % num_frames)
            if num_rows % num_frames or not in_order:
                raise ValueError(
                    f"rows must be whole clips of {num_frames} frames in order; found {frames_B.tolist()}."
                )
        halves = (UNCONDITIONAL, CONDITIONAL) if guided and self.is_guided else (CONDITIONAL,)
        samples = Samples(
            torch.arange(num_rows, device=device).repeat(len(halves)),
            torch.cat([torch.full((num_rows,), half, device=device) for half in halves]),
            frames_B.repeat(len(halves)),
        )
        return in_batches(
            lambda place: run(samples.part(place)),
            len(samples.row_b),
            self.samples,
            whole=whole,
            at_most=at_most,
            relief=relief,
        )

    def _bounds(self, x_Bchw: Tensor, num_frames: int) -> tuple[int, int | None]:
        """Samples that stay together in a pass, and how many attention over time, a batch a latent cell, may get."""
        if not self.couples_frames:
            return 1, None
        cells = x_Bchw[0, 0].numel()
        if x_Bchw.device.type != "cpu" and cells > MOST_ATTENTION_BATCHES:
            raise ValueError(
                f"{cells} latent cells a frame are more than the {MOST_ATTENTION_BATCHES} that attention over time "
                "takes on a GPU. Set model.input_size to something smaller."
            )
        return num_frames, num_frames * max(1, MOST_ATTENTION_BATCHES // cells)

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

    def _recorded_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        """Run the network and keep what was asked for."""
        watched = watched_modules(self.unet, self.modulation_block) if self._resumes_at(step) else {}
        with recorded(self.unet, self._paths(keys), len(samples.row_b)) as tensors, captured_calls(watched) as calls:
            output_bchw = self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(output_bchw, tensors, resume_state(calls, self.modulation_block) if watched else None)

    def _shortened_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        """Run the network only as far as something is to be kept."""
        paths = self._paths(keys)
        with recorded(self.unet, paths, len(samples.row_b)) as tensors, ending_behind(last_module(self.unet, paths)):
            self._pass(x_Tchw, step, conditioning, samples, len(x_Tchw))
        return RecordedPass(x_Tchw[samples.row_b][:, :0], tensors, None)

    def _edited_pass(
        self, x_Bchw: Tensor, step: int, recording: Recording, samples: Samples, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run the network with its attention edited; returns its float32 output [b, c, h, w]."""
        with edited_attention(self.unet, edits):
            return self._pass(x_Bchw, step, recording.conditioning, samples, len(recording.noised_Tchw), self._compiled)

    def _resumed_pass(
        self, recording: Recording, samples: Samples, offset_bn: Tensor, edits: dict[str, AttentionEdit]
    ) -> Tensor:
        """Run only the blocks behind the modulated one; returns the network's float32 output [b, c, h, w]."""
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
                edit = edits.setdefault(self._attention_path(key.block, key.layer), AttentionEdit())
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
            edit.offset_Bn = as_in_layer(offset_bn[..., None], layer, num_frames)[..., 0]

    @property
    def _blocks(self) -> list[int]:
        return blocks_with_attention(self.unet.config.up_block_types)

    def _paths(self, keys: Iterable[FeatureKey]) -> dict[FeatureKey, str | None]:
        """Path of the attention module of each key; ``None`` for the output of a block."""
        return {key: None if key.layer == "block" else self._attention_path(key.block, key.layer) for key in keys}

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
