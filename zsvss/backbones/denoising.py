"""The feature pass and the modulated passes of a network, in batches that memory holds.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network (a row in one guidance half), h w latent
cells, n tokens, c channels.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.backbones.batching import in_batches, once
from zsvss.backbones.checks import few_steps
from zsvss.backbones.latent_diffusion import LatentDiffusion
from zsvss.backbones.recording import RecordedPass, by_half, join_passes
from zsvss.backbones.samples import CONDITIONAL, UNCONDITIONAL, Samples
from zsvss.progress import part

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class DenoisingNetwork(LatentDiffusion):
    """A latent diffusion model whose network is recorded, injected and modulated by passes that a subclass states."""

    @property
    def is_guided(self) -> bool:
        """Whether the unconditional half matters."""
        return True

    def _name_distillation(self, guidance: float) -> None:
        """Say that a checkpoint seems to be distilled, and which guidance suits it, unless it has that."""
        names = [self.source.name, str(self.source.config(self.network_part).get("_name_or_path", ""))]
        reason = few_steps(names, self.source.config("scheduler", required=False)) if self.is_guided else None
        if reason is not None:
            _log.warning(
                "%s may be distilled to sample in a few steps without guidance (turbo, LCM, ...): %s. If it is, set "
                "--model.backbone.guidance 1 (it is %g).",
                self.source.name,
                reason,
                guidance,
            )

    # What a subclass says about its network

    @abstractmethod
    def _recorded_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        """Run the network and keep what was asked for."""

    @abstractmethod
    def _shortened_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        """Run the network only as far as something is to be kept."""

    @abstractmethod
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
        """Run the network with the recorded attention and the offset; returns its float32 output [b, c, h, w]."""

    @abstractmethod
    def _injected_keys(self) -> set[FeatureKey]:
        """What injection needs."""

    def _joined(self, passes: Sequence[RecordedPass], num_frames: int) -> RecordedPass:
        """All passes of a step as one."""
        return join_passes(passes, num_frames)

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
        self.turn_of(self.network_part)
        wanted = self.checked(keys) | (self._injected_keys() if for_denoising else set())
        height, width = noised_Tchw.shape[-2:]
        recording = Recording(noised_Tchw, conditioning)
        recording.grids = {block: self.places.grid(block, (height, width)) for block in range(len(self.places.blocks))}
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
            joined = once(partial(self._joined, passes, num_frames), "clip's recording", relief)
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
        self.turn_of(self.network_part)
        num_frames = len(recording.noised_Tchw)

        def run(samples: Samples) -> Tensor:
            return self._modulated_pass(x_Bchw, step, recording, samples, offset_Bn, inject=inject)

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
        """Samples that stay together in a pass, and the most that a pass may get, whatever memory holds."""
        return num_frames if self.couples_frames else 1, None
