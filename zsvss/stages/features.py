"""Features of a clip, one vector a token: what is clustered and what is compared over time.

Shape legend: T frames of a clip, H W pixels, n feature tokens, c channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey, Layer, Projection, Recording
from zsvss.backbones.layout import token_grid
from zsvss.stages.padding import crop, margins_on
from zsvss.stages.precision import full_precision

Normalization = Literal["maximum", "euclidean", "none"]


class Features(ABC):
    """Reads one feature vector a token from a clip; pure.

    Attributes:
        grid_block: output block whose token grid the features lie on: half the latents' resolution by default.
        reads_latents: whether the latents of the frames are read, as opposed to :meth:`keys` and the images alone.
            Where nothing is recorded and no latents are read, neither the network nor the autoencoder is run.
    """

    grid_block: int = 6
    reads_latents: bool = True

    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        """Tensors that the feature pass must record; none by default."""
        return []

    @abstractmethod
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        """Return features [T, n, c], float32, of images in [-1, 1] and what the feature pass recorded of them."""

    def grid(self, recording: Recording) -> tuple[int, int]:
        """Height and width of the token grid."""
        height, width = recording.noised_Tchw.shape[-2:]
        return token_grid(self.grid_block, (height, width))


class FeaturePass(NamedTuple):
    """A clip as the backbone has seen it.

    Attributes:
        backbone: the diffusion model.
        recording: what it recorded.
        images_T3HW: what it saw, in [-1, 1], padding included.
        padding: mirrored pixels on either side.
    """

    backbone: Backbone
    recording: Recording
    images_T3HW: Tensor
    padding: int = 0

    def read(self, features: Features) -> tuple[Tensor, tuple[int, int]]:
        """Features [T, n, c] of the tokens inside the padding, and the height and width of their grid."""
        with full_precision(self.images_T3HW.device):
            features_Tnc = features(self.backbone, self.recording, self.images_T3HW)
        return self.inside(features_Tnc, features.grid(self.recording))

    def inside(self, tokens_Tnc: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Take the tokens of the padding off; ``grid`` includes them."""
        margins = margins_on(grid, self.padding, (self.images_T3HW.shape[-2], self.images_T3HW.shape[-1]))
        if margins == (0, 0):
            return tokens_Tnc, grid
        inside_Tchw = crop(tokens_Tnc.transpose(1, 2).unflatten(2, grid), margins)
        return inside_Tchw.flatten(2).transpose(1, 2).contiguous(), (inside_Tchw.shape[-2], inside_Tchw.shape[-1])


class AttentionFeatures(Features):
    """Per-token features of the conditional half, averaged over blocks and steps.

    The defaults are the paper's clustering features: self-attention queries of output blocks 6, 7 and 8 at the last
    step, each token divided by its largest magnitude.

    Args:
        blocks: output blocks, 0..11; their token grids must agree.
        layer: attention layer, or ``block`` for the block's output.
        projection: query, key, value or output; ``block`` has only the output.
        steps: sampling steps; negative ones count from the end of the backbone's steps.
        normalization: divide each token by its largest magnitude over the channels (``maximum``), by its Euclidean
            norm (``euclidean``), or not at all (``none``).

    Source: the paper's Sec. 3.1.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (6, 7, 8),
        layer: Layer = "self",
        projection: Projection = "query",
        steps: Sequence[int] = (-1,),
        normalization: Normalization = "maximum",
    ) -> None:
        if not blocks or not all(0 <= block <= 11 for block in blocks):
            raise ValueError(f"features.blocks = {list(blocks)} must name output blocks between 0 and 11.")
        if layer == "block" and projection != "output":
            raise ValueError(f"features.projection = {projection!r}: a block has only an 'output'.")
        self.blocks = tuple(blocks)
        self.grid_block = self.blocks[0]
        self.layer: Layer = layer
        self.projection: Projection = projection
        self.steps = tuple(steps)
        self.normalization: Normalization = normalization

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        numbers = [backbone.steps[0] + len(backbone.steps) + step if step < 0 else step for step in self.steps]
        unknown = set(numbers) - set(backbone.steps)
        if unknown:
            raise ValueError(
                f"features.steps = {list(self.steps)}: steps {sorted(unknown)} are not run; "
                f"choose from {list(backbone.steps)}."
            )
        return [FeatureKey(step, block, self.layer, self.projection) for step in numbers for block in self.blocks]

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        tensors = [recording.half(key).float() for key in self.keys(backbone)]
        if len({tensor.shape for tensor in tensors}) > 1:
            shapes = {key.block: tuple(t.shape) for key, t in zip(self.keys(backbone), tensors, strict=True)}
            raise ValueError(f"features.blocks must share one token grid and width; found {shapes}.")
        return normalize(torch.stack(tensors).mean(0), self.normalization)


class ColorPositionFeatures(Features):
    """Mean colour and position of each token's cell: what a segmentation without a diffusion model can go by.

    Args:
        position_weight: how much the way across the frame counts, against the way from black to white in a channel.
        block: output block on whose token grid they lie, so that comparisons are at the same grid.
    """

    reads_latents = False

    def __init__(self, position_weight: float = 1.0, block: int = 6) -> None:
        self.position_weight = position_weight
        self.grid_block = checked_block(block)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        grid = self.grid(recording)
        color_T3hw = functional.adaptive_avg_pool2d((images_T3HW + 1) / 2, grid)
        dtype, device = images_T3HW.dtype, images_T3HW.device
        axes = [torch.linspace(0, self.position_weight, side, dtype=dtype, device=device) for side in grid]
        position_2hw = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        channels = torch.cat([color_T3hw, position_2hw.expand(len(color_T3hw), -1, -1, -1)], 1)
        return channels.flatten(2).transpose(1, 2)


def checked_block(block: int) -> int:
    """Refuse what is no output block."""
    if not 0 <= block <= 11:
        raise ValueError(f"features.block = {block} must name an output block between 0 and 11.")
    return block


def normalize(features_Tnc: Tensor, normalization: Normalization) -> Tensor:
    """Normalise each token over its channels; a token of zeros stays zero."""
    if normalization == "maximum":
        scale_Tn1 = features_Tnc.abs().amax(-1, keepdim=True)
    elif normalization == "euclidean":
        scale_Tn1 = torch.linalg.vector_norm(features_Tnc, dim=-1, keepdim=True)
    else:
        return features_Tnc
    return features_Tnc / scale_Tn1.clamp(min=torch.finfo(torch.float32).tiny)
