"""Diffusers folders with small random weights in the real layouts: a megabyte, milliseconds a pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
NUM_TOKENS = 7


class Written(Mapping[type, dict[str, Any]]):
    """Class of a backbone -> settings that give it tiny weights, which are written when they are first asked for.

    Args:
        settings: of each class; ``weights`` may be a function that writes into a folder.
        folder: makes a folder by the function's name.
    """

    def __init__(self, settings: Mapping[type, dict[str, Any]], folder: Callable[[str], Path]) -> None:
        self._settings, self._folder = dict(settings), folder

    def __getitem__(self, kind: type) -> dict[str, Any]:
        settings = self._settings[kind]
        if callable(settings["weights"]):
            settings["weights"] = str(settings["weights"](self._folder(settings["weights"].__name__)))
        return dict(settings)

    def __iter__(self) -> Iterator[type]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_index(folder: Path, pipeline: str, **entries: Any) -> None:
    """``model_index.json``, of a pipeline's class and its settings."""
    write_json(folder / "model_index.json", {"_class_name": pipeline, "_diffusers_version": "0.30.0", **entries})


def write_clip_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
    vocabulary = {"!": 0, "a</w>": 1, "a": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    config = {**SPECIAL, "pad_token": pad, "model_max_length": NUM_TOKENS, "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "vocab.json", vocabulary)
    write_json(folder / "special_tokens_map.json", {**SPECIAL, "pad_token": pad})
    write_json(folder / "tokenizer_config.json", config)
    (folder / "merges.txt").write_text("#version: 0.2\n")


def write_clip_encoder(folder: Path, width: int, projection: int | None = None) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=5,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        projection_dim=projection or width,
        bos_token_id=3,
        eos_token_id=4,
        pad_token_id=0,
    )
    (CLIPTextModel if projection is None else CLIPTextModelWithProjection)(config).save_pretrained(folder)


def write_autoencoder(folder: Path, **settings: Any) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        layers_per_block=1,
        sample_size=64,
        **settings,
    )
    vae.save_pretrained(folder / "vae")


def write_sdxl(folder: Path, **settings: Any) -> Path:
    """Stable Diffusion XL's layout: three up blocks, of 3, 2 and no transformer blocks a layer."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            **{"transformer_layers_per_block": (1, 2, 3), **settings},
            attention_head_dim=(1, 2, 4),
            use_linear_projection=True,
            cross_attention_dim=16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=32,
            norm_num_groups=4,
        )
        write_autoencoder(folder, scaling_factor=0.13025, force_upcast=True)
        save_file({"cond": torch.randn(1, 4, 16), "pooled": torch.randn(1, 8)}, folder / "context.safetensors")
    unet.save_pretrained(folder / "unet")
    scheduler = {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
    }
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    return folder


def write_sdxl_prompt(folder: Path) -> None:
    """The text encoders of Stable Diffusion XL's layout, in place of their embedding."""
    (folder / "context.safetensors").unlink()
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", pad="!")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_clip_encoder(folder / "text_encoder", 6)
        write_clip_encoder(folder / "text_encoder_2", 10, 8)


def write_bk_sdm(folder: Path, num_blocks: int = 4) -> Path:
    """The layout of BK-SDM and small-sd (four up blocks of two layers) or tiny-sd (three), without a middle."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16, 16)[:num_blocks],
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",) * (num_blocks - 3),
            mid_block_type=None,
            up_block_types=("UpBlock2D",) * (num_blocks - 3) + ("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=8,
            attention_head_dim=8,
            norm_num_groups=4,
        )
        write_autoencoder(folder)
        save_file({"cond": torch.randn(1, 4, 8)}, folder / "context.safetensors")
    unet.save_pretrained(folder / "unet")
    write_json(folder / "scheduler/scheduler_config.json", {"prediction_type": "epsilon"})
    return folder


def write_t5_encoder(folder: Path, width: int, kind: str = "T5") -> None:
    """A T5 or UMT5 encoder; its vocabulary is that of transformers' tokenizer without a file."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=104, d_model=width, d_kv=4, d_ff=8, num_layers=2, num_heads=2
    )
    getattr(transformers, f"{kind}EncoderModel")(config).save_pretrained(folder)


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


def write_sd3(folder: Path) -> Path:
    """Stable Diffusion 3.5 medium's layout: joint attention, normed queries and keys, two kinds of blocks."""
    from diffusers import SD3Transformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            num_layers=4,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=24,
            caption_projection_dim=16,
            pooled_projection_dim=14,
            pos_embed_max_size=24,
            qk_norm="rms_norm",
            dual_attention_layers=(0, 1),
        )
        shaken(transformer)
        write_autoencoder(
            folder,
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        save_file({"cond": torch.randn(1, 5, 24), "pooled": torch.randn(1, 14)}, folder / "context.safetensors")
    transformer.save_pretrained(folder / "transformer")
    write_json(folder / "scheduler/scheduler_config.json", {**FLOW, "shift": 3.0})
    return folder


def shaken(transformer: torch.nn.Module) -> None:
    """Let modulations of norms and outputs, which training begins at zero, be other numbers."""
    for name, parameter in transformer.named_parameters():
        if name.endswith("bias") or "norm" in name or "table" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.3)


def write_sd3_prompt(folder: Path) -> None:
    """The three text encoders of Stable Diffusion 3's layout, in place of their embedding."""
    (folder / "context.safetensors").unlink()
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", pad="!")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_clip_encoder(folder / "text_encoder", 6, 6)
        write_clip_encoder(folder / "text_encoder_2", 10, 8)
        write_t5_encoder(folder / "text_encoder_3", 24)


def write_pixart(folder: Path, width: int = 16, **settings: Any) -> Path:
    """PixArt's layout: self- and cross-attention, variances after the prediction."""
    from diffusers import PixArtTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=width // 2,
            num_layers=4,
            cross_attention_dim=width,
            sample_size=settings.pop("sample_size", 16),
            caption_channels=12,
            **settings,
        )
        shaken(transformer)
        write_autoencoder(folder, scaling_factor=0.13025)
        save_file({"cond": torch.randn(1, 3, 12)}, folder / "context.safetensors")
    transformer.save_pretrained(folder / "transformer")
    published = {**transformer.config, "_class_name": "Transformer2DModel", "norm_type": "ada_norm_single"}
    write_json(folder / "transformer/config.json", published)
    scheduler = {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
    }
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    return folder


def write_pixart_prompt(folder: Path) -> None:
    """PixArt's text encoder, in place of its embedding."""
    (folder / "context.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_t5_encoder(folder / "text_encoder", 12)


def write_flux(folder: Path, *, told: bool = True) -> Path:
    """FLUX.1's layout: two blocks of joint attention, two of shared weights; dev's is told the guidance as a number."""
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=6,
            guidance_embeds=told,
            axes_dims_rope=(2, 2, 4),
        )
        shaken(transformer)
        write_autoencoder(
            folder,
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        save_file({"cond": torch.randn(1, 5, 12), "pooled": torch.randn(1, 6)}, folder / "context.safetensors")
    transformer.save_pretrained(folder / "transformer")
    write_json(
        folder / "scheduler/scheduler_config.json",
        {**FLOW, "shift": 3.0 if told else 1.0, "use_dynamic_shifting": told},
    )
    return folder


def write_flux_prompt(folder: Path) -> None:
    """FLUX.1's text encoders, in place of their embedding."""
    (folder / "context.safetensors").unlink()
    write_clip_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_clip_encoder(folder / "text_encoder", 6)
        write_t5_encoder(folder / "text_encoder_2", 12)


def write_cogvideox(folder: Path, **settings: Any) -> Path:
    """CogVideoX's layout, of 2B unless rotary embeddings are asked for."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=12,
            num_layers=3,
            sample_width=12,
            sample_height=8,
            sample_frames=9,
            max_text_seq_length=5,
            **settings,
        )
        shaken(transformer)
        for block in transformer.transformer_blocks:  # what one frame says to another
            torch.nn.init.normal_(block.attn1.to_v.weight, 0.0, 0.3)
            torch.nn.init.normal_(block.attn1.to_out[0].weight, 0.0, 0.3)
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(4, 4, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            sample_height=96,
            sample_width=160,
            scaling_factor=1.15258426,
        )
        save_file({"cond": torch.randn(1, 5, 12)}, folder / "context.safetensors")
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    scheduler = {
        "_class_name": "CogVideoXDDIMScheduler",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "snr_shift_scale": 3.0,
    }
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    return folder


def write_cogvideox_prompt(folder: Path) -> None:
    """CogVideoX's text encoder, in place of its embedding."""
    (folder / "context.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_t5_encoder(folder / "text_encoder", 12)


def write_wan(folder: Path) -> Path:
    """Wan 2.1's layout: self-attention over all frames, cross-attention, latents of given means and deviations."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=12,
            freq_dim=16,
            ffn_dim=16,
            num_layers=3,
            rope_max_seq_len=32,
        )
        shaken(transformer)
        vae = AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 2, 2],
            num_res_blocks=1,
            latents_mean=[-0.1, 0.2, 0.3, -0.4],
            latents_std=[0.5, 0.8, 1.1, 0.9],
        )
        save_file({"cond": torch.randn(1, 5, 12)}, folder / "context.safetensors")
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    scheduler = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}
    write_json(folder / "scheduler/scheduler_config.json", {**scheduler, "prediction_type": "flow_prediction"})
    return folder


def write_wan_prompt(folder: Path) -> None:
    """Wan's text encoder, in place of its embedding."""
    (folder / "context.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        write_t5_encoder(folder / "text_encoder", 12, "UMT5")
