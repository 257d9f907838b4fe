"""Which blocks, layers and places a diffusion transformer has, by its config."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.denoising import DenoisingNetwork
from zsvss.backbones.feature_places import FeaturePlaces, Layer, PlacedBlock, Projection
from zsvss.backbones.hooks import Seam, Seams

# Class and norm of published configs -> the class into which diffusers has made them since.
_SINCE_RENAMED: dict[Any, str] = {("Transformer2DModel", "ada_norm_single"): "PixArtTransformer2DModel"}


class PlacedTransformer(DenoisingNetwork):
    """A transformer of alike blocks, which are numbered through all of its lists.

    Attributes:
        lists: names of the network's lists of blocks, in their order.
        preferred_block: number of the block that is read and modulated by default, if there are so many; else the
            middle one is.
        compared_block: number of the block that is compared over time by default; ``None`` is the preferred one.
        preferred_place: what is read there, such as ``image.query``.
        matched_places: queries and keys of the compared block by whose attention frames are compared, if not by
            ``preferred_place``; they have heads of ``attention_head_dim`` channels.
        packed_cells: latent cells whose channels are joined before the network.
        injected: projections that are injected, by layer; the keys of cross-attention are the text's, and never change.
    """

    network_part = "transformer"
    lists: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    preferred_block: ClassVar[int]
    compared_block: ClassVar[int | None] = None
    preferred_place: ClassVar[str]
    matched_places: ClassVar[tuple[str, str] | None] = None
    packed_cells: ClassVar[int] = 1
    injected: ClassVar[Mapping[Layer, tuple[Projection, ...]]] = {
        "self": ("query", "key"),
        "image": ("query", "key"),
        "text": ("query", "key"),
        "cross": ("query",),
    }
    transformer: Any

    @abstractmethod
    def seams(self, block: int) -> Seams:
        """The layers of a block that can be read, by the config."""

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of the network, by the config."""
        return int(self.source.config("transformer")["num_layers"])

    @cached_property
    def patch(self) -> int:
        """Latent cells a side of a token."""
        return int(self.source.config("transformer").get("patch_size", 2))

    # Places

    @cached_property
    @override
    def places(self) -> FeaturePlaces:
        blocks = [
            PlacedBlock(f"block.{n}", self.patch, {layer: tuple(seams) for layer, seams in self.seams(n).items()}, None)
            for n in range(self.num_blocks)
        ]
        compared = self.preferred_block if self.compared_block is None else self.compared_block
        clustered = [f"block.{self._there(self.preferred_block)}:{self.preferred_place}"]
        block = f"block.{self._there(compared)}"
        if self.matched_places is None:
            return FeaturePlaces(blocks, clustered, [f"{block}:{self.preferred_place}"])
        query, key = self.matched_places
        channels = int(self.source.config("transformer").get("attention_head_dim", 64))
        return FeaturePlaces(
            blocks, clustered, [f"{block}:{query}"], matched=[f"{block}:{key}"], head_channels=channels
        )

    def _there(self, block: int) -> int:
        """A block, or the middle one if the network has less."""
        return block if block < self.num_blocks else self.num_blocks // 2

    @property
    @override
    def modulation_block(self) -> int:
        chosen = self._modulation_block
        return self._there(self.preferred_block) if chosen is None else self.places.block(chosen)

    @property
    @override
    def size_multiple(self) -> int:
        return self.latent_stride * self.patch

    @override
    def check_network(self, config: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
        place, found = f"{self.source.name}/transformer", config.get("_class_name")
        found = _SINCE_RENAMED.get((found, config.get("norm_type")), found)
        if found != self.network_class:
            raise ValueError(f"{place} is a {found}; this backbone needs a {self.network_class}.")
        wanted = self.latent_channels * self.packed_cells
        if config.get("in_channels", wanted) != wanted:
            packed = f", in each of {self.packed_cells} cells that a token packs" if self.packed_cells > 1 else ""
            raise ValueError(
                f"{place}: in_channels = {config['in_channels']} must be {wanted}, as the autoencoder has "
                f"{self.latent_channels} latent channels{packed}; a network with more also takes an image or a mask."
            )
        _ = self.modulation_block

    @override
    def load_networks(self) -> None:
        super().load_networks()
        self._check_reach()

    def _check_reach(self) -> None:
        """Refuse a network in which injection would reach less than all attention layers.

        Raises:
            ValueError: saying how many it would reach.
        """
        there = {name.removesuffix(".processor") for name in self.transformer.attn_processors}
        seams = [self._path(key) for key in self._all_keys(self.steps[-1])]
        reached = {path.rpartition(".")[0] for path, _ in seams}
        if there != reached:
            raise ValueError(
                f"{self.source.name}/transformer: injection would reach {len(there & reached)} of {len(there)} "
                f"attention layers, by the config; the weights differ at {sorted(there ^ reached)[0]}."
            )

    @cached_property
    def _block_paths(self) -> list[str]:
        return [f"{name}.{i}" for name in self.lists for i in range(len(getattr(self.transformer, name)))]

    @property
    def _blocks(self) -> list[nn.Module]:
        return [self.transformer.get_submodule(path) for path in self._block_paths]

    def _path(self, key: FeatureKey) -> tuple[str, Seam]:
        """Path of a layer in the network, and its seam."""
        seam = self.seams(key.block)[key.layer][key.projection]
        return f"{self._block_paths[key.block]}.{seam.path}", seam

    def _all_keys(self, step: int) -> set[FeatureKey]:
        """What injection replaces at a step in which all blocks are run."""
        return {
            FeatureKey(step, block, layer, projection)
            for block in range(self.num_blocks)
            for layer in self.seams(block)
            for projection in self.injected[layer]
        }
