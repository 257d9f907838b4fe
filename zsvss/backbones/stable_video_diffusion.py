"""Stable Video Diffusion as a backbone, from a local diffusers folder or a hub id.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network, S sequences of T frames, H W pixels,
h w latent cells, m context tokens, c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning
from zsvss.backbones.checks import check_image_encoder
from zsvss.backbones.feature_places import ALL_PROJECTIONS, Layer, Projection
from zsvss.backbones.samples import Samples
from zsvss.backbones.schedule import check_kind, prediction_type
from zsvss.backbones.single_frames import take_single_frames
from zsvss.backbones.unet import UNetBackbone
from zsvss.backbones.unet_layout import output_block
from zsvss.backbones.weights import Variant

# Batches of one attention call that CUDA's kernels take (a dimension of their grid).
MOST_ATTENTION_BATCHES = 65_535
_SIGMA_MAX, _SIGMA_MIN, _RHO = 700.0, 0.002, 7.0
_CLIP_SIZE = 224
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class StableVideoDiffusion(UNetBackbone):
    """Stable Video Diffusion: the frames of a clip are denoised together.

    The last ``num_steps - first_step`` of ``num_steps`` Euler steps on the EDM schedule are run. The network is
    conditioned on the clip's first frame; guidance grows linearly over the frames. Clips may have any length.

    Args:
        weights: local diffusers folder or hub id (``unet/``, ``vae/`` and ``image_encoder/``, or in place of the last a
            ``context.safetensors`` holding a fixed ``cond`` [1, 1, c]).
        variant: file variant, such as ``fp16``, of each part that has it; or part -> variant.
        revision: branch, tag or commit of a hub repository.
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        min_guidance: scale of classifier-free guidance in the first frame.
        max_guidance: the same in the last frame.
        frame_rate: frames a second that the network is told; the published code tells 14, diffusers' pipeline one
            less than what it is given.
        motion_bucket: amount of motion that the network is told.
        augmentation: standard deviation of the noise on the conditioning frame.
        modulation_block: output block whose spatial and temporal self-attention are modulated, by the paper's number or
            by name (``up.2.attn.2``).
        max_batch: frames of either guidance half a pass of the network, at least a clip's; bounds memory. Where the
            device has less, passes are halved until they fit, so that a number too large costs one failed pass.
        reuse_recorded: skip the blocks up to the modulated one in the modulated step. The arithmetic is the same;
            ``False`` runs everything.
        compile_decoder: decode through ``torch.compile``, as `StableDiffusion` does.
        compile_unet: compile the modulated passes, as `StableDiffusion` does.
        offload: bring U-Net, autoencoder and image encoder to the device in turns, as `StableDiffusion` does.

    Source: the paper's Sec. 3 and its released sampling script; the schedule of Karras et al., "Elucidating the Design
    Space of Diffusion-Based Generative Models" (arXiv 2206.00364).
    """

    pipeline = "StableVideoDiffusion"
    needs = "Stable Video Diffusion"
    parts = ("scheduler", "unet", "vae", "image_encoder", "feature_extractor")
    concatenated = 1
    network_class = "UNetSpatioTemporalConditionModel"
    vae_class = "AutoencoderKLTemporalDecoder"
    upcasts_decoder = False  # as in diffusers' pipeline, which decodes in float16
    attention_of_layer: ClassVar[Mapping[Layer, str]] = {
        "self": "transformer_blocks.{}.attn1",
        "cross": "transformer_blocks.{}.attn2",
        "temporal_self": "temporal_transformer_blocks.{}.attn1",
        "temporal_cross": "temporal_transformer_blocks.{}.attn2",
    }
    read_of_layer: ClassVar[Mapping[Layer, tuple[Projection, ...]]] = {
        "self": ALL_PROJECTIONS,
        "cross": ALL_PROJECTIONS,
        "temporal_self": ALL_PROJECTIONS,
        "temporal_cross": ("query", "output"),  # its context is the same at every token
    }
    only_the_papers = True
    modulated_layers = ("self", "temporal_self")
    couples_frames = True
    prediction_type = "v_prediction"
    context_1mc: Tensor | None

    def __init__(
        self,
        weights: str = "stabilityai/stable-video-diffusion-img2vid",
        *,
        variant: Variant = None,
        revision: str | None = None,
        num_steps: int = 25,
        first_step: int = 17,
        min_guidance: float = 1.0,
        max_guidance: float = 2.5,
        frame_rate: int = 14,
        motion_bucket: int = 127,
        augmentation: float = 0.02,
        modulation_block: int | str = 8,
        max_batch: int = 28,
        reuse_recorded: bool = True,
        compile_decoder: bool = False,
        compile_unet: bool | Literal["reduce-overhead"] = False,
        offload: bool = False,
    ) -> None:
        super().__init__(
            weights, variant, revision, num_steps, first_step, modulation_block, max_batch, compile_decoder, offload
        )
        self.blended_steps = self.steps
        self.guidance = (min_guidance, max_guidance)
        self.vector_c = (float(frame_rate), float(motion_bucket), augmentation)
        self.reuse_recorded = reuse_recorded
        self.compile_unet = compile_unet

    @override
    def check(self) -> None:
        super().check()
        scheduler, place = self.source.config("scheduler", required=False), f"{self.source.name}/scheduler"
        check_kind(scheduler, place)
        if scheduler and prediction_type(scheduler, None, place) != "v_prediction":
            raise ValueError(f"{place}: prediction_type must be 'v_prediction', as in all of Stable Video Diffusion.")

    @override
    def load(self) -> None:
        super().load()
        # The original network, and so its weights, have 1e-5 where diffusers has 1e-6.
        for name, module in self.unet.named_modules():
            if isinstance(module, torch.nn.GroupNorm) and ".resnets." in name:
                module.eps = 1e-5
        take_single_frames(self.vae.decoder)

    # Conditioning

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        return () if "cond" in self.source.tensors("context.safetensors") else ("image_encoder",)

    @override
    def check_conditioner(self) -> None:
        if self.encoder_parts():
            width = self.source.config("unet")["cross_attention_dim"]
            check_image_encoder(self.source.config("image_encoder"), width, self.source.name)

    @override
    def load_conditioner(self) -> None:
        self.image_encoder: Any = None
        context_1mc = self.source.tensors("context.safetensors").get("cond")
        self.register_buffer("context_1mc", context_1mc, persistent=False)
        if context_1mc is None:
            from transformers import CLIPVisionModelWithProjection

            self.image_encoder = self.source.load(CLIPVisionModelWithProjection, "image_encoder")
            processor = self.source.config("feature_extractor", required=False)
            self.image_mean = processor.get("image_mean", _CLIP_MEAN)
            self.image_std = processor.get("image_std", _CLIP_STD)

    @override
    def sample_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> ClipNoise:
        noise = super().sample_noise(num_frames, height, width, generator)
        return noise._replace(
            conditioning_13HW=torch.randn(1, 3, height, width, generator=generator, dtype=torch.float32)
        )

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        if noise.conditioning_13HW is None:
            raise ValueError("noise.conditioning_13HW is missing: a video model's noise holds that of its first frame.")
        first_13HW = images_T3HW[:1].to(self.device)
        context_1mc = self._embed_image(first_13HW) if self.context_1mc is None else self.context_1mc
        noisy_13HW = first_13HW + self.vector_c[2] * noise.conditioning_13HW.to(first_13HW)
        latent_1chw = self._in_image_batches(
            lambda part: self.posterior(noisy_13HW[part]).mode().float(), 1, noisy_13HW[0, 0].numel()
        )
        return Conditioning(
            torch.cat([torch.zeros_like(context_1mc), context_1mc]),
            torch.tensor([self.vector_c, self.vector_c], dtype=torch.float32, device=self.device),
            torch.cat([torch.zeros_like(latent_1chw), latent_1chw]),
        )

    def _embed_image(self, image_13HW: Tensor) -> Tensor:
        self.turn_of("image_encoder")
        resized = resize_antialiased(image_13HW.float(), (_CLIP_SIZE, _CLIP_SIZE))
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (self.image_mean, self.image_std))
        pixels = ((resized + 1) / 2 - mean) / std
        embedding_1c: Tensor = self.image_encoder(pixels.to(self.image_encoder.dtype)).image_embeds
        return embedding_1c[:, None]

    # Sampling

    @override
    def set_schedule(self) -> None:
        scheduler = self.source.config("scheduler", required=False)
        bounds = (scheduler.get("sigma_min") or _SIGMA_MIN, scheduler.get("sigma_max") or _SIGMA_MAX)
        low, high = (bound ** (1 / _RHO) for bound in bounds)
        ramp = torch.linspace(0, 1, self.num_steps, dtype=torch.float64)
        self.sigmas = [*((high + ramp * (low - high)) ** _RHO).tolist(), 0.0]
        self.timesteps = [0.25 * math.log(sigma) for sigma in self.sigmas[:-1]]

    @override
    def guidance_scale(self, frames_B: Tensor, num_frames: int) -> Tensor:
        scale_T = torch.linspace(*self.guidance, num_frames, dtype=torch.float32, device=frames_B.device)
        return scale_T[frames_B][:, None, None, None]

    @override
    def decode_images(self, latents_bchw: Tensor) -> Tensor:
        # Each frame alone, as the published code does: the decoder's temporal layers then see one frame.
        images: Tensor = self.vae.decode(latents_bchw, num_frames=1).sample
        return images

    # Network

    @override
    def _bounds(self, x_Bchw: Tensor, num_frames: int) -> tuple[int, int | None]:
        """Attention over time has a batch a latent cell."""
        cells = x_Bchw[0, 0].numel()
        if x_Bchw.device.type != "cpu" and cells > MOST_ATTENTION_BATCHES:
            raise ValueError(
                f"{cells} latent cells a frame are more than the {MOST_ATTENTION_BATCHES} that attention over time "
                "takes on a GPU. Set model.input_size to something smaller."
            )
        return num_frames, num_frames * max(1, MOST_ATTENTION_BATCHES // cells)

    @property
    @override
    def injected(self) -> Mapping[Layer, tuple[Projection, ...]]:
        return {"temporal_self": ("query", "key")}

    @override
    def modulation_gain(self) -> Tensor:
        # The spatial branch carries the offset once, the temporal one, which continues from it, twice.
        mix_factor: Tensor = output_block(self.unet, self.modulation_block).time_mixer.mix_factor
        return 2.0 - mix_factor.float().sigmoid()

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        if conditioning.concat_Gchw is None or conditioning.vector_Gc is None:
            raise ValueError("a video model's conditioning must hold concat_Gchw and vector_Gc.")
        half_S = samples.half_b[::num_frames]
        concat_bchw = conditioning.concat_Gchw.to(x_bchw)[samples.half_b]
        return {
            "sample": torch.cat([x_bchw, concat_bchw], 1).unflatten(0, (-1, num_frames)),
            "timestep": torch.full((), self.timesteps[step], dtype=torch.float64, device=x_bchw.device),
            "encoder_hidden_states": conditioning.context_Gmc.to(x_bchw)[half_S],
            "added_time_ids": conditioning.vector_Gc.to(self.device)[half_S],
        }

    @override
    def block_options(
        self, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        context_bmc = conditioning.context_Gmc.to(self.device, self.unet.dtype)[samples.half_b]
        video_ST = context_bmc.new_zeros(len(context_bmc) // num_frames, num_frames)
        options = {"image_only_indicator": video_ST}
        return options, {**options, "encoder_hidden_states": context_bmc}


def resize_antialiased(images_b3HW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resize with aligned corners after a Gaussian blur, as the image encoder's training had it."""
    height, width = images_b3HW.shape[-2:]
    channels = images_b3HW.shape[1]
    blurred = images_b3HW
    for axis, factor in ((-2, height / size[0]), (-1, width / size[1])):
        sigma = max((factor - 1) / 2, 0.001)
        radius = max(int(max(2 * 2 * sigma, 3)) // 2, 1)
        taps = torch.exp(
            -((torch.arange(-radius, radius + 1, dtype=blurred.dtype, device=blurred.device) / sigma) ** 2) / 2
        )
        kernel = (taps / taps.sum()).view(-1, 1) if axis == -2 else (taps / taps.sum()).view(1, -1)
        padding = (0, 0, radius, radius) if axis == -2 else (radius, radius, 0, 0)
        padded = functional.pad(blurred, padding, mode="reflect")
        blurred = functional.conv2d(padded, kernel.expand(channels, 1, -1, -1).contiguous(), groups=channels)
    return functional.interpolate(blurred, size, mode="bicubic", align_corners=True)
