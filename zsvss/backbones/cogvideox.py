"""CogVideoX as a video backbone.

Shape legend: b samples of one pass, S sequences, L latent frames, h w latent cells, m text tokens, c channels,
G = 2 guidance halves (unconditional first).
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
from zsvss.backbones.schedule import SMALLEST_ALPHA, trailing_timesteps
from zsvss.backbones.t5_prompt import T5Prompted
from zsvss.backbones.video_transformer import VideoTransformer

_T5_LENGTH = 226


class CogVideoX(VideoTransformer, T5Prompted):
    """CogVideoX 2B or 5B: the frames of a clip are denoised together, by joint attention with the text.

    The queries of block 17 are clustered; over time, they are compared with its keys. The network predicts velocities;
    guidance is none by default.

    Args:
        weights: diffusers folder or hub id (``transformer/``, ``vae/``, ``scheduler/`` and, for the empty prompt,
            ``text_encoder/`` or a ``context.safetensors`` holding ``cond`` [1, m, c]). The text encoder takes 19 GB of
            the host's memory while it is run, once.
        num_steps: steps of the whole schedule; 20 end at timestep 49.
        first_step: first step that is run; masked modulation acts in it.
        settings: the other ones of :class:`~zsvss.backbones.transformer.TransformerBackbone`.

    Source: layer 17 by DiffTrack (arXiv 2506.17220), which finds that queries and keys match better over time than
    features do. `Differs from it:` frames are denoised from the noise of their own latents, at other timesteps; queries
    and keys are not rotated (5B); and hops are matched in one direction.
    """

    pipeline = "CogVideoX"
    needs = "CogVideoX 1.0, from text"
    parts = ("scheduler", "transformer", "vae", "text_encoder")
    network_class = "CogVideoXTransformer3DModel"
    vae_class = "AutoencoderKLCogVideoX"
    latents_at_once = 2  # which the autoencoder decodes together, after an odd first one
    image_index = 0
    modulated_attention = "attn1"
    preferred_block: ClassVar[int] = 17
    preferred_place = "image.query"
    matched_places = ("image.normed_query", "image.normed_key")
    prompt_width = ("text_embed_dim", 4096)

    def __init__(
        self, weights: str = "zai-org/CogVideoX-2b", *, num_steps: int = 20, first_step: int = 17, **settings: Any
    ) -> None:
        super().__init__(weights, num_steps=num_steps, first_step=first_step, **settings)

    @override
    def seams(self, block: int) -> Seams:
        image = attention_seams("attn1", "image", has_input=True, has_norms=True)
        return {"image": image, "text": attention_seams("attn1", "text")}

    @override
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        super().check_network(config, vae)
        if config.get("patch_size_t") is not None:
            raise ValueError(
                f"{self.source.name}/transformer: patch_size_t = {config['patch_size_t']} must be null: this is "
                "CogVideoX 1.5, whose tokens join latent frames."
            )

    # Latents

    @override
    def normalized(self, latents_Lchw: Tensor) -> Tensor:
        return latents_Lchw * float(self.vae.config.scaling_factor)

    @override
    def denormalized(self, latents_SLchw: Tensor) -> Tensor:
        return latents_SLchw / float(self.vae.config.scaling_factor)

    # Conditioning

    @override
    def load_conditioner(self) -> None:
        context = self._context()
        length = int(self.source.config("transformer").get("max_text_seq_length", _T5_LENGTH))
        cond_1mc = context["cond"] if context else t5_embedding(self.source, length=length)
        self._keep_embedding({"cond": cond_1mc})

    # Sampling

    @override
    def set_schedule(self) -> None:
        from diffusers import CogVideoXDDIMScheduler

        config, place = self.source.config("scheduler"), f"{self.source.name}/scheduler"
        if config.get("prediction_type") != "v_prediction":
            raise ValueError(f"{place}: prediction_type must be 'v_prediction', as in all of CogVideoX.")
        self.prediction_type = "v_prediction"
        alphas = CogVideoXDDIMScheduler.from_config(config).alphas_cumprod.double().clamp(min=SMALLEST_ALPHA)
        self.timesteps = trailing_timesteps(self.num_steps, len(alphas))
        self.sigmas = [*((1 - alphas) / alphas).sqrt()[self.timesteps].tolist(), 0.0]

    # Network

    @override
    def network_inputs(
        self, x_SLchw: Tensor, step: int, conditioning: Conditioning, samples: Samples, num_frames: int
    ) -> dict[str, Any]:
        return {
            "hidden_states": x_SLchw,
            "timestep": torch.full((len(x_SLchw),), self.timesteps[step], device=x_SLchw.device),
            "encoder_hidden_states": conditioning.context_Gmc.to(x_SLchw)[samples.half_b[::num_frames]],
            "image_rotary_emb": self._rotation(x_SLchw),
        }

    def _rotation(self, x_SLchw: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rotary embedding of the places of all tokens; ``None`` where places are added to the tokens (2B)."""
        config = self.transformer.config
        if not config.use_rotary_positional_embeddings:
            return None
        from diffusers.models.embeddings import get_3d_rotary_pos_embed
        from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

        grid = tuple(side // self.patch for side in x_SLchw.shape[-2:])
        base = config.sample_width // self.patch, config.sample_height // self.patch
        rotation: tuple[Tensor, Tensor] = get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, *base),
            grid_size=grid,
            temporal_size=x_SLchw.shape[1],
            device=x_SLchw.device,
        )
        return rotation
