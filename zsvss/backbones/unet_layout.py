"""The layout of a U-Net's up blocks, in which features are read and attention is edited.

Output blocks count from the bottleneck up: they are the layers of the first up block, then those of the second, and so
on. In Stable Diffusion's U-Net, of four up blocks of three layers, these are the paper's numbers 0..11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zsvss.backbones.feature_places import FeaturePlaces, Layer, PlacedBlock, Projection

_UP_BLOCKS = {
    "UNet2DConditionModel": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "UNetSpatioTemporalConditionModel": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
}


class OutputBlock(NamedTuple):
    """One layer of an up block.

    Attributes:
        up_block: which up block, from the bottleneck up.
        layer: which layer of it.
        depth: transformer blocks that it has; 0 is a layer without attention.
    """

    up_block: int
    layer: int
    depth: int


class UNetLayout:
    """The output blocks of a U-Net, by its config alone.

    Args:
        config: of a ``UNet2DConditionModel`` or ``UNetSpatioTemporalConditionModel``.

    Example:
        >>> kinds = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
        >>> layout = UNetLayout({"up_block_types": kinds})
        >>> layout.attentive, layout.name(7), layout.is_the_papers
        ([3, 4, 5, 6, 7, 8], 'up.2.attn.1', True)
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        kinds = config.get("up_block_types", ())
        layers = _each(config.get("layers_per_block", 2), len(kinds))[::-1]
        depths = config.get("reverse_transformer_layers_per_block")
        if depths is None:
            depths = _each(config.get("transformer_layers_per_block", 1), len(kinds))[::-1]
        self.num_up_blocks = len(kinds)
        self.blocks = [
            OutputBlock(i, j, depth if kind.startswith("CrossAttn") else 0)
            for i, (kind, num_layers, depth_of_block) in enumerate(zip(kinds, layers, depths, strict=True))
            for j, depth in enumerate(_each(depth_of_block, num_layers + 1))
        ]

    @property
    def is_the_papers(self) -> bool:
        """Whether it is Stable Diffusion's, for whose output blocks the paper has numbers."""
        shape = [(block.up_block, block.layer) for block in self.blocks]
        return shape == [(i, j) for i in range(4) for j in range(3)] and max(block.depth for block in self.blocks) <= 1

    @property
    def attentive(self) -> list[int]:
        """Output blocks that have attention."""
        return [number for number, block in enumerate(self.blocks) if block.depth]

    @property
    def half_resolution(self) -> list[int]:
        """Output blocks with attention at half the latents' resolution: the paper's 6, 7 and 8."""
        return [number for number in self.attentive if self.stride(number) == 2]

    def name(self, block: int) -> str:
        """Name of an output block."""
        placed = self.blocks[block]
        return f"up.{placed.up_block}.{'attn' if placed.depth else 'layer'}.{placed.layer}"

    def stride(self, block: int) -> int:
        """Latent cells a side of a token."""
        return 1 << (self.num_up_blocks - 1 - self.blocks[block].up_block)

    def places(
        self,
        layers: Mapping[Layer, tuple[Projection, ...]],
        clustered: Sequence[str] | None = None,
        compared: Sequence[str] | None = None,
    ) -> FeaturePlaces:
        """What can be recorded.

        Args:
            layers: attention layers of a transformer block and what can be read of them.
            clustered: names of what is clustered by default; ``None`` takes the self-attention queries at half the
                latents' resolution, as the paper does.
            compared: the same of what is compared over time; ``None`` takes the middle one of these.
        """
        queries = [f"{self.name(block)}.block.0:self.query" for block in self.half_resolution]
        return FeaturePlaces(
            [
                PlacedBlock(self.name(number), self.stride(number), layers if block.depth else {}, block.depth)
                for number, block in enumerate(self.blocks)
            ],
            queries if clustered is None else clustered,
            queries[len(queries) // 2 :][:1] if compared is None else compared,
            is_numbered=self.is_the_papers,
        )


def _each(value: Any, num: int) -> list[Any]:
    """A setting of each block, where one number holds for all."""
    return [value] * num if isinstance(value, int) else list(value)


def position(unet: Any, block: int) -> tuple[int, int]:
    """Up block and layer of an output block."""
    for i, up_block in enumerate(unet.up_blocks):
        if block < len(up_block.resnets):
            return i, block
        block -= len(up_block.resnets)
    raise IndexError(f"the U-Net has no output block {block} after its last one")


def output_block(unet: Any, block: int) -> Any:
    """Output block ``block``: its transformer, or its residual block where it has no attention."""
    i, j = position(unet, block)
    up_block = unet.up_blocks[i]
    return (up_block.attentions if has_attention(up_block) else up_block.resnets)[j]


def has_attention(up_block: Any) -> bool:
    """Whether the layers of an up block have transformers."""
    return bool(getattr(up_block, "has_cross_attention", False))


def check_layout(config: Mapping[str, Any], class_name: str, place: str, *, only_the_papers: bool = False) -> None:
    """Refuse a U-Net of another kind.

    Args:
        config: the U-Net's config.
        class_name: the diffusers class that is wanted.
        place: where the config comes from, for the message.
        only_the_papers: whether only four up blocks of three layers will do, each with one transformer block at most.

    Raises:
        ValueError: saying what was found and what is needed.
    """
    found = config.get("_class_name")
    if found != class_name:
        raise ValueError(
            f"{place} is a {found}; this backbone needs a {class_name}. UNet2DConditionModel is for StableDiffusion "
            "(1.x, 2.x) and StableDiffusionXL, UNetSpatioTemporalConditionModel for StableVideoDiffusion."
        )
    strange = sorted(set(config.get("up_block_types", ())) - set(_UP_BLOCKS[class_name]))
    if strange:
        known = " and ".join(_UP_BLOCKS[class_name])
        raise ValueError(f"{place}: up_block_types hold {', '.join(strange)}; this backbone can run {known}.")
    if only_the_papers and not UNetLayout(config).is_the_papers:
        layers, depth = config.get("layers_per_block"), config.get("transformer_layers_per_block", 1)
        raise ValueError(
            f"{place} has {len(config.get('up_block_types', ()))} up blocks, layers_per_block {layers} and "
            f"transformer_layers_per_block {depth}; this backbone needs 4, 2 and 1."
        )
