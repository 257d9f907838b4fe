"""What a stage may ask of a diffusion model.

A backbone turns frames into latents, denoises them step by step while attention is recorded, injected or modulated,
and turns latents back into images. Stages see only this contract.

Shape legend: T frames of a clip, B rows of a batch (each row is one frame of the clip), H W pixels, h w latent cells,
n tokens of an attention layer, m tokens of the conditioning, c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from zsvss.backbones.batching import BatchLimit
from zsvss.backbones.feature_places import FeaturePlace, FeaturePlaces, Layer, Projection
from zsvss.backbones.host_memory import to_host

_log = logging.getLogger(__name__)


class FeatureKey(NamedTuple):
    """Name of one recorded tensor.

    Attributes:
        step: sampling step, 0..num_steps-1.
        block, layer, projection, depth: the place, as of :class:`~zsvss.backbones.feature_places.FeaturePlace`.
    """

    step: int
    block: int
    layer: Layer = "self"
    projection: Projection = "query"
    depth: int = 0

    @property
    def place(self) -> FeaturePlace:
        """Where it was recorded."""
        return FeaturePlace(*self[1:])


class ClipNoise(NamedTuple):
    """The random numbers of one clip, all standard normal float32.

    Attributes:
        posterior_Tchw: samples the autoencoder's posterior.
        diffusion_Tchw: the noise added to the latents.
        conditioning_13HW: augments the conditioning frame of video models; ``None`` for image models.
    """

    posterior_Tchw: Tensor
    diffusion_Tchw: Tensor
    conditioning_13HW: Tensor | None = None


class Conditioning(NamedTuple):
    """What the network is conditioned on; index 0 is the unconditional half of the guidance, 1 the conditional.

    Attributes:
        context_Gmc: tokens for cross-attention.
        vector_Gc: numbers that are added to the time embedding (video models).
        concat_Gchw: latent concatenated to the input of every frame (video models).
    """

    context_Gmc: Tensor
    vector_Gc: Tensor | None = None
    concat_Gchw: Tensor | None = None


class KeptState(Protocol):
    """State of a network, which may be large."""

    def to_host(self) -> KeptState:
        """The same in the host's memory."""


@dataclass
class Recording:
    """Everything kept of a feature pass.

    Attributes:
        noised_Tchw: the latents that the pass started from, float32.
        conditioning: what it was conditioned on.
        latents: step -> x after that step [T, c, h, w], float32.
        tensors: key -> recorded tensor [G, T, n, c] in the network's precision; G = 1, the conditional half,
            where the network is run without guidance. In the host's memory if the device's does not hold them. Where
            the network has a coarser time grid, of its latent frames, see :meth:`Backbone.over_time`.
        grids: block -> (height, width) of its token grid.
        encoded_Tchw: the latents of the frames themselves, without noise, where the caller has put them here.
        resume: state of the network after the modulated block at the modulated step; the backbone's own affair.
    """

    noised_Tchw: Tensor
    conditioning: Conditioning
    latents: dict[int, Tensor] = field(default_factory=dict)
    tensors: dict[FeatureKey, Tensor] = field(default_factory=dict)
    grids: dict[int, tuple[int, int]] = field(default_factory=dict)
    encoded_Tchw: Tensor | None = None
    resume: KeptState | None = None

    def half(self, key: FeatureKey, half: int = -1) -> Tensor:
        """A recorded tensor [T, n, c] of a guidance half, by default the conditional one, on the latents' device."""
        return self.tensors[key][half].to(self.noised_Tchw.device)

    def to_host(self) -> None:
        """Move what was recorded, which may be large, into the host's memory."""
        self.tensors = {key: to_host(tensor) for key, tensor in self.tensors.items()}
        self.resume = self.resume and self.resume.to_host()

    @classmethod
    def of_nothing(cls, noise: ClipNoise, encoded_Tchw: Tensor | None = None) -> Recording:
        """What there is of a clip that the network was not run on: the size of its latents, or the latents."""
        noised_Tchw = noise.diffusion_Tchw if encoded_Tchw is None else encoded_Tchw
        return cls(noised_Tchw, Conditioning(noised_Tchw.new_empty(2, 0, 0)), encoded_Tchw=encoded_Tchw)


class Backbone(nn.Module, ABC):
    """A frozen diffusion model, as the stages see it.

    The constructor only stores settings; :meth:`check` looks at the weights' files without reading them and
    :meth:`load` reads them, so that a mistake elsewhere is found before the expensive work.

    Attributes:
        couples_frames: whether the frames of a clip influence each other, so that a batch must hold whole clips.
        native_size: height and width of what it was trained on, if it can do little with frames of other sizes.
        steps: sampling steps that are run, first to last; the first one is the modulated step.
        blended_steps: steps after which masked modulation blends the latents.
        takes_turns: whether its networks lie on the device in turns, so that to change between denoising and decoding
            costs a copy of their weights.
        keeps_on_host: whether recordings are kept in the host's memory, as the device's did not hold one.
        pairs: how many pairs of a frame and a label masked modulation takes at once; each is two rows of
            :meth:`denoise`, one for either sign.
    """

    couples_frames: bool = False
    takes_turns: bool = False
    keeps_on_host: bool = False
    native_size: tuple[int, int] | None = None
    steps: Sequence[int]
    blended_steps: Sequence[int]
    pairs: BatchLimit

    @abstractmethod
    def check(self) -> None:
        """Look for the weights' files without reading them.

        Raises:
            FileNotFoundError: naming the file that is missing and how to get it.
            ValueError: if the weights are of a kind that this backbone cannot use.
        """

    @abstractmethod
    def load(self) -> None:
        """Read the weights, once; raises what :meth:`check` raises."""

    @property
    def weights_names(self) -> tuple[str, ...]:
        """Folders and hub ids of its weights, to be named beside results."""
        return ()

    def fingerprint(self) -> str:
        """Hash of the weights: results of different weights are never mixed."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    @abstractmethod
    def sample_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> ClipNoise:
        """Draw the random numbers of a clip from a CPU generator."""

    @abstractmethod
    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        """Encode images in [-1, 1] into latents [T, c, h, w], float32, scaled to about unit variance."""

    @abstractmethod
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        """Return what the network is conditioned on for this clip."""

    @abstractmethod
    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        """Noise latents to the level of the first of :attr:`steps`, float32."""

    @abstractmethod
    def record(
        self,
        noised_Tchw: Tensor,
        conditioning: Conditioning,
        keys: Collection[FeatureKey],
        *,
        for_denoising: bool = True,
    ) -> Recording:
        """Run the feature pass: denoise to the end, recording the latents, ``keys`` and what :meth:`denoise` needs.

        Args:
            noised_Tchw: latents from :meth:`add_noise`.
            conditioning: from :meth:`condition`.
            keys: what to record.
            for_denoising: also record what :meth:`denoise` needs; else the last step may end at the last of ``keys``.
        """

    @abstractmethod
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
        """Take one sampling step with the recorded attention injected and, if asked, the attention modulated.

        Args:
            x_Bchw: float32 latents before the step; row b belongs to frame ``frames_B[b]``.
            step: one of :attr:`steps`.
            recording: of this clip's feature pass.
            frames_B: int64 frame of each row; a backbone that couples frames wants whole clips, one after another.
            offset_Bn: modulation added to the modulated attention's output on the token grid, or ``None``.
            inject: replace attention by the recorded one; ``False`` lets the rows attend freely.
            guided: with classifier-free guidance; without it the network runs half as often.
            to_end: go to the end of the schedule in this step.

        Returns:
            float32 latents after the step.
        """

    @abstractmethod
    def decode(self, latents_Bchw: Tensor, num_frames: int | None = None) -> Tensor:
        """Decode latents into images [B, 3, H, W], float32, nominally in [-1, 1] but not clamped.

        Args:
            latents_Bchw: rows; where frames are coupled, whole clips, one after another.
            num_frames: of a clip; ``None`` is all rows. Read where the autoencoder couples frames.
        """

    def over_time(self, tensor_Lnc: Tensor, num_frames: int) -> Tensor:
        """A recorded tensor of one half for each frame [T, n, c], where the network has a coarser time grid."""
        return tensor_Lnc

    def latent_frames(self, num_frames: int, device: torch.device | None = None) -> Tensor | None:
        """Number of each frame's latent frame, int64 [T], where the network has a coarser time grid; else ``None``."""
        return None

    @property
    @abstractmethod
    def latent_stride(self) -> int:
        """Pixels a side of a latent cell; known before the weights are read."""

    @property
    @abstractmethod
    def size_multiple(self) -> int:
        """Image height and width must be multiples of this; known before the weights are read."""

    @property
    @abstractmethod
    def places(self) -> FeaturePlaces:
        """What can be recorded, on which grid, and what is read by default; known before the weights are read."""

    @property
    @abstractmethod
    def modulation_block(self) -> int:
        """Number of the block whose attention is modulated."""

    def checked(self, keys: Collection[FeatureKey]) -> set[FeatureKey]:
        """The keys, if all of them can be recorded.

        Raises:
            ValueError: naming the first that cannot, and what can.
        """
        for key in keys:
            if key.step not in self.steps:
                raise ValueError(f"{key} is of a step that is not run; steps are {list(self.steps)}.")
            if self.places.name(key.place) is None:
                raise ValueError(f"{type(self).__name__} has no {tuple(key.place)} to record. {self.places.listing()}")
        return set(keys)

    def free_memory(self, recording: Recording) -> bool:
        """Move a recording, and those of all later clips, into the host's memory; False if that frees none."""
        if self.keeps_on_host or self.device.type == "cpu":
            return False
        _log.warning(
            "out of memory: what is recorded of a clip is kept in the host's memory from now on, which is slower; a "
            "smaller data.clip_length or model.input_size would keep it on the device"
        )
        self.keeps_on_host = True
        recording.to_host()
        return True

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device
