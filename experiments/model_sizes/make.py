"""Parameters of published models, and the memory of their weights in bfloat16, computed from their configs alone.

    python -m experiments.model_sizes.make

The networks are built on the meta device, which holds no numbers: nothing is downloaded, and it takes seconds. The
settings are those of the models' ``config.json``, as far as they differ from what the diffusers class defaults to.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch

_XL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD3: dict[str, Any] = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Stable Diffusion 2.1": (
        "UNet2DConditionModel",
        {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
    ),
    "Stable Diffusion XL": ("UNet2DConditionModel", {**_XL, "transformer_layers_per_block": (1, 2, 10)}),
    "PixArt-Sigma XL 2 1024": (
        "PixArtTransformer2DModel",
        {"caption_channels": 4096, "use_additional_conditions": False},
    ),
    "Stable Diffusion 3 medium": ("SD3Transformer2DModel", {**_SD3, "pos_embed_max_size": 192}),
    "Stable Diffusion 3.5 medium": (
        "SD3Transformer2DModel",
        {**_SD3, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))},
    ),
    "Stable Diffusion 3.5 large": (
        "SD3Transformer2DModel",
        {
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
    ),
    "FLUX.1 dev": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "CogVideoX-2B": ("CogVideoXTransformer3DModel", {}),
    "CogVideoX-5B": (
        "CogVideoXTransformer3DModel",
        {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True},
    ),
    "Wan2.1 T2V 1.3B": (
        "WanTransformer3DModel",
        {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    ),
}
AUTOENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "of Stable Diffusion, XL, PixArt": ("AutoencoderKL", {}),
    "of Stable Diffusion 3, FLUX.1": (
        "AutoencoderKL",
        {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    ),
    "of CogVideoX": ("AutoencoderKLCogVideoX", {}),
    "of Wan2.1": ("AutoencoderKLWan", {}),
}
_KL: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def num_parameters(kind: str, settings: dict[str, Any]) -> int:
    """Parameters of a diffusers network with these settings."""
    defaults = _KL if kind == "AutoencoderKL" else {}
    with torch.device("meta"):
        network = getattr(diffusers, kind)(**{**defaults, **settings})
    return sum(parameter.numel() for parameter in network.parameters())


def main() -> None:
    """Print one row a network."""
    print("| network | million parameters | GiB in bfloat16 |\n|---|--:|--:|")
    for name, (kind, settings) in {**NETWORKS, **{f"autoencoder {k}": v for k, v in AUTOENCODERS.items()}}.items():
        count = num_parameters(kind, settings)
        print(f"| {name} | {count / 1e6:,.0f} | {2 * count / 2**30:.1f} |")


if __name__ == "__main__":
    main()
