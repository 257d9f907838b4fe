"""The published tiny autoencoder of FLUX.2 (`taef2`, MIT), whose latents the embedded autoencoder learns to give.

Own code, written from the names and shapes of its published weights; the layout is that of madebyollin/taesd.

Shape suffixes: B batch, H W pixels, h w latent cells, t teacher channels, c channels of the embedded latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import hadamard
from torch import Tensor, nn

WIDTH, TEACHER_CHANNELS, STRIDE = 64, 32, 8


class TeacherBlock(nn.Module):
    """Three convolutions with a skip; blocks of the last stage first add what a grouped bottleneck makes of the input.

    Args:
        pooled: whether that bottleneck is there; its group norm is over the whole image.
    """

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])
        wide = 4 * WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, wide, 1, bias=False),
                nn.GroupNorm(4, wide),
                nn.ReLU(),
                nn.Conv2d(wide, WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, hidden_Bchw: Tensor) -> Tensor:
        """Same shape as the input."""
        if self.pool is not None:
            hidden_Bchw = hidden_Bchw + self.pool(hidden_Bchw)
        return torch.relu(self.conv(hidden_Bchw) + hidden_Bchw)


def load_teacher(path: Path) -> nn.Sequential:
    """Encoder of images in 0..1 [B, 3, H, W] to latents [B, 32, H / 8, W / 8].

    Args:
        path: `taef2_encoder.pth`.

    Raises:
        FileNotFoundError: naming the file and where it comes from.
        RuntimeError: if its tensors are not those of this layout.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. It is `taef2_encoder.pth` of github.com/madebyollin/taesd (MIT)."
        )

    def halving() -> nn.Conv2d:
        return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)

    def stage(pooled: bool = False) -> list[nn.Module]:
        return [TeacherBlock(pooled) for _ in range(3)]

    encoder = nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, padding=1),
        TeacherBlock(pooled=False),
        *(halving(), *stage()),
        *(halving(), *stage()),
        *(halving(), *stage(pooled=True)),
        nn.Conv2d(WIDTH, TEACHER_CHANNELS, 3, padding=1),
    )
    encoder.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return encoder.eval().requires_grad_(requires_grad=False)


class Projection(NamedTuple):
    """From the teacher's latents to fewer channels of zero mean and equal variance, distances kept up to a factor.

    Attributes:
        mean_t: of the teacher's latents.
        basis_tc: orthonormal columns: the leading principal components, mixed by a Hadamard matrix, which gives every
            channel the same variance and turns no distance.
        scale: standard deviation of each channel before it is divided by this.
        kept: share of the variance that the components hold.
    """

    mean_t: NDArray[np.float64]
    basis_tc: NDArray[np.float64]
    scale: float
    kept: float

    def __call__(self, latents_Bthw: NDArray[np.floating]) -> NDArray[np.float32]:
        """Latents of the teacher [B, t, h, w] to targets [B, c, h, w]."""
        centred = np.asarray(latents_Bthw, np.float64) - self.mean_t[:, None, None]
        return np.einsum("bthw,tc->bchw", centred, self.basis_tc / self.scale, optimize=True).astype(np.float32)


def fit_projection(latents_Bthw: NDArray[np.floating], num_channels: int) -> Projection:
    """Principal components of the teacher's latents.

    Args:
        latents_Bthw: of a few hundred images.
        num_channels: how many are kept; a power of two, for the Hadamard matrix.
    """
    tokens_Nt = np.moveaxis(np.asarray(latents_Bthw, np.float64), 1, -1).reshape(-1, latents_Bthw.shape[1])
    values_t, vectors_tt = np.linalg.eigh(np.cov(tokens_Nt.T))
    leading_tc = vectors_tt[:, ::-1][:, :num_channels]
    variances_c = values_t[::-1][:num_channels]
    mixed_tc = leading_tc @ hadamard(num_channels) / num_channels**0.5
    kept = float(variances_c.sum() / values_t.sum())
    return Projection(tokens_Nt.mean(0), mixed_tc, float(variances_c.mean() ** 0.5), kept)
