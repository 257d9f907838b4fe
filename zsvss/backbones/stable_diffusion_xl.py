"""Stable Diffusion XL as a backbone, with its distillates of other depths.

Shape legend: T frames of a clip, b samples of one pass of the network, H W pixels, m context tokens, c channels,
G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning
from zsvss.backbones.empty_prompt import clip_embedding, clip_widths
from zsvss.backbones.feature_places import FeaturePlaces
from zsvss.backbones.samples import Samples
from zsvss.backbones.stable_diffusion import StableDiffusion

_NUM_TIME_IDS = 6


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: base, Turbo, SSD-1B, Playground v2 and other U-Nets of its kind.

    Up blocks may have any number of layers, and these any number of transformer blocks: attention is injected into all
    of them. The network is also told the size of the frames and the pooled embedding of the empty prompt; the
    unconditional half gets zeros for both embeddings, as in diffusers' pipeline. The autoencoder's config decides
    whether it decodes in float32 (``force_upcast``); with the weights of its "fp16 fix" in ``vae/`` it need not.

    Args:
        weights: diffusers folder or hub id (``unet/``, ``vae/``, ``scheduler/`` and, for the empty prompt, two
            tokenizers and text encoders or a ``context.safetensors`` holding ``cond`` [1, m, c] and ``pooled`` [1, c]).
        num_steps: steps of the whole schedule; 20 end at timestep 49.
        first_step: first step that is run; masked modulation acts in it.
        settings: the other ones of :class:`StableDiffusion`. Blocks have names: ``modulation_block`` is ``up.1.attn.1``
            unless another is chosen.

    Source: the default places are among those of "Not All Diffusion Model Activations Have Been Evaluated as
    Discriminative Features" (arXiv 2410.03558), which reads timestep 50; the others are ``up.0.attn.0.block.5:output``,
    ``up.0.attn.0.block.7:output`` and ``up.1.attn.0.block.0:output``. `Differs from the paper of this method:` it uses
    no such network.
    """

    pipeline = "StableDiffusionXL"
    needs = "Stable Diffusion XL"
    parts: ClassVar[tuple[str, ...]] = (
        "scheduler",
        "unet",
        "vae",
        "tokenizer",
        "text_encoder",
        "tokenizer_2",
        "text_encoder_2",
    )
    given = ("addition_embed_type",)
    pooled_Gc: Tensor

    def __init__(
        self,
        weights: str = "stabilityai/stable-diffusion-xl-base-1.0",
        *,
        num_steps: int = 20,
        first_step: int = 17,
        **settings: Any,
    ) -> None:
        super().__init__(weights, num_steps=num_steps, first_step=first_step, **settings)

    @cached_property
    @override
    def places(self) -> FeaturePlaces:
        half = self.layout.half_resolution
        query = [f"{self.layout.name(half[0])}.block.0:cross.query"] if half else []
        return self.layout.places(self.read_of_layer, query, query)

    @override
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        super().check_network(config, vae)
        kind = config.get("addition_embed_type")
        if kind != "text_time":
            raise ValueError(
                f"{self.source.name}/unet: addition_embed_type = {kind!r} must be 'text_time', as in all of Stable "
                "Diffusion XL."
            )

    # Conditioning

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        return () if self._context() else ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")

    @property
    def _pooled_width(self) -> int:
        """Width of the pooled embedding, by the network's config."""
        config = self.source.config("unet")
        told: int = _NUM_TIME_IDS * config["addition_time_embed_dim"]
        return int(config["projection_class_embeddings_input_dim"]) - told

    @override
    def check_conditioner(self) -> None:
        width = self.source.config("unet")["cross_attention_dim"]
        context = self._context()
        if context:
            found = tuple(context["pooled"].shape) if "pooled" in context else None
            if found != (1, self._pooled_width):
                raise ValueError(
                    f"{self.source.name}/context.safetensors must hold 'pooled' of shape [1, {self._pooled_width}]; "
                    f"found {found}."
                )
            return
        first, _ = clip_widths(self.source, "text_encoder")
        second, projected = clip_widths(self.source, "text_encoder_2")
        if first + second != width or projected != self._pooled_width:
            raise ValueError(
                f"{self.source.name}: text encoders of {first} and {second} channels and a projection to {projected} "
                f"do not fit the network, which takes {width} and {self._pooled_width}: they are of different models, "
                "or this is a refiner."
            )

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        if not context:
            first = clip_embedding(self.source, "text_encoder")
            second = clip_embedding(self.source, "text_encoder_2", is_projected=True)
            context = {
                "cond": torch.cat([first.penultimate_1mc, second.penultimate_1mc], 2),
                "pooled": second.pooled_1c,
            }
        self._keep_embedding(context)

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        height, width = images_T3HW.shape[-2:]
        # Original size, upper left corner, and size.
        times = [float(number) for number in (height, width, 0, 0, height, width)]
        times_G6 = torch.tensor([times, times], dtype=torch.float32, device=self.device)
        return Conditioning(self.context_Gmc, torch.cat([self.pooled_Gc.float(), times_G6], 1))

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        inputs = super().network_inputs(x_bchw, step, conditioning, samples, num_frames)
        if conditioning.vector_Gc is None:
            raise ValueError("the conditioning of Stable Diffusion XL must hold vector_Gc.")
        vector_bc = conditioning.vector_Gc.to(x_bchw.device)[samples.half_b]
        pooled_bc, times_b6 = vector_bc[:, :-_NUM_TIME_IDS], vector_bc[:, -_NUM_TIME_IDS:]
        return {**inputs, "added_cond_kwargs": {"text_embeds": pooled_bc.to(x_bchw.dtype), "time_ids": times_b6}}
