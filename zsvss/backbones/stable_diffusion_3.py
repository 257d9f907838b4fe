"""Stable Diffusion 3 and 3.5 as backbones.

Shape legend: b samples of one pass of the network, m text tokens, c channels, G = 2 guidance halves (unconditional
first).
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
from zsvss.backbones.empty_prompt import check_embedding, check_t5, clip_embedding, clip_widths, t5_embedding
from zsvss.backbones.feature_places import Layer, Projection
from zsvss.backbones.flow_matching import FlowMatching, shift_by_size
from zsvss.backbones.hooks import Seam, Seams, attention_seams
from zsvss.backbones.samples import Samples

_T5_LENGTH = 256
_IMAGE_TOKENS = 4096  # of 1024x1024


class StableDiffusion3(FlowMatching):
    """Stable Diffusion 3 medium, 3.5 medium or 3.5 large: joint attention of image and text tokens.

    Block 9 is read and modulated, where image tokens attend to text as a segmentation would. Its image queries are
    clustered: after the adaptive norm and projected, they have no massive channels, which the raw output of a block
    has. The steps end at timesteps 200, 111 and 9 of the published schedule, by no source.

    Args:
        weights: diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/`` and, for the empty prompt, its
            tokenizers and text encoders, the third of which may be missing, or a ``context.safetensors`` holding
            ``cond`` [1, m, c] and ``pooled`` [1, c]). The third encoder takes 19 GB of the host's memory while it is
            run, once.
        settings: of :class:`~zsvss.backbones.transformer.TransformerBackbone`.

    Source: block 9 by Seg4Diff (arXiv 2509.18096), adaptive norm and massive channels by DiTF (arXiv 2505.18584).
    `Differs from the paper of this method:` it uses no transformer; see the base class for the modulation.
    """

    pipeline = "StableDiffusion3"
    needs = "Stable Diffusion 3 or 3.5"
    parts = (
        "scheduler",
        "transformer",
        "vae",
        "tokenizer",
        "text_encoder",
        "tokenizer_2",
        "text_encoder_2",
        "text_encoder_3",
    )
    network_class = "SD3Transformer2DModel"
    vae_class = "AutoencoderKL"
    image_index = 1
    modulated_attention = "attn"
    preferred_block: ClassVar[int] = 9
    preferred_place = "image.query"
    context_Gmc: Tensor
    pooled_Gc: Tensor

    def __init__(self, weights: str = "stabilityai/stable-diffusion-3.5-medium", **settings: Any) -> None:
        super().__init__(weights, **settings)

    @override
    def seams(self, block: int) -> Seams:
        text = attention_seams("attn", prefix="add_{}_proj", output=None)
        seams: dict[Layer, dict[Projection, Seam]] = {
            "image": attention_seams("attn", has_input=True),
            "text": text,
        }
        if block in self._dual_layers:
            seams["self"] = attention_seams("attn2", has_input=True)
        return seams

    @cached_property
    def _dual_layers(self) -> set[int]:
        """Blocks whose image tokens also attend to themselves alone."""
        return set(self.source.config("transformer").get("dual_attention_layers", ()))

    # Conditioning

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        if self._context():
            return ()
        third = ("text_encoder_3",) if self.source.config("text_encoder_3", required=False) else ()
        return ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", *third)

    @override
    def check_conditioner(self) -> None:
        config = self.source.config("transformer")
        width, pooled = config.get("joint_attention_dim", 4096), config.get("pooled_projection_dim", 2048)
        context = self._context()
        if context:
            check_embedding(context, {"cond": width, "pooled": pooled}, self.source.name)
            return
        projected = [clip_widths(self.source, part)[1] for part in ("text_encoder", "text_encoder_2")]
        if sum(projected) != pooled:
            raise ValueError(
                f"{self.source.name}: text encoders that project to {projected[0]} and {projected[1]} channels do not "
                f"fit the transformer, whose pooled_projection_dim is {pooled}: they are of different models."
            )
        if self.source.config("text_encoder_3", required=False):
            check_t5(self.source, "text_encoder_3", width, "joint_attention_dim")

    @override
    def load_conditioner(self) -> None:
        self._keep_embedding(self._context() or self._embed_empty_prompt())

    def _embed_empty_prompt(self) -> dict[str, Tensor]:
        first, second = (
            clip_embedding(self.source, part, is_projected=True) for part in ("text_encoder", "text_encoder_2")
        )
        width = self.source.config("transformer").get("joint_attention_dim", 4096)
        third_1mc = torch.zeros(1, _T5_LENGTH, width)
        if "text_encoder_3" in self.encoder_parts():
            third_1mc = t5_embedding(self.source, "text_encoder_3", length=_T5_LENGTH)
        clip_1mc = torch.cat([first.penultimate_1mc, second.penultimate_1mc], 2)
        padded_1mc = functional.pad(clip_1mc, (0, width - clip_1mc.shape[2]))
        return {
            "cond": torch.cat([padded_1mc, third_1mc], 1),
            "pooled": torch.cat([first.pooled_1c, second.pooled_1c], 1),
        }

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc, self.pooled_Gc)

    # Sampling

    @override
    def schedule_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return dict(shift_by_size(config, _IMAGE_TOKENS))

    # Network

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        if conditioning.vector_Gc is None:
            raise ValueError("the conditioning of Stable Diffusion 3 must hold vector_Gc.")
        return {
            "hidden_states": x_bchw,
            "timestep": torch.full((len(x_bchw),), self.timesteps[step], dtype=torch.float32, device=x_bchw.device),
            "encoder_hidden_states": conditioning.context_Gmc.to(x_bchw)[samples.half_b],
            "pooled_projections": conditioning.vector_Gc.to(x_bchw)[samples.half_b],
        }
