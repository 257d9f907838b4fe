"""The diffusion model that ships with the package: Stable Diffusion's layout, trained on photographs and drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zsvss.backbones.stable_diffusion import StableDiffusion


class Embedded(StableDiffusion):
    """A tiny diffusion model that needs no download and runs on a laptop's CPU.

    It shows the whole method at work; its results say nothing about Stable Diffusion's.

    Args:
        weights: diffusers folder; ``None`` takes the one that ships with the package.
        settings: of :class:`StableDiffusion`.
    """

    def __init__(self, weights: str | None = None, **settings: Any) -> None:
        super().__init__(weights or str(Path(__file__).parent), **settings)
        self.native_size = (128, 224) if weights is None else None
