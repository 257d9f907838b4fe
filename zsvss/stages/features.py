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

from zsvss.backbones.base import Backbone, FeatureKey, Recording
from zsvss.backbones.feature_places import FeaturePlace, Layer, Projection
from zsvss.stages.padding import crop, margins_on
from zsvss.stages.precision import full_precision

Normalization = Literal["maximum", "euclidean", "none"]


class Features(ABC):
    """Reads one feature vector a token from a clip; pure.

    Attributes:
        grid_block: block whose token grid the features lie on, by name or by the paper's number; ``None`` is that of
            what the backbone clusters by default, at half the latents' resolution in Stable Diffusion.
        reads_latents: whether the latents of the frames are read, as opposed to :meth:`keys` and the images alone.
            Where nothing is recorded and no latents are read, neither the network nor the autoencoder is run.
    """

    grid_block: int | str | None = None
    reads_latents: bool = True

    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        """Tensors that the feature pass must record; none by default."""
        return []

    @abstractmethod
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        """Return features [T, n, c], float32, of images in [-1, 1] and what the feature pass recorded of them."""

    def on_latents(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        """The same of each latent frame [L, n, c], where the network has a coarser time grid: by default the mean."""
        features_Tnc = self(backbone, recording, images_T3HW)
        latent_T = backbone.latent_frames(len(images_T3HW), images_T3HW.device)
        if latent_T is None:
            return features_Tnc
        numbers_L = torch.arange(_num_latents(backbone, len(images_T3HW)), device=latent_T.device)
        shares_LT = (latent_T == numbers_L[:, None]).to(features_Tnc.dtype)
        means_LT = shares_LT / shares_LT.sum(1, keepdim=True)
        return (means_LT @ features_Tnc.flatten(1)).view(-1, *features_Tnc.shape[1:])

    def grid(self, backbone: Backbone, recording: Recording) -> tuple[int, int]:
        """Height and width of the token grid."""
        height, width = recording.noised_Tchw.shape[-2:]
        return self.grid_of(backbone, (height, width))

    def grid_of(self, backbone: Backbone, latent_size: tuple[int, int]) -> tuple[int, int]:
        """The same of latents of a height and width.

        Raises:
            ValueError: if the backbone has no such block, naming those that it has.
        """
        places = backbone.places
        if self.grid_block is None:
            return places.grid(places.find(places.clustered[0]).block, latent_size)
        return places.grid(places.block(self.grid_block), latent_size)


class FeaturePass(NamedTuple):
    """A clip as the backbone has seen it.

    Attributes:
        backbone: the diffusion model.
        recording: what it recorded.
        images_T3HW: what it saw, in [-1, 1], padding included.
        padding: mirrored pixels on either side.
        num_wanted: the first so many frames are not in the next clip, the others are; ``None`` where none is.
    """

    backbone: Backbone
    recording: Recording
    images_T3HW: Tensor
    padding: int = 0
    num_wanted: int | None = None

    @property
    def own_images(self) -> Tensor:
        """The images without their padding [T, 3, H, W]."""
        return crop(self.images_T3HW, (self.padding, self.padding))

    def read(self, features: Features, *, on_latents: bool = False) -> tuple[Tensor, tuple[int, int]]:
        """Features [T, n, c] of the tokens inside the padding, and the height and width of their grid.

        Args:
            features: to be read.
            on_latents: of the latent frames, in place of the frames.
        """
        with full_precision(self.images_T3HW.device):
            read = features.on_latents if on_latents else features
            features_Tnc = read(self.backbone, self.recording, self.images_T3HW)
        return self.inside(features_Tnc, features.grid(self.backbone, self.recording))

    def inside(self, tokens_Tnc: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Take the tokens of the padding off; ``grid`` includes them."""
        margins = margins_on(grid, self.padding, (self.images_T3HW.shape[-2], self.images_T3HW.shape[-1]))
        if margins == (0, 0):
            return tokens_Tnc, grid
        inside_Tchw = crop(tokens_Tnc.transpose(1, 2).unflatten(2, grid), margins)
        return inside_Tchw.flatten(2).transpose(1, 2).contiguous(), (inside_Tchw.shape[-2], inside_Tchw.shape[-1])


class AttentionFeatures(Features):
    """Per-token features of the conditional half, averaged over places and steps.

    The defaults are the backbone's own; with Stable Diffusion and Stable Video Diffusion these are the paper's:
    self-attention queries of output blocks 6, 7 and 8 at the last step, each token divided by its largest magnitude.

    Args:
        blocks: output blocks by the paper's numbers 0..11, where the backbone's are those; ``None`` takes ``places``.
        layer: attention layer of ``blocks``, or ``block`` for the block's output.
        projection: query, key, value or output of ``blocks``; ``block`` has only the output.
        steps: sampling steps; negative ones count from the end of the backbone's steps.
        places: names of places, such as ``block.9:image.query``; their token grids and widths must agree. ``None``,
            without ``blocks``, takes those that suit the backbone.
        normalization: divide each token by its largest magnitude over the channels (``maximum``), by its Euclidean
            norm (``euclidean``), or not at all (``none``).
        massive: channels whose mean magnitude over the clip is more than this many times that of the median channel are
            left out, before anything is normalised; ``None`` leaves none out. Raw outputs of transformer blocks have
            such channels (SD 3, FLUX.1, PixArt), a hundred times the median and more.

    Source: the paper's Sec. 3.1; massive channels by DiTF (arXiv 2505.18584), which names them model by model.
    """

    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        layer: Layer = "self",
        projection: Projection = "query",
        steps: Sequence[int] = (-1,),
        normalization: Normalization = "maximum",
        places: Sequence[str] | None = None,
        massive: float | None = None,
    ) -> None:
        if massive is not None and massive <= 1:
            raise ValueError(f"features.massive = {massive} must be null or above 1, times the median channel.")
        if blocks is not None and (not blocks or not all(0 <= block <= 11 for block in blocks)):
            raise ValueError(f"features.blocks = {list(blocks)} must name output blocks between 0 and 11.")
        if places is not None and (blocks is not None or not places):
            raise ValueError(f"features.places = {list(places)} must name at least one place, and blocks must be null.")
        if layer == "block" and projection != "output":
            raise ValueError(f"features.projection = {projection!r}: a block has only an 'output'.")
        self.blocks = None if blocks is None else tuple(blocks)
        self.places = None if places is None else tuple(places)
        self.layer: Layer = layer
        self.projection: Projection = projection
        self.steps = tuple(steps)
        self.normalization: Normalization = normalization
        self.massive = massive

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        numbers = [backbone.steps[0] + len(backbone.steps) + step if step < 0 else step for step in self.steps]
        unknown = set(numbers) - set(backbone.steps)
        if unknown:
            raise ValueError(
                f"features.steps = {list(self.steps)}: steps {sorted(unknown)} are not run; "
                f"choose from {list(backbone.steps)}."
            )
        return [FeatureKey(step, *place) for step in numbers for place in self._places(backbone)]

    @override
    def grid_of(self, backbone: Backbone, latent_size: tuple[int, int]) -> tuple[int, int]:
        return backbone.places.grid(self._places(backbone)[0].block, latent_size)

    def _places(self, backbone: Backbone) -> list[FeaturePlace]:
        """What is read of a backbone.

        Raises:
            ValueError: if it has no such place, naming those that it has.
        """
        known = backbone.places
        try:
            if self.blocks is None:
                return [known.find(name) for name in self.places or self._default(backbone)]
            return [FeaturePlace(known.block(block), self.layer, self.projection) for block in self.blocks]
        except ValueError as error:
            slot = "places" if self.blocks is None else "blocks"
            raise ValueError(f"features.{slot}, of {type(backbone).__name__}: {error}") from error

    def _default(self, backbone: Backbone) -> Sequence[str]:
        """Names of what is read unless something else is said."""
        return backbone.places.clustered

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        num_frames = len(recording.noised_Tchw)
        tensors = [backbone.over_time(recording.half(key).float(), num_frames) for key in self.keys(backbone)]
        return self._averaged(backbone, tensors)

    @override
    def on_latents(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        num_latents = _num_latents(backbone, len(recording.noised_Tchw))
        return self._averaged(backbone, [recording.half(key).float()[:num_latents] for key in self.keys(backbone)])

    def _averaged(self, backbone: Backbone, tensors: list[Tensor]) -> Tensor:
        """The mean of what was recorded, normalised."""
        if len({tensor.shape for tensor in tensors}) > 1:
            keys = self.keys(backbone)
            names = [backbone.places.name(key.place) if self.blocks is None else key.block for key in keys]
            shapes = {name: tuple(tensor.shape) for name, tensor in zip(names, tensors, strict=True)}
            raise ValueError(
                f"features.{'places' if self.blocks is None else 'blocks'} must share one token grid and width; "
                f"found {shapes}."
            )
        mean_Tnc = torch.stack(tensors).mean(0)
        if self.massive is not None:
            mean_Tnc = without_massive(mean_Tnc, self.massive)
        return normalize(mean_Tnc, self.normalization)


class CorrespondenceFeatures(AttentionFeatures):
    """What is compared over time: the backbone's own choice, at unit length; the paper's is output block 7 alone."""

    def __init__(self) -> None:
        super().__init__(normalization="euclidean")

    @override
    def _default(self, backbone: Backbone) -> Sequence[str]:
        return backbone.places.compared


class ColorPositionFeatures(Features):
    """Mean colour and position of each token's cell: what a segmentation without a diffusion model can go by.

    Args:
        position_weight: how much the way across the frame counts, against the way from black to white in a channel.
        block: block on whose token grid they lie, so that comparisons are at the same grid; ``None`` as of `Features`.
    """

    reads_latents = False

    def __init__(self, position_weight: float = 1.0, block: int | str | None = None) -> None:
        self.position_weight = position_weight
        self.grid_block = checked_block(block)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        grid = self.grid(backbone, recording)
        color_T3hw = functional.adaptive_avg_pool2d((images_T3HW + 1) / 2, grid)
        dtype, device = images_T3HW.dtype, images_T3HW.device
        axes = [torch.linspace(0, self.position_weight, side, dtype=dtype, device=device) for side in grid]
        position_2hw = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        channels = torch.cat([color_T3hw, position_2hw.expand(len(color_T3hw), -1, -1, -1)], 1)
        return channels.flatten(2).transpose(1, 2)


def checked_block(block: int | str | None) -> int | str | None:
    """Refuse a number that is none of the paper's."""
    if isinstance(block, int) and not 0 <= block <= 11:
        raise ValueError(f"features.block = {block} must name an output block between 0 and 11.")
    return block


def without_massive(features_Tnc: Tensor, times: float) -> Tensor:
    """Set channels to zero whose mean magnitude is more than so many times that of the median channel.

    >>> without_massive(torch.tensor([[[1.0, -2, 900], [2, 1, -800]]]), 100).tolist()
    [[[1.0, -2.0, 0.0], [2.0, 1.0, 0.0]]]
    """
    magnitude_c = features_Tnc.abs().mean((0, 1))
    median = magnitude_c.sort().values[(len(magnitude_c) - 1) // 2]
    return features_Tnc.where(magnitude_c <= times * median, 0.0)


def _num_latents(backbone: Backbone, num_frames: int) -> int:
    """Latent frames that frames of the clip belong to; there may be more after them."""
    latent_T = backbone.latent_frames(num_frames)
    return num_frames if latent_T is None else int(latent_T[-1]) + 1


def normalize(features_Tnc: Tensor, normalization: Normalization) -> Tensor:
    """Normalise each token over its channels; a token of zeros stays zero."""
    if normalization == "maximum":
        scale_Tn1 = features_Tnc.abs().amax(-1, keepdim=True)
    elif normalization == "euclidean":
        scale_Tn1 = torch.linalg.vector_norm(features_Tnc, dim=-1, keepdim=True)
    else:
        return features_Tnc
    return features_Tnc / scale_Tn1.clamp(min=torch.finfo(torch.float32).tiny)
