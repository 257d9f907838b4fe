"""Several features side by side: block outputs of several resolutions, colour and position.

Shape legend: T frames of a clip, H W pixels, h w token grid, n feature tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey, Recording
from zsvss.stages.features import AttentionFeatures, Features, checked_block


class JointFeatures(Features):
    """Concatenates features, each resized to one grid, scaled to unit variance and weighted.

    The variance is that of a clip's tokens, summed over the channels, so that each part counts in squared Euclidean
    distances by the square of its weight, however many channels it has. Clustering and the propagation by nearest
    neighbours read the same joint features.

    Args:
        parts: at least one; the first one's grid is that of the tokens.
        weights: one a part; 1 each if ``None``.
    """

    def __init__(self, parts: Sequence[Features], weights: Sequence[float] | None = None) -> None:
        if not parts:
            raise ValueError("features.parts is empty: give at least one.")
        if weights is not None and len(weights) != len(parts):
            raise ValueError(f"features.weights = {list(weights)} must be one a part; there are {len(parts)} parts.")
        self.parts = list(parts)
        self.reads_latents = any(part.reads_latents for part in self.parts)
        self.weights = [1.0] * len(parts) if weights is None else list(weights)

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        return [key for part in self.parts for key in part.keys(backbone)]

    @override
    def grid_of(self, backbone: Backbone, latent_size: tuple[int, int]) -> tuple[int, int]:
        return self.parts[0].grid_of(backbone, latent_size)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        grid = self.grid(backbone, recording)
        scaled = []
        for part, weight in zip(self.parts, self.weights, strict=True):
            part_Tnc = part(backbone, recording, images_T3HW).float()
            scaled.append(weight * unit_variance(resized_tokens(part_Tnc, part.grid(backbone, recording), grid)))
        return torch.cat(scaled, 2)


class BlockFeatures(AttentionFeatures):
    """Output of one output block at the last step: what :class:`JointFeatures` puts side by side.

    Args:
        block: output block by the paper's number 0..11, or any block by its name, ``up.1.attn.0`` or ``block.9``.
    """

    def __init__(self, block: int | str = 8) -> None:
        if isinstance(block, str):
            super().__init__(normalization="none", places=(f"{block}:output",))
        else:
            super().__init__((block,), "block", "output", normalization="none")


class LatentFeatures(Features):
    """The autoencoder's own latents, pooled to the token grid: what there is before any diffusion model.

    Args:
        position_weight: weight of the position of each token's cell beside the latents, both at unit variance as in
            :class:`JointFeatures`; 0 leaves position out.
        block: block on whose token grid they lie; the paper's 9..11 is the latents' own. ``None`` as of `Features`.
    """

    def __init__(self, position_weight: float = 0.0, block: int | str | None = None) -> None:
        if position_weight < 0:
            raise ValueError(f"features.position_weight = {position_weight} must be 0 or more.")
        self.position_weight = position_weight
        self.grid_block = checked_block(block)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        if recording.encoded_Tchw is None:
            raise ValueError("LatentFeatures need the frames' latents: set the recording's encoded_Tchw.")
        latents_Tchw = functional.adaptive_avg_pool2d(recording.encoded_Tchw.float(), self.grid(backbone, recording))
        latents_Tnc = latents_Tchw.flatten(2).transpose(1, 2)
        if not self.position_weight:
            return latents_Tnc
        position_Tn2 = PositionFeatures(self.grid_block)(backbone, recording, images_T3HW)
        return torch.cat([unit_variance(latents_Tnc), self.position_weight * unit_variance(position_Tn2)], 2)


class LabFeatures(Features):
    """Mean colour of each token's cell in CIELAB (D65), in which distances are about as large as they look.

    Args:
        block: block on whose token grid they lie; ``None`` as of `Features`.
    """

    reads_latents = False

    def __init__(self, block: int | str | None = None) -> None:
        self.grid_block = checked_block(block)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        lab_T3hw = functional.adaptive_avg_pool2d(rgb_to_lab((images_T3HW + 1) / 2), self.grid(backbone, recording))
        return lab_T3hw.flatten(2).transpose(1, 2)


class PositionFeatures(Features):
    """Centre of each token's cell, y and x, in units of the longer side, so that near means the same in both.

    Args:
        block: block on whose token grid they lie; ``None`` as of `Features`.
    """

    reads_latents = False

    def __init__(self, block: int | str | None = None) -> None:
        self.grid_block = checked_block(block)

    @override
    def __call__(self, backbone: Backbone, recording: Recording, images_T3HW: Tensor) -> Tensor:
        grid = self.grid(backbone, recording)
        dtype, device = images_T3HW.dtype, images_T3HW.device
        axes = [(torch.arange(side, dtype=dtype, device=device) + 0.5) / max(grid) for side in grid]
        position_n2 = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
        return position_n2.expand(len(images_T3HW), -1, -1)


def resized_tokens(tokens_Tnc: Tensor, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> Tensor:
    """Resize a token grid bilinearly; where it shrinks, every token counts."""
    if from_grid == to_grid:
        return tokens_Tnc
    tokens_Tchw = tokens_Tnc.transpose(1, 2).unflatten(2, from_grid)
    resized = functional.interpolate(tokens_Tchw, to_grid, mode="bilinear", antialias=True)
    return resized.flatten(2).transpose(1, 2)


def unit_variance(features_Tnc: Tensor) -> Tensor:
    """Divide by the standard deviation over all tokens, variances summed over channels; constants stay as they are."""
    variance = features_Tnc.flatten(0, 1).double().var(0, correction=0).sum()
    is_constant = variance <= 1e-10 * features_Tnc.double().square().sum(2).mean()
    return torch.where(is_constant, features_Tnc, features_Tnc / variance.sqrt().float())


def rgb_to_lab(rgb_T3HW: Tensor) -> Tensor:
    """Convert sRGB in [0, 1] to CIELAB under D65: L in 0..100, a and b about -110..110.

    Source: IEC 61966-2-1 (sRGB) and CIE 15 (CIELAB).
    """
    # Rows give X, Y and Z relative to those of white.
    matrix_33 = rgb_T3HW.new_tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    )
    matrix_33 = matrix_33 / matrix_33.sum(1, keepdim=True)
    # Frame by frame: a dozen maps as large as a frame are made on the way.
    return torch.stack([_frame_to_lab(rgb_3HW, matrix_33) for rgb_3HW in rgb_T3HW])


def _frame_to_lab(rgb_3HW: Tensor, matrix_33: Tensor) -> Tensor:
    rgb_3HW = rgb_3HW.clamp(0, 1)
    linear = torch.where(rgb_3HW <= 0.04045, rgb_3HW / 12.92, ((rgb_3HW + 0.055) / 1.055) ** 2.4)
    relative = torch.einsum("ij,jhw->ihw", matrix_33, linear)
    curved = torch.where(relative > (6 / 29) ** 3, relative ** (1 / 3), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = curved
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
