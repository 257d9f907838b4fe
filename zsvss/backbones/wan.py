"""Wan 2.1 as a video backbone.

Shape legend: b samples of one pass, S sequences, L latent frames, h w latent cells, m text tokens, c channels,
G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Conditioning
from zsvss.backbones.empty_prompt import t5_embedding
from zsvss.backbones.flow_matching import FlowMatching
from zsvss.backbones.hooks import Seams, attention_seams
from zsvss.backbones.samples import Samples
from zsvss.backbones.t5_prompt import T5Prompted
from zsvss.backbones.video_transformer import VideoTransformer

_TEXT_LENGTH = 512


class Wan(VideoTransformer, FlowMatching, T5Prompted):
    """Wan 2.1 from text, of 1.3 or 14 billion parameters: the frames of a clip are denoised together.

    Self-attention reaches over all frames. The middle block of the smaller one is read and modulated, by no more than
    analogy. Steps are Euler's, on the levels that the published scheduler takes, which is of a higher order. They end
    at timesteps 267, 190 and 103, which have about the share of noise of the paper's with Stable Diffusion.

    Args:
        weights: diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/`` and, for the empty prompt,
            ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c]). The text encoder takes 23 GB of
            the host's memory while it is run, once.
        settings: of :class:`~zsvss.backbones.transformer.TransformerBackbone`.
    """

    pipeline = "Wan"
    needs = "Wan 2.1, from text"
    parts = ("scheduler", "transformer", "vae", "text_encoder")
    network_class = "WanTransformer3DModel"
    vae_class = "AutoencoderKLWan"
    lists = ("blocks",)
    modulated_attention = "attn1"
    preferred_block: ClassVar[int] = 15
    preferred_place = "self.query"
    prompt_width = ("text_dim", 4096)
    _mean_and_std: Tensor | None = None

    def __init__(self, weights: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", **settings: Any) -> None:
        super().__init__(weights, **settings)

    @override
    def seams(self, block: int) -> Seams:
        return {"self": attention_seams("attn1", has_input=True), "cross": attention_seams("attn2")}

    @cached_property
    @override
    def patch(self) -> int:
        return int(self.source.config("transformer").get("patch_size", (1, 2, 2))[1])

    @override
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        super().check_network(config, vae)
        second = self.source.pipeline().get("transformer_2") or [None]
        if second[0] is not None or vae.get("patch_size") is not None:
            raise ValueError(f"{self.source.name} is Wan 2.2; Wan needs {self.needs}.")
        for key in ("image_dim", "added_kv_proj_dim"):
            if config.get(key) is not None:
                raise ValueError(
                    f"{self.source.name}/transformer: {key} = {config[key]} must be null: the network also takes an "
                    f"image. Wan needs {self.needs}."
                )

    # Images and latents

    @cached_property
    @override
    def latent_stride(self) -> int:
        return int(self.source.config("vae").get("scale_factor_spatial", 8))

    @property
    @override
    def latent_channels(self) -> int:
        return int(self.source.config("vae").get("z_dim", 16))

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' channels [c, 1, 1], float32, on a tensor's device."""
        if self._mean_and_std is None or self._mean_and_std.device != like.device:
            numbers = [self.vae.config.latents_mean, self.vae.config.latents_std]
            self._mean_and_std = torch.tensor(numbers, dtype=torch.float32, device=like.device)[..., None, None]
        mean_c11, std_c11 = self._mean_and_std
        return mean_c11, std_c11

    @override
    def normalized(self, latents_Lchw: Tensor) -> Tensor:
        mean_c11, std_c11 = self._statistics(latents_Lchw)
        return (latents_Lchw - mean_c11) / std_c11

    @override
    def denormalized(self, latents_SLchw: Tensor) -> Tensor:
        mean_c11, std_c11 = self._statistics(latents_SLchw)
        return latents_SLchw * std_c11 + mean_c11

    # Conditioning

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        if context:
            cond_1mc = context["cond"]
        else:  # after the end of the prompt there are zeros, which the network sees
            end_1mc = t5_embedding(self.source, length=1, is_masked=True)
            cond_1mc = functional.pad(end_1mc, (0, 0, 0, _TEXT_LENGTH - end_1mc.shape[1]))
        self._keep_embedding({"cond": cond_1mc})

    # Sampling

    @override
    def flow_config(self, config: Mapping[str, Any], place: str) -> Mapping[str, Any]:
        if not config.get("use_flow_sigmas"):
            return super().flow_config(config, place)
        if config.get("use_dynamic_shifting"):
            raise ValueError(f"{place}: use_dynamic_shifting must be false, as in all of Wan 2.1.")
        return {"shift": config.get("flow_shift", 1.0), "num_train_timesteps": config.get("num_train_timesteps", 1000)}

    @override
    def schedule_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if not config.get("use_flow_sigmas"):
            return {}
        # Without them, the scheduler of Euler steps begins and ends at levels that are shifted, and shifts them again.
        return {"sigmas": np.linspace(1, 1 / config.get("num_train_timesteps", 1000), self.num_steps + 1)[:-1]}

    # Network

    @override
    def network_inputs(
        self, x_SLchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        number_S = torch.full((len(x_SLchw),), self.timesteps[step], dtype=torch.float32, device=x_SLchw.device)
        return {
            "hidden_states": x_SLchw.transpose(1, 2),
            "timestep": number_S,
            "encoder_hidden_states": conditioning.context_Gmc.to(x_SLchw)[samples.half_b[::num_frames]],
        }

    @override
    def predicted(self, output: Tensor, x_bchw: Tensor) -> Tensor:
        return output.transpose(1, 2)
