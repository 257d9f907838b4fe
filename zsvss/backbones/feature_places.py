"""The places of a network that can be recorded, by names that a config can write.

A name has up to three parts: the block, a transformer block inside it, and what is read there. In
``up.1.attn.0.block.5:self.query`` it is the queries of the sixth transformer block of a U-Net's layer, in
``up.1.attn.0.block.5:output`` the output of that transformer block, in ``up.1.attn.0:output`` that of the whole layer,
and in ``block.9:image.query`` the queries of a transformer's tenth block. All numbers count from 0.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

Layer = Literal["self", "cross", "image", "text", "temporal_self", "temporal_cross", "transformer", "block"]
Projection = Literal["query", "key", "value", "output", "input", "normed_query", "normed_key"]

ALL_PROJECTIONS: tuple[Projection, ...] = ("query", "key", "value", "output")


class FeaturePlace(NamedTuple):
    """A place of a network, at whatever step.

    Attributes:
        block: number of the block among those of the network that can be recorded.
        layer: attention layer; ``image`` and ``text`` are the streams of a joint one, ``transformer`` is a transformer
            block inside the block, and ``block`` the block itself.
        projection: query, key or value before the head split, or the output; the last two layers have only that. The
            input is what is projected, after a transformer's adaptive norm; normed are queries and keys after a norm
            of theirs, head by head, as they are compared in attention.
        depth: which of the transformer blocks inside the block.
    """

    block: int
    layer: Layer = "self"
    projection: Projection = "query"
    depth: int = 0


class PlacedBlock(NamedTuple):
    """A block of a network that can be recorded.

    Attributes:
        name: such as ``up.1.attn.0`` or ``block.9``.
        stride: latent cells a side of a token.
        layers: attention layers and what can be read of them.
        depth: transformer blocks inside; ``None`` where the block is one itself.
    """

    name: str
    stride: int
    layers: Mapping[Layer, tuple[Projection, ...]]
    depth: int | None = 0

    def places(self, number: int) -> Iterator[tuple[str, FeaturePlace]]:
        """Names and places of the block, which has this number."""
        inner = [""] if self.depth is None else [f".block.{d}" for d in range(self.depth)]
        for depth, part in enumerate(inner):
            for layer, projections in self.layers.items():
                for projection in projections:
                    yield f"{self.name}{part}:{layer}.{projection}", FeaturePlace(number, layer, projection, depth)
            if part:
                yield f"{self.name}{part}:output", FeaturePlace(number, "transformer", "output", depth)
        yield f"{self.name}:output", FeaturePlace(number, "block", "output")

    def described(self) -> str:
        """What can be read of it, after its name."""
        layers = [f":{layer}.{'|'.join(projections)}" for layer, projections in self.layers.items()]
        ends = ", ".join([*layers, ":output"])
        if not self.depth:
            return ends
        inner = ".block.0" if self.depth == 1 else f".block.0 to .block.{self.depth - 1}"
        return f"{inner} ({ends}), or :output of the whole"


class FeaturePlaces:
    """All places of a network.

    Args:
        blocks: in the order of their numbers.
        clustered: names of the places whose mean is clustered unless a config says otherwise.
        compared: the same for what is compared over time.
        matched: names of the keys that those are compared with, as queries; none where they are compared with
            themselves.
        head_channels: channels of an attention head; ``None`` where nothing is matched.
        is_numbered: whether the numbers of the blocks are the paper's 0..11, which configs then may write.
    """

    def __init__(
        self,
        blocks: Sequence[PlacedBlock],
        clustered: Sequence[str] = (),
        compared: Sequence[str] = (),
        *,
        matched: Sequence[str] = (),
        head_channels: int | None = None,
        is_numbered: bool = False,
    ) -> None:
        self.blocks = tuple(blocks)
        self.clustered = tuple(clustered)
        self.compared = tuple(compared)
        self.matched = tuple(matched)
        self.head_channels = head_channels
        self.is_numbered = is_numbered

    @functools.cached_property
    def by_name(self) -> dict[str, FeaturePlace]:
        """Name -> place."""
        return {name: place for n, block in enumerate(self.blocks) for name, place in block.places(n)}

    @functools.cached_property
    def _names(self) -> dict[FeaturePlace, str]:
        return {place: name for name, place in self.by_name.items()}

    def find(self, name: str) -> FeaturePlace:
        """A place by its name.

        Raises:
            ValueError: naming the places that exist.
        """
        if name not in self.by_name:
            close = difflib.get_close_matches(name, self.by_name, n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(f"there is no place {name!r}.{hint} {self.listing()}")
        return self.by_name[name]

    def name(self, place: FeaturePlace) -> str | None:
        """Name of a place; ``None`` if the network does not have it."""
        return self._names.get(place)

    def block(self, block: int | str) -> int:
        """Number of a block by its name, or by the paper's number where that is defined.

        Raises:
            ValueError: naming the blocks that exist.
        """
        names = [placed.name for placed in self.blocks]
        if isinstance(block, str) and block in names:
            return names.index(block)
        if isinstance(block, int) and self.is_numbered and 0 <= block < len(names):
            return block
        if isinstance(block, int) and not self.is_numbered:
            why = (
                f"the paper's number {block} is defined for U-Nets of four up blocks of three layers alone; "
                "here blocks and places have names."
            )
        else:
            why = f"there is no block {block!r}."
        raise ValueError(f"{why} {self.listing()}")

    def grid(self, block: int, latent_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a block's token grid.

        >>> FeaturePlaces([PlacedBlock("block.0", 2, {})]).grid(0, (56, 104))
        (28, 52)
        """
        stride = self.blocks[block].stride
        return latent_size[0] // stride, latent_size[1] // stride

    def listing(self) -> str:
        """The places in words, alike blocks together."""
        parts = []
        for described, group in itertools.groupby(self.blocks, PlacedBlock.described):
            names = [block.name for block in group]
            parts.append(f"{names[0] if len(names) == 1 else f'{names[0]} to {names[-1]}'} with {described}")
        return f"There are: {'; '.join(parts)}."
