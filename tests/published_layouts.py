"""The configs of published models, as far as they differ: the table of ``docs/models.md`` is tested on them."""

from __future__ import annotations

from typing import Any

Layout = dict[str, dict[str, Any]]

_KL = {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [128, 256, 512, 512]}
_CLIP_L = {"model_type": "clip_text_model", "hidden_size": 768, "projection_dim": 768, "max_position_embeddings": 77}
_OPEN_CLIP_H = {**_CLIP_L, "hidden_size": 1024}
_OPEN_CLIP_G = {**_CLIP_L, "hidden_size": 1280, "projection_dim": 1280}
_TOKENIZER = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
_SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def index(pipeline: str, **settings: Any) -> Layout:
    """A model of which only the pipeline is told."""
    return {"model_index.json": {"_class_name": pipeline, **settings}}


def stable_diffusion(
    unet: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    pipeline: str = "StableDiffusionPipeline",
    encoder: dict[str, Any] = _CLIP_L,
) -> Layout:
    """Stable Diffusion, and how it differs."""
    down = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    network = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": down,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": encoder["hidden_size"],
    }
    return {
        **index(pipeline),
        "unet/config.json": {**network, **(unet or {})},
        "vae/config.json": {**_KL, "scaling_factor": 0.18215},
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", **_SCALED, **(scheduler or {})},
        "text_encoder/config.json": encoder,
        "tokenizer/tokenizer_config.json": _TOKENIZER,
    }


def xl(
    unet: dict[str, Any] | None = None, scheduler: dict[str, Any] | None = None, vae: dict[str, Any] | None = None
) -> Layout:
    """Stable Diffusion XL, and how it differs."""
    told = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", **(scheduler or {})}
    own = {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    return {
        **stable_diffusion({**own, **(unet or {})}, told, "StableDiffusionXLPipeline"),
        "vae/config.json": {**_KL, "scaling_factor": 0.13025, "force_upcast": True, **(vae or {})},
        "text_encoder_2/config.json": _OPEN_CLIP_G,
        "tokenizer_2/tokenizer_config.json": _TOKENIZER,
    }


def video() -> Layout:
    """Stable Video Diffusion."""
    network = {
        "_class_name": "UNetSpatioTemporalConditionModel",
        "in_channels": 8,
        "out_channels": 4,
        "layers_per_block": 2,
        "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 3,
        "transformer_layers_per_block": 1,
        "cross_attention_dim": 1024,
    }
    scheduler = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "sigma_max": 700.0}
    return {
        **index("StableVideoDiffusionPipeline"),
        "unet/config.json": network,
        "vae/config.json": {**_KL, "_class_name": "AutoencoderKLTemporalDecoder", "scaling_factor": 0.18215},
        "scheduler/scheduler_config.json": scheduler,
        "image_encoder/config.json": {"projection_dim": 1024},
    }


_T5 = {"model_type": "t5", "d_model": 4096}
_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
_KL_16 = {**_KL, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False}


def transformer(pipeline: str, network: dict[str, Any], scheduler: dict[str, Any], vae: dict[str, Any]) -> Layout:
    """A transformer, without text encoders."""
    return {
        **index(pipeline),
        "transformer/config.json": network,
        "vae/config.json": vae,
        "scheduler/scheduler_config.json": scheduler,
    }


def pixart(pipeline: str, scaling_factor: float, **entries: Any) -> Layout:
    """PixArt-alpha or PixArt-Sigma."""
    network = {
        "_class_name": "Transformer2DModel",
        "norm_type": "ada_norm_single",
        "num_layers": 28,
        "in_channels": 4,
        "out_channels": 8,
        "patch_size": 2,
        "sample_size": 128,
        "caption_channels": 4096,
        **entries,
    }
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear", "prediction_type": "epsilon"}
    layout = transformer(pipeline, network, scheduler, {**_KL, "scaling_factor": scaling_factor})
    return {**layout, "text_encoder/config.json": _T5}


def sd3(**network: Any) -> Layout:
    """Stable Diffusion 3 or 3.5."""
    own = {
        "_class_name": "SD3Transformer2DModel",
        "num_layers": 24,
        "in_channels": 16,
        "patch_size": 2,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 2048,
    }
    return {
        **transformer("StableDiffusion3Pipeline", {**own, **network}, _FLOW, _KL_16),
        "text_encoder/config.json": _CLIP_L,
        "tokenizer/tokenizer_config.json": _TOKENIZER,
        "text_encoder_2/config.json": _OPEN_CLIP_G,
        "tokenizer_2/tokenizer_config.json": _TOKENIZER,
        "text_encoder_3/config.json": _T5,
    }


def flux(*, told: bool) -> Layout:
    """FLUX.1."""
    network = {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": 19,
        "num_single_layers": 38,
        "in_channels": 64,
        "patch_size": 1,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": told,
    }
    scheduler = {**_FLOW, "shift": 3.0 if told else 1.0, "use_dynamic_shifting": told}
    return {
        **transformer("FluxPipeline", network, scheduler, _KL_16),
        "text_encoder/config.json": _CLIP_L,
        "tokenizer/tokenizer_config.json": _TOKENIZER,
        "text_encoder_2/config.json": _T5,
    }


def cogvideox(**network: Any) -> Layout:
    """CogVideoX."""
    own = {"_class_name": "CogVideoXTransformer3DModel", "num_layers": 30, "in_channels": 16, "patch_size": 2}
    vae = {
        "_class_name": "AutoencoderKLCogVideoX",
        "latent_channels": 16,
        "block_out_channels": [128, 256, 256, 512],
        "scaling_factor": 1.15258426,
    }
    scheduler = {"_class_name": "CogVideoXDDIMScheduler", **_SCALED, "prediction_type": "v_prediction"}
    layout = transformer("CogVideoXPipeline", {**own, **network}, scheduler, vae)
    return {**layout, "text_encoder/config.json": _T5}


def wan(**entries: Any) -> Layout:
    """Wan."""
    network = {"_class_name": "WanTransformer3DModel", "num_layers": 30, "in_channels": 16, "patch_size": [1, 2, 2]}
    scheduler = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}
    layout = transformer("WanPipeline", network, scheduler, {"_class_name": "AutoencoderKLWan", "z_dim": 16})
    return {**layout, **index("WanPipeline", **entries), "text_encoder/config.json": {**_T5, "model_type": "umt5"}}


_BK = {"layers_per_block": 1, "mid_block_type": None}
_TINY = {
    **_BK,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
}
_SSD = {
    "transformer_layers_per_block": [0, 2, 4],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
EPSILON, V = {"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}
_TRAILING = {"_class_name": "EulerDiscreteScheduler", **EPSILON, "timestep_spacing": "trailing"}
_EDM = {"_class_name": "EDMDPMSolverMultistepScheduler", **EPSILON}

# Name in the table -> configs, and settings that it needs.
LAYOUTS: dict[str, tuple[Layout, dict[str, Any]]] = {
    "Stable Diffusion 1.4": (stable_diffusion(), EPSILON),
    "Stable Diffusion 1.5": (stable_diffusion(), EPSILON),
    "Stable Diffusion 2.1-base": (stable_diffusion(None, EPSILON, encoder=_OPEN_CLIP_H), {}),
    "Stable Diffusion 2.1": (stable_diffusion(None, V, encoder=_OPEN_CLIP_H), {}),
    "SD-Turbo": (stable_diffusion(None, _TRAILING, encoder=_OPEN_CLIP_H), {"guidance": 1}),
    "LCM Dreamshaper v7": (index("LatentConsistencyModelPipeline"), {}),
    "Stable Diffusion inpainting": (index("StableDiffusionInpaintPipeline"), {}),
    "Stable Diffusion 2 depth": (index("StableDiffusionDepth2ImgPipeline"), {}),
    "Stable Diffusion XL base": (xl(), {}),
    "SDXL-Turbo": (xl(None, {**_TRAILING, "_class_name": "EulerAncestralDiscreteScheduler"}), {"guidance": 1}),
    "SSD-1B": (xl(_SSD), {}),
    "Playground v2": (xl(), {}),
    "Playground v2.5": (
        xl(None, _EDM, {"latents_mean": [-1.6, 1.1, 1.3, -6.9], "latents_std": [8.4, 9.0, 7.7, 9.9]}),
        {},
    ),
    "tiny-sd": (stable_diffusion(_TINY, EPSILON), {}),
    "small-sd": (stable_diffusion(_BK, EPSILON), {}),
    "BK-SDM": (stable_diffusion(_BK, EPSILON), {}),
    "Stable Video Diffusion": (video(), {}),
    "Stable Video Diffusion XT": (video(), {}),
    "AnimateDiff": (index("AnimateDiffPipeline"), {}),
    "PixArt-alpha": (pixart("PixArtAlphaPipeline", 0.18215), {}),
    "PixArt-Sigma": (pixart("PixArtSigmaPipeline", 0.13025, use_additional_conditions=False), {}),
    "Stable Diffusion 3 medium": (sd3(), {}),
    "Stable Diffusion 3.5 medium": (sd3(dual_attention_layers=list(range(13)), qk_norm="rms_norm"), {}),
    "Stable Diffusion 3.5 large": (sd3(num_layers=38, qk_norm="rms_norm"), {}),
    "FLUX.1 dev": (flux(told=True), {}),
    "FLUX.1 schnell": (flux(told=False), {}),
    "FLUX.1 Fill dev": (index("FluxFillPipeline"), {}),
    "FLUX.2 dev": (index("Flux2Pipeline"), {}),
    "SANA": (index("SanaPipeline"), {}),
    "Wan2.1 T2V 1.3B": (wan(), {}),
    "Wan2.1 I2V 14B": (index("WanImageToVideoPipeline"), {}),
    "Wan2.2 T2V A14B": (wan(transformer_2=["diffusers", "WanTransformer3DModel"]), {}),
    "CogVideoX-2B": (cogvideox(), {}),
    "CogVideoX-5B": (cogvideox(num_layers=42, use_rotary_positional_embeddings=True), {}),
    "CogVideoX1.5-5B": (cogvideox(num_layers=42, patch_size_t=2), {}),
    "LTX-Video": (index("LTXPipeline"), {}),
    "HunyuanVideo": (index("HunyuanVideoPipeline"), {}),
    "Hunyuan-DiT": (index("HunyuanDiTPipeline"), {}),
}
