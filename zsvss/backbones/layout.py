"""The layout of Stable Diffusion's U-Net and the paper's numbering of its output blocks.

Output blocks 0..11 count from the bottleneck up, three per up block: block i is layer ``i % 3`` of up block ``i // 3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NUM_UP_BLOCKS = 4
LAYERS_PER_UP_BLOCK = 3
NUM_BLOCKS = NUM_UP_BLOCKS * LAYERS_PER_UP_BLOCK


def output_block(unet: Any, block: int) -> Any:
    """Output block ``block``: its transformer, or its residual block where it has no attention."""
    i, j = divmod(block, LAYERS_PER_UP_BLOCK)
    up_block = unet.up_blocks[i]
    return (up_block.attentions if has_attention(up_block) else up_block.resnets)[j]


def has_attention(up_block: Any) -> bool:
    """Whether the layers of an up block have transformers."""
    return bool(getattr(up_block, "has_cross_attention", False))


def blocks_with_attention(up_block_types: Iterable[str]) -> list[int]:
    """Output blocks that have attention, by the up blocks' class names.

    >>> blocks_with_attention(["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"])
    [3, 4, 5, 6, 7, 8]
    """
    return [
        LAYERS_PER_UP_BLOCK * i + j
        for i, kind in enumerate(up_block_types)
        for j in range(LAYERS_PER_UP_BLOCK)
        if kind.startswith("CrossAttn")
    ]


def token_grid(block: int, latent_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an output block's token grid.

    >>> token_grid(7, (56, 104))
    (28, 52)
    """
    stride = 2 ** (NUM_UP_BLOCKS - 1 - block // LAYERS_PER_UP_BLOCK)
    return latent_size[0] // stride, latent_size[1] // stride


def check_layout(config: Mapping[str, Any], class_name: str, place: str) -> None:
    """Refuse a U-Net of another kind.

    Args:
        config: the U-Net's config.
        class_name: the diffusers class that is wanted.
        place: where the config comes from, for the message.

    Raises:
        ValueError: saying what was found and what is needed.
    """
    found = (config.get("_class_name"), len(config.get("up_block_types", ())), config.get("layers_per_block"))
    wanted = (class_name, NUM_UP_BLOCKS, LAYERS_PER_UP_BLOCK - 1)
    if found != wanted:
        raise ValueError(
            f"{place} is a {found[0]} with {found[1]} up blocks and layers_per_block {found[2]}; this backbone needs a "
            f"{wanted[0]} with {wanted[1]} and {wanted[2]}. UNet2DConditionModel is for StableDiffusion (1.x, 2.x), "
            "UNetSpatioTemporalConditionModel for StableVideoDiffusion."
        )
