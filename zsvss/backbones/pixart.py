"""PixArt as a backbone.

Shape legend: b samples of one pass of the network, h w latent cells, m text tokens, c channels, G = 2 guidance halves
(unconditional first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Conditioning
from zsvss.backbones.empty_prompt import t5_embedding
from zsvss.backbones.hooks import Seams, attention_seams
from zsvss.backbones.samples import Samples
from zsvss.backbones.schedule import check_kind, trailing_timesteps, training_sigmas
from zsvss.backbones.t5_prompt import T5Prompted


class PixArt(T5Prompted):
    """PixArt-alpha and PixArt-Sigma: a transformer with self- and cross-attention on Stable Diffusion's kind of noise.

    Its schedule is Stable Diffusion's, with the betas of its own scheduler. The self-attention of the middle block is
    read and modulated, by no more than analogy.

    Args:
        weights: diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/`` and, for the empty prompt,
            ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c]). The text encoder takes 19 GB of
            the host's memory while it is run, once.
        num_steps: steps of the whole schedule; 20 end at timestep 49.
        first_step: first step that is run; masked modulation acts in it.
        settings: the other ones of :class:`~zsvss.backbones.transformer.TransformerBackbone`.
    """

    pipeline = "PixArt"
    needs = "PixArt-alpha or PixArt-Sigma"
    parts = ("scheduler", "transformer", "vae", "text_encoder")
    network_class = "PixArtTransformer2DModel"
    vae_class = "AutoencoderKL"
    modulated_attention = "attn1"
    preferred_block: ClassVar[int] = 14
    preferred_place = "self.query"
    prompt_width = ("caption_channels", 0)

    def __init__(
        self,
        weights: str = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        *,
        num_steps: int = 20,
        first_step: int = 17,
        **settings: Any,
    ) -> None:
        super().__init__(weights, num_steps=num_steps, first_step=first_step, **settings)

    @override
    def seams(self, block: int) -> Seams:
        return {"self": attention_seams("attn1", has_input=True), "cross": attention_seams("attn2")}

    # Conditioning

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        # Padding is masked in the network, so that of the empty prompt only its end is seen.
        cond_1mc = context["cond"] if context else t5_embedding(self.source, length=1, is_masked=True)
        self._keep_embedding({"cond": cond_1mc})

    # Sampling

    @override
    def set_schedule(self) -> None:
        scheduler, place = self.source.config("scheduler"), f"{self.source.name}/scheduler"
        check_kind(scheduler, place)
        if scheduler.get("prediction_type", "epsilon") != "epsilon":
            raise ValueError(f"{place}: prediction_type must be 'epsilon', as in all of PixArt.")
        self.prediction_type = "epsilon"
        sigmas = training_sigmas({"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, **scheduler}, place)
        self.timesteps = trailing_timesteps(self.num_steps, len(sigmas))
        self.sigmas = [*sigmas[self.timesteps].tolist(), 0.0]

    # Network

    @override
    def network_inputs(
        self, x_bchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        return {
            "hidden_states": x_bchw,
            "timestep": torch.full((len(x_bchw),), self.timesteps[step], device=x_bchw.device),
            "encoder_hidden_states": conditioning.context_Gmc.to(x_bchw)[samples.half_b],
            "added_cond_kwargs": self._told(x_bchw) if self.transformer.use_additional_conditions else {},
        }

    def _told(self, x_bchw: Tensor) -> Mapping[str, Tensor]:
        """Size and shape of the frames, which some of these networks are told."""
        height, width = (side * self.latent_stride for side in x_bchw.shape[-2:])
        ones_b1 = torch.ones_like(x_bchw[:, 0, 0, :1])
        resolution_b2 = torch.cat([height * ones_b1, width * ones_b1], 1)
        return {"resolution": resolution_b2, "aspect_ratio": height / width * ones_b1}

    @override
    def predicted(self, output: Tensor, x_bchw: Tensor) -> Tensor:
        return output[:, : x_bchw.shape[1]]  # after them, variances
