"""What the queries of output blocks 6 to 8 are asked to tell of each token, beside denoising; no labels are used.

Five descriptions of a token and its surroundings, and one that is smoothed within the picture without crossing edges.
All are made from the clean latents, so the network has to see through the noise.

Shape suffixes: B batch, h w latent cells (tokens: half of both), n tokens, c channels, d channels of all targets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NUM_LATENTS = 16
WIDTHS = {"cell": NUM_LATENTS, "around": NUM_LATENTS, "texture": NUM_LATENTS, "colour": 3, "place": 2}
"""Channels of the plain descriptions."""
SMOOTHED = {"cell": 1.0, "colour": 0.5, "place": 0.7}
"""What is smoothed, and how much each part counts."""
WEIGHTS = {"cell": 1.0, "around": 0.5, "texture": 0.5, "colour": 1.0, "place": 1.0, "smooth": 2.0}
"""Of the parts of the error."""
_BANDWIDTH, _SMOOTHINGS = 0.3, 2


class Scale(NamedTuple):
    """Mean of every channel of a description, and the square root of the channels' summed variances."""

    mean_c: Tensor
    deviation: Tensor


def parts() -> dict[str, slice]:
    """Channels of every target, by name."""
    widths = WIDTHS | {"smooth": sum(WIDTHS[name] for name in SMOOTHED)}
    starts = [sum(list(widths.values())[:index]) for index in range(len(widths))]
    return {name: slice(start, start + width) for (name, width), start in zip(widths.items(), starts, strict=True)}


NUM_TARGETS = max(part.stop for part in parts().values())


def describe(latents_Bchw: Tensor, colours_B3hw: Tensor) -> dict[str, Tensor]:
    """Plain descriptions [B, n, c] of every token.

    `cell` is the mean latent, `around` that of about eight cells, `texture` the spread of the latents about their local
    mean, `colour` the mean colour, `place` the way down and across the window, each 0..1.

    Args:
        latents_Bchw: clean latents.
        colours_B3hw: colours of the tokens' cells.
    """
    height, width = colours_B3hw.shape[-2:]
    cell = functional.avg_pool2d(latents_Bchw, 2)
    wide = functional.avg_pool2d(functional.pad(latents_Bchw, (3, 3, 3, 3), mode="replicate"), 8, 1)
    local_mean = functional.avg_pool2d(functional.pad(latents_Bchw, (3, 3, 3, 3), mode="reflect"), 7, 1)
    spread = functional.pad((latents_Bchw - local_mean).square(), (2, 2, 2, 2), mode="replicate")
    texture = functional.avg_pool2d(spread, 6, 2).clamp(min=1e-8).sqrt()
    axes = [torch.linspace(0, 1, side) for side in (height, width)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(latents_Bchw), -1, -1, -1)
    maps = {"cell": cell, "around": wide[:, :, ::2, ::2], "texture": texture, "colour": colours_B3hw, "place": place}
    return {name: part[:, :, :height, :width].flatten(2).transpose(1, 2) for name, part in maps.items()}


def fit_scales(latents_Bchw: Tensor, colours_B3hw: Tensor) -> dict[str, Scale]:
    """Scales that give every description zero mean and unit summed variance over a few hundred pictures."""
    described = describe(latents_Bchw, colours_B3hw)
    return {name: Scale(part.mean((0, 1)), part.flatten(0, 1).var(0).sum().sqrt()) for name, part in described.items()}


def targets(latents_Bchw: Tensor, colours_B3hw: Tensor, scales: dict[str, Scale]) -> Tensor:
    """All targets side by side [B, n, d], in the order of `parts`."""
    scaled = {
        name: (part - scales[name].mean_c) / scales[name].deviation
        for name, part in describe(latents_Bchw, colours_B3hw).items()
    }
    joint_Bnc = torch.cat([weight * scaled[name] for name, weight in SMOOTHED.items()], -1)
    return torch.cat([*scaled.values(), smoothed(joint_Bnc)], -1)


def smoothed(features_Bnc: Tensor) -> Tensor:
    """Mean shift within each picture: every token moves to the mean of those that resemble it, twice."""
    for _ in range(_SMOOTHINGS):
        distances_Bnn = torch.cdist(features_Bnc, features_Bnc).square()
        spread_B11 = distances_Bnn.mean((1, 2), keepdim=True)
        weights_Bnn = torch.softmax(-distances_Bnn / (2 * _BANDWIDTH**2 * spread_B11), -1)
        features_Bnc = weights_Bnn @ features_Bnc
    return features_Bnc


def weighted_error(errors_d: Tensor) -> Tensor:
    """Weighted mean of the parts' summed squared errors."""
    total = sum(weight * errors_d[parts()[name]].sum() for name, weight in WEIGHTS.items())
    return torch.as_tensor(total) / sum(WEIGHTS.values())
