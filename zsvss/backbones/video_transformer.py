"""Transformers over the frames of a whole clip, whose autoencoder joins frames over time.

The first frame has a latent frame of its own, and every four frames after it share one. Stages see a latent for each
frame, which frames of a group have in common; a group's mean is what the network is given.

Shape legend: T frames of a clip, L latent frames, S sequences of T frames, B rows, b samples of one pass (a row in one
guidance half), h w latent cells, n tokens of a frame, m text tokens, c channels, G guidance halves.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning, FeatureKey
from zsvss.backbones.half_precision import in_float32
from zsvss.backbones.host_memory import joined, picked
from zsvss.backbones.partial_pass import ResumeState, join
from zsvss.backbones.recording import RecordedPass, by_half
from zsvss.backbones.samples import Samples
from zsvss.backbones.transformer import TransformerBackbone


class VideoTransformer(TransformerBackbone):
    """A transformer that denoises the frames of a clip together.

    A clip whose length does not fit is padded by its last frame, and cut again. Recorded tensors lie on the latents'
    time grid; what is clustered is interpolated over time to the frames. Masked modulation sees a group's mean mask.

    Attributes:
        frames_of_latent: frames that share a latent frame, after the first.
        latents_at_once: the number of latent frames is one more than a multiple of this.
    """

    couples_frames = True
    frames_of_latent: ClassVar[int] = 4
    latents_at_once: ClassVar[int] = 1

    # Time

    def groups(self, num_frames: int, device: torch.device | None = None) -> Tensor:
        """Latent frame of each frame, int64 [T]."""
        frames_T = torch.arange(num_frames, device=device)
        return (frames_T + self.frames_of_latent - 1).div(self.frames_of_latent, rounding_mode="floor")

    @override
    def latent_frames(self, num_frames: int, device: torch.device | None = None) -> Tensor | None:
        return self.groups(num_frames, device)

    def num_latent_frames(self, num_frames: int) -> int:
        """L, for clips of T frames."""
        return 1 + math.ceil((num_frames - 1) / (self.frames_of_latent * self.latents_at_once)) * self.latents_at_once

    def padded(self, frames_ST: Tensor) -> Tensor:
        """Frames [S, T, ...], the last one repeated until the last group is full."""
        num_missing = 1 + (self.num_latent_frames(frames_ST.shape[1]) - 1) * self.frames_of_latent - frames_ST.shape[1]
        last_S1 = frames_ST[:, -1:]
        return torch.cat([frames_ST, *[last_S1] * num_missing], 1) if num_missing else frames_ST

    def collapsed(self, frames_ST: Tensor) -> Tensor:
        """Means of the groups [S, L, ...]."""
        whole_ST = self.padded(frames_ST)
        if whole_ST.shape[1] == 1:
            return whole_ST
        return torch.cat([whole_ST[:, :1], whole_ST[:, 1:].unflatten(1, (-1, self.frames_of_latent)).mean(2)], 1)

    def _firsts(self, num_frames: int, device: torch.device | None = None) -> Tensor:
        """First frame of each group, int64 [L]."""
        groups_L = torch.arange(self.num_latent_frames(num_frames), device=device)
        return ((groups_L - 1) * self.frames_of_latent + 1).clamp(min=0, max=num_frames - 1)

    def shared(self, numbers_T: Tensor) -> Tensor:
        """One frame's numbers for all of its group [T, ...]: those of the group's first frame."""
        num_frames, device = len(numbers_T), numbers_T.device
        return numbers_T[self._firsts(num_frames, device)[self.groups(num_frames, device)]]

    @override
    def over_time(self, tensor_Lnc: Tensor, num_frames: int) -> Tensor:
        """Linear between the middles of the groups; constant in the last half group."""
        stride, num_latents = self.frames_of_latent, len(tensor_Lnc)
        frames_T = torch.arange(num_frames, device=tensor_Lnc.device, dtype=torch.float32)
        middle = (stride + 1) / 2  # of the first group after the first frame
        place_T = torch.where(frames_T < middle, frames_T / middle, 1 + (frames_T - middle) / stride)
        place_T = place_T.clamp(max=num_latents - 1)
        below_T = place_T.floor().long()
        above_T = (below_T + 1).clamp(max=num_latents - 1)
        return torch.lerp(tensor_Lnc[below_T], tensor_Lnc[above_T], (place_T - below_T)[:, None, None])

    # Images and latents

    @abstractmethod
    def normalized(self, latents_Lchw: Tensor) -> Tensor:
        """Latents of the autoencoder's own scale, as the network takes them."""

    @abstractmethod
    def denormalized(self, latents_SLchw: Tensor) -> Tensor:
        """Undo :meth:`normalized`."""

    @override
    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        num_frames = len(images_T3HW)
        noise_Lchw = noise.posterior_Tchw.to(self.device)[self._firsts(num_frames, self.device)]

        def sample(_: slice) -> Tensor:
            posterior = self.posterior(self.padded(images_T3HW[None]).transpose(1, 2))
            mean_Lchw, std_Lchw = (tensor[0].transpose(0, 1).float() for tensor in (posterior.mean, posterior.std))
            latents_Lchw: Tensor = mean_Lchw + std_Lchw * noise_Lchw
            return latents_Lchw

        latents_Lchw = self.normalized(self._in_image_batches(sample, 1, images_T3HW[:, 0].numel()))
        return latents_Lchw[self.groups(num_frames, self.device)]

    @override
    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        return super().add_noise(latents_Tchw, noise._replace(diffusion_Tchw=self.shared(noise.diffusion_Tchw)))

    @override
    def decode(self, latents_Bchw: Tensor, num_frames: int | None = None) -> Tensor:
        self.turn_of("vae")
        num_frames = num_frames or len(latents_Bchw)
        decoder, convolution = self.vae.decoder, getattr(self.vae, "post_quant_conv", None)
        with in_float32(
            (decoder, convolution), self.device, needed=self.upcasts_decoder and self._force_upcast is True
        ):
            dtype = next(decoder.parameters()).dtype
            latents_SLchw = self.denormalized(self.collapsed(latents_Bchw.unflatten(0, (-1, num_frames))))
            scaled_ScLhw = latents_SLchw.to(dtype).transpose(1, 2).contiguous()

            def images(part: slice) -> Tensor:
                videos: Tensor = self.vae.decode(scaled_ScLhw[part]).sample[:, :, :num_frames]
                return videos.transpose(1, 2).float()

            num_pixels = num_frames * latents_Bchw[0, 0].numel() * self.latent_stride**2
            return self._in_image_batches(images, len(scaled_ScLhw), num_pixels).flatten(0, 1)

    # Passes of the network

    @override
    def _pass(self, x_Bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int) -> Tensor:
        x_STchw = self.scaled(x_Bchw, step)[samples.row_b].unflatten(0, (-1, num_frames))
        x_SLchw = self.collapsed(x_STchw).to(self.transformer.dtype)
        inputs = self.network_inputs(x_SLchw, step, conditioning, samples, num_frames)
        output_SLchw = self.predicted(self.transformer(**inputs, return_dict=False)[0], x_SLchw).float()
        return output_SLchw[:, self.groups(num_frames, x_Bchw.device)].flatten(0, 1)

    def _by_time(self, done: RecordedPass, x_Tchw: Tensor) -> RecordedPass:
        """Take the frames of what was recorded apart: [S, L, n, c]; of the text [S, 1, m, c]."""
        num_latents, (height, width) = self.num_latent_frames(len(x_Tchw)), x_Tchw.shape[-2:]
        rows, columns = self.places.grid(0, (height, width))
        apart: dict[FeatureKey, Tensor] = {}
        for key, tensor in done.tensors.items():
            of_frames = tensor.shape[1] == num_latents * rows * columns and not _is_text(key)
            apart[key] = tensor.unflatten(1, (num_latents, -1)) if of_frames else tensor[:, None]
        return done._replace(tensors=apart)

    @override
    def _recorded_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        return self._by_time(super()._recorded_pass(x_Tchw, step, conditioning, keys, samples), x_Tchw)

    @override
    def _shortened_pass(
        self, x_Tchw: Tensor, step: int, conditioning: Conditioning, keys: set[FeatureKey], samples: Samples
    ) -> RecordedPass:
        return self._by_time(super()._shortened_pass(x_Tchw, step, conditioning, keys, samples), x_Tchw)

    @override
    def _joined(self, passes: Sequence[RecordedPass], num_frames: int) -> RecordedPass:
        tensors: Mapping[FeatureKey, Tensor] = {
            key: joined([done.tensors[key] for done in passes]) for key in passes[0].tensors
        }
        states = [done.state for done in passes if done.state is not None]
        state = join(states, 1) if states else None
        return RecordedPass(by_half([done.output for done in passes], num_frames), dict(tensors), state)

    @override
    def _picked(self, tensor_GLnc: Tensor, samples: Samples, num_frames: int) -> Tensor:
        return picked(tensor_GLnc[:, None], _sequences(samples, num_frames)).flatten(1, 2)

    @override
    def _state_of(self, state: ResumeState, samples: Samples, num_frames: int) -> ResumeState:
        return super()._state_of(state, _sequences(samples, num_frames), 1)

    @override
    def _offset_of(self, offset_Bn: Tensor, samples: Samples, num_frames: int) -> Tensor:
        return self.collapsed(offset_Bn[samples.row_b].unflatten(0, (-1, num_frames))).flatten(1)


def _sequences(samples: Samples, num_frames: int) -> Samples:
    """The sequences that samples are of, as if each were one frame."""
    first_S = samples.row_b[::num_frames]
    return Samples(first_S, samples.half_b[::num_frames], torch.zeros_like(first_S))


def _is_text(key: FeatureKey) -> bool:
    """Whether what was recorded are text tokens."""
    return key.layer == "text" or (key.layer == "cross" and key.projection in ("key", "value"))
