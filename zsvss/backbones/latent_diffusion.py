"""What latent diffusion models have in common: weights, noise schedule, autoencoder and the sampling step.

Shape legend: T frames of a clip, B rows, H W pixels, h w latent cells, c channels, G = 2 guidance halves
(unconditional first).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self, override

from zsvss.backbones.base import ClipNoise
from zsvss.backbones.batching import BatchLimit, in_batches
from zsvss.backbones.checks import check_pipeline
from zsvss.backbones.fused_upsampling import merge_upsampling
from zsvss.backbones.half_precision import in_float32, sparing
from zsvss.backbones.memory_format import image_format, lay_out
from zsvss.backbones.offload import TurnTaking
from zsvss.backbones.schedule import PredictionType
from zsvss.backbones.single_file import open_weights
from zsvss.backbones.weights import Variant

_NAMES = {"unet": "U-Net", "transformer": "transformer"}
_SAMPLES_PER_IMAGE = 4  # samples of the network that take about the memory of one image in the autoencoder
_SAMPLES_PER_PAIR = 4  # two signs in two guidance halves
# Pixels that a pass of the autoencoder holds on a CPU, if an image has no more. Of 32 channels that is 32 MiB, above
# which tensors are mapped anew each time; wider autoencoders gain memory.
_PIXELS_ON_CPU = 2**18


class LatentDiffusion(TurnTaking):
    """A network in the latent space of an autoencoder, sampled by Euler steps with classifier-free guidance.

    The last ``num_steps - first_step`` of ``num_steps`` steps are run. Network arithmetic runs in the weights'
    precision, sampling arithmetic in float32.

    Attributes:
        pipeline: name of the backbone that pipelines of such models ask for, see `zsvss.backbones.checks`.
        needs: which models those are, for messages.
        parts: parts of the weights that may be read.
        concatenated: latents that the network takes beside the noisy one.
        given: settings of a network for additional inputs that this backbone gives it.
        network_part: part of the weights that is the network.
        network_class: diffusers class of the network.
        vae_class: diffusers class of the autoencoder.
        upcasts_decoder: whether ``force_upcast: true`` of the autoencoder's config holds for its decoder too.
        sigmas: noise level before each step, and 0 after the last.
        timesteps: what the network is told of each step's noise level.
        prediction_type: what the network predicts.
    """

    pipeline: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    needs: ClassVar[str]
    concatenated: ClassVar[int] = 0
    given: ClassVar[tuple[str, ...]] = ()
    network_part: ClassVar[str]
    network_class: ClassVar[str]
    vae_class: ClassVar[str]
    upcasts_decoder: ClassVar[bool] = True
    sigmas: list[float]
    timesteps: list[Any]
    prediction_type: PredictionType | None = None
    vae: Any

    def __init__(
        self,
        weights: str,
        variant: Variant,
        revision: str | None,
        num_steps: int,
        first_step: int,
        modulation_block: int | str | None,
        max_batch: int,
        compile_decoder: bool,
        offload: bool = False,
        tiling: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= first_step < num_steps:
            raise ValueError(f"first_step = {first_step} must be in 0..{num_steps - 1} (num_steps = {num_steps}).")
        if max_batch < 1:
            raise ValueError(f"max_batch = {max_batch} must be at least 1.")
        self.source = open_weights(weights, variant, revision, self.parts)
        self.num_steps = num_steps
        self.steps = range(first_step, num_steps)
        self.compile_decoder = compile_decoder
        self.tiling = tiling
        self.samples = BatchLimit(max_batch, f"samples of the {_NAMES[self.network_part]}")
        self.images = BatchLimit(max(1, max_batch // _SAMPLES_PER_IMAGE), "images in the autoencoder")
        self.pairs = BatchLimit(max(1, max_batch // _SAMPLES_PER_PAIR), "pairs of a frame and a label")
        self._modulation_block = modulation_block
        self.takes_turns = offload
        self._loaded = False

    @classmethod
    def from_pretrained(cls, weights: str, **settings: Any) -> Self:
        """Construct and load in one call."""
        backbone = cls(weights, **settings)
        backbone.load()
        return backbone

    # What a subclass says about its network

    @abstractmethod
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        """Refuse a network that this backbone cannot run, by its config and the autoencoder's.

        Raises:
            ValueError: naming the setting.
        """

    @abstractmethod
    def encoder_parts(self) -> tuple[str, ...]:
        """Parts of the weights that :meth:`load_conditioner` needs; none where the embedding itself is given."""

    @abstractmethod
    def load_conditioner(self) -> None:
        """Read what :meth:`condition` needs."""

    def _context(self) -> dict[str, Tensor]:
        """The empty prompt's embedding that the model gives, by name; empty if it gives none."""
        return self.source.tensors("context.safetensors")

    def _keep_embedding(self, context: Mapping[str, Tensor]) -> None:
        """Keep ``cond`` and, if it is there, ``pooled`` after zeros: the halves of the guidance."""
        for name, kept in (("cond", "context_Gmc"), ("pooled", "pooled_Gc")):
            if name in context:
                halves = torch.cat([torch.zeros_like(context[name]), context[name]])
                self.register_buffer(kept, halves, persistent=False)

    @abstractmethod
    def check_conditioner(self) -> None:
        """Refuse encoders that do not fit the network, by their configs; raises what :meth:`check` raises."""

    @abstractmethod
    def set_schedule(self) -> None:
        """Set ``sigmas``, ``timesteps`` and ``prediction_type`` by the scheduler's config.

        Raises:
            ValueError: if it is of another kind of model.
        """

    @abstractmethod
    def guidance_scale(self, frames_B: Tensor, num_frames: int) -> Tensor:
        """Scale of classifier-free guidance, broadcastable to [B, c, h, w]."""

    @abstractmethod
    def decode_images(self, latents_bchw: Tensor) -> Tensor:
        """Decode latents of the autoencoder's own scale."""

    # Weights

    @override
    def check(self) -> None:
        place = self.source.name
        check_pipeline(self.source.pipeline(), self.pipeline, self.needs, place)
        network, vae = self.source.config(self.network_part), self.source.config("vae")
        self.check_network(network, vae)
        if vae.get("_class_name") != self.vae_class:
            raise ValueError(
                f"{place}/vae is a {vae.get('_class_name')}; {type(self).__name__} needs a {self.vae_class}."
            )
        self.set_schedule()
        self.check_conditioner()
        self.source.check(self.network_part, "vae", *self.encoder_parts())

    @override
    def load(self) -> None:
        if self._loaded:
            return
        self.check()
        self.load_networks()
        for network in (self.network, self.vae):
            merge_upsampling(network)
        self.load_conditioner()
        self.set_schedule()
        self.requires_grad_(requires_grad=False)
        self.eval()
        if self.tiling:
            self.vae.enable_tiling()
        if self.compile_decoder:
            self.vae.decoder.compile()
        self._loaded = True

    def load_networks(self) -> None:
        """Set the network, by the name of its part, and ``vae``."""
        import diffusers

        network = self.source.load(getattr(diffusers, self.network_class), self.network_part)
        setattr(self, self.network_part, network)
        self.vae = self.source.load(getattr(diffusers, self.vae_class), "vae")

    @property
    @override
    def weights_names(self) -> tuple[str, ...]:
        return (self.source.name,)

    @override
    def fingerprint(self) -> str:
        return self.source.fingerprint((self.network_part, "vae", *self.encoder_parts()))

    @property
    @override
    def in_turns(self) -> tuple[str, ...]:
        return self.network_part, "vae", "image_encoder"

    @property
    def network(self) -> Any:
        """The network, which is loaded."""
        return getattr(self, self.network_part)

    # Images and latents

    @cached_property
    @override
    def latent_stride(self) -> int:
        return 1 << (len(self.source.config("vae")["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.source.config("vae").get("latent_channels", 4))

    def _in_image_batches(self, compute: Callable[[slice], Tensor], num_images: int, num_pixels: int) -> Tensor:
        """Compute images of so many pixels in batches that the autoencoder holds."""
        at_most = max(1, _PIXELS_ON_CPU // num_pixels) if self.device.type == "cpu" else None
        return torch.cat(list(in_batches(compute, num_images, self.images, at_most=at_most))).contiguous()

    @override
    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        network = getattr(self, self.network_part, None)
        with self.moving(fn) as convert:
            nn.Module._apply(self, sparing(convert, network), recurse)
            for images in (getattr(self, name, None) for name in ("vae", "tiny_decoder")):
                if images is not None:
                    lay_out(images, image_format(self.device, next(images.parameters()).dtype))
        return self

    @override
    def sample_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> ClipNoise:
        shape = (
            num_frames,
            self.latent_channels,
            height // self.latent_stride,
            width // self.latent_stride,
        )
        posterior, diffusion = (torch.randn(shape, generator=generator, dtype=torch.float32) for _ in range(2))
        return ClipNoise(posterior, diffusion)

    @override
    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        noise_Tchw = noise.posterior_Tchw.to(self.device)

        def sample(part: slice) -> Tensor:
            posterior = self.posterior(images_T3HW[part])
            latents_bchw: Tensor = posterior.mean.float() + posterior.std.float() * noise_Tchw[part]
            return latents_bchw

        latents_Tchw = self._in_image_batches(sample, len(images_T3HW), images_T3HW[0, 0].numel())
        return (latents_Tchw - self._shift) * float(self.vae.config.scaling_factor)

    def posterior(self, images_b3HW: Tensor) -> Any:
        """The autoencoder's Gaussian posterior of images in [-1, 1], not scaled.

        Encoders overflow in float16, so that there they run in float32, unless the checkpoint's config says that its
        own does not (``force_upcast: false``).
        """
        self.turn_of("vae")
        encoder = self.vae.encoder
        with in_float32(
            (encoder, getattr(self.vae, "quant_conv", None)), self.device, needed=self._force_upcast is not False
        ):
            dtype = next(encoder.parameters()).dtype
            is_video = images_b3HW.ndim == 5
            layout = torch.contiguous_format if is_video else image_format(self.device, dtype)
            images_b3HW = images_b3HW.to(self.device, dtype).contiguous(memory_format=layout)
            return self.vae.encode(images_b3HW).latent_dist

    @cached_property
    def _force_upcast(self) -> bool | None:
        """Whether the checkpoint's config says that its autoencoder needs float32; ``None`` if it does not say."""
        said: bool | None = self.source.config("vae").get("force_upcast")
        return said

    @cached_property
    def _shift(self) -> float:
        """Mean of the autoencoder's latents, where its config has one."""
        return float(self.source.config("vae").get("shift_factor") or 0.0)

    @override
    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        return latents_Tchw + self.sigmas[self.steps[0]] * noise.diffusion_Tchw.to(latents_Tchw)

    @override
    def decode(self, latents_Bchw: Tensor, num_frames: int | None = None) -> Tensor:
        self.turn_of("vae")
        decoder, convolution = self.vae.decoder, getattr(self.vae, "post_quant_conv", None)
        upcast = self.upcasts_decoder and self._force_upcast is True
        with in_float32((decoder, convolution), self.device, needed=upcast):
            dtype = next(decoder.parameters()).dtype
            scaled = (latents_Bchw / self.vae.config.scaling_factor + self._shift).to(dtype)
            scaled = scaled.contiguous(memory_format=image_format(self.device, dtype))
            num_pixels = scaled[0, 0].numel() * self.latent_stride**2
            return self._in_image_batches(
                lambda part: self.decode_images(scaled[part]).float(), len(scaled), num_pixels
            )

    def euler(
        self,
        x_Bchw: Tensor,
        output_GBchw: Tensor,
        step: int,
        frames_B: Tensor,
        num_frames: int,
        *,
        to_end: bool = False,
    ) -> Tensor:
        """Guide the prediction if both halves are there, convert it to noise, and take one Euler step."""
        guided = output_GBchw[-1]
        if len(output_GBchw) == 2:
            unconditional, conditional = output_GBchw
            scale = self.guidance_scale(frames_B, num_frames)
            guided = unconditional + scale * (conditional - unconditional)
        sigma = self.sigmas[step]
        if self.prediction_type == "v_prediction":
            guided = (guided + x_Bchw * sigma / (sigma**2 + 1) ** 0.5) / (sigma**2 + 1) ** 0.5
        return x_Bchw + guided * ((0.0 if to_end else self.sigmas[step + 1]) - sigma)
