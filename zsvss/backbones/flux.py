"""FLUX.1 as a backbone.

Shape legend: b samples of one pass of the network, h w latent cells, n image tokens, m text tokens, c channels,
G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning
from zsvss.backbones.empty_prompt import check_embedding, clip_embedding, clip_widths, t5_embedding, t5_width
from zsvss.backbones.flow_matching import FlowMatching, shift_by_size
from zsvss.backbones.hooks import Seams, attention_seams
from zsvss.backbones.samples import Samples

_T5_LENGTHS = {True: 512, False: 256}  # of what is told the guidance (dev), and what is not (schnell)


class Flux(FlowMatching):
    """FLUX.1 dev or schnell: blocks of joint attention, then blocks in which text and image share all weights.

    Blocks are counted through both kinds: of the published 57, ``block.19`` is the first of the second kind. The
    network was distilled from its guidance, which it is told as a number: only the conditional half is run. In blocks
    of the second kind the modulation is added ahead of the projection that attention shares with the feed-forward
    layer, which mixes it over the channels before the gate.

    Args:
        weights: diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/`` and, for the empty prompt, a
            tokenizer and two text encoders or a ``context.safetensors`` holding ``cond`` [1, m, c] and ``pooled``
            [1, c]). The second encoder takes 19 GB of the host's memory while it is run, once.
        num_steps: steps of the whole schedule; 33 end with timesteps 240, 169 and 90 (dev); for schnell take 11,
            and ``first_step`` 8: 273, 182 and 91.
        first_step: first step that is run; masked modulation acts in it.
        told_guidance: what the network is told, where it takes a guidance (dev).
        image_tokens: tokens of an image for whose size the levels of noise are chosen; 4096 is 1024x1024.
        settings: the other ones of :class:`~zsvss.backbones.transformer.TransformerBackbone`, without ``guidance``.

    Source: "Unleashing Diffusion Transformers for Visual Correspondence by Modulating Massive Activations" (DiTF, arXiv
    2505.18584) reads block 28 at timestep 260 for semantics and block 24 at 90 for tracking; the timesteps here are the
    nearest of the schedule. `Differs from it:` the image queries are read, which lie after the adaptive norm.
    """

    pipeline = "Flux"
    needs = "FLUX.1 dev or schnell"
    parts = ("scheduler", "transformer", "vae", "tokenizer", "text_encoder", "text_encoder_2")
    network_class = "FluxTransformer2DModel"
    vae_class = "AutoencoderKL"
    lists = ("transformer_blocks", "single_transformer_blocks")
    image_index = 1
    modulated_attention = "attn"
    preferred_block: ClassVar[int] = 28
    compared_block: ClassVar[int | None] = 24
    preferred_place = "image.query"
    packed_cells = 4
    context_Gmc: Tensor
    pooled_Gc: Tensor

    def __init__(
        self,
        weights: str = "black-forest-labs/FLUX.1-dev",
        *,
        num_steps: int = 33,
        first_step: int = 30,
        told_guidance: float = 3.5,
        image_tokens: int = 4096,
        **settings: Any,
    ) -> None:
        super().__init__(weights, num_steps=num_steps, first_step=first_step, **settings)
        if self.guidance != 1:
            raise ValueError(
                f"backbone.guidance = {self.guidance}: FLUX.1 is told its guidance; set told_guidance, and leave "
                "guidance at 1."
            )
        self.told_guidance = told_guidance
        self.image_tokens = image_tokens

    @cached_property
    @override
    def num_blocks(self) -> int:
        config = self.source.config("transformer")
        return int(config["num_layers"]) + int(config["num_single_layers"])

    @cached_property
    @override
    def patch(self) -> int:
        return 2  # the config's patch size is that after the packing of 2x2 latent cells

    @cached_property
    def _num_joint(self) -> int:
        return int(self.source.config("transformer")["num_layers"])

    @override
    def seams(self, block: int) -> Seams:
        if block < self._num_joint:
            text = attention_seams("attn", prefix="add_{}_proj", output="to_add_out")
            return {"image": attention_seams("attn", has_input=True), "text": text}
        return {
            "image": attention_seams("attn", "image", output=None, has_input=True),
            "text": attention_seams("attn", "text", output=None),
        }

    # Conditioning

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        return () if self._context() else ("tokenizer", "text_encoder", "text_encoder_2")

    @override
    def check_conditioner(self) -> None:
        config = self.source.config("transformer")
        width, pooled = config.get("joint_attention_dim", 4096), config.get("pooled_projection_dim", 768)
        context = self._context()
        if context:
            check_embedding(context, {"cond": width, "pooled": pooled}, self.source.name)
            return
        first, _ = clip_widths(self.source, "text_encoder")
        second = t5_width(self.source.config("text_encoder_2"), "text_encoder_2", self.source.name)
        if (first, second) != (pooled, width):
            raise ValueError(
                f"{self.source.name}: text encoders of {first} and {second} channels do not fit the transformer, which "
                f"takes {pooled} and {width}: they are of different models."
            )

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        if not context:
            length = _T5_LENGTHS[self._is_told]
            pooled_1c = clip_embedding(self.source).pooled_1c
            context = {"cond": t5_embedding(self.source, "text_encoder_2", length=length), "pooled": pooled_1c}
        self._keep_embedding(context)

    @cached_property
    def _is_told(self) -> bool:
        """Whether the network takes its guidance as a number."""
        return bool(self.source.config("transformer").get("guidance_embeds"))

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc, self.pooled_Gc)

    # Sampling

    @override
    def schedule_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        levels = [1 - step / self.num_steps for step in range(self.num_steps)]
        return {**shift_by_size(config, self.image_tokens), "sigmas": levels}

    # Network

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        if conditioning.vector_Gc is None:
            raise ValueError("the conditioning of FLUX.1 must hold vector_Gc.")
        device, (height, width) = x_bchw.device, (side // 2 for side in x_bchw.shape[-2:])
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        timestep_b = torch.full((len(x_bchw),), self.timesteps[step] / 1000, dtype=x_bchw.dtype, device=device)
        return {
            "hidden_states": functional.pixel_unshuffle(x_bchw, 2).flatten(2).transpose(1, 2),
            "timestep": timestep_b,
            "guidance": torch.full_like(timestep_b, self.told_guidance) if self._is_told else None,
            "pooled_projections": conditioning.vector_Gc.to(x_bchw)[samples.half_b],
            "encoder_hidden_states": conditioning.context_Gmc.to(x_bchw)[samples.half_b],
            "txt_ids": torch.zeros(conditioning.context_Gmc.shape[1], 3, dtype=x_bchw.dtype, device=device),
            "img_ids": functional.pad(places, (1, 0)).to(x_bchw.dtype),
        }

    @override
    def predicted(self, output: Tensor, x_bchw: Tensor) -> Tensor:
        grid = x_bchw.shape[-2] // 2, x_bchw.shape[-1] // 2
        return functional.pixel_shuffle(output.transpose(1, 2).unflatten(2, grid), 2)
