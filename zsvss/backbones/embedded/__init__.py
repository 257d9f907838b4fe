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
        guidance: scale of classifier-free guidance. The paper's 5 blurs the features of what ships, so that the default
            is 1, which is none.
        native_size: height and width at about whose number of pixels frames are seen, in their own shape, where nothing
            sets an input size; for the weights that ship alone.
        settings: others of :class:`StableDiffusion`.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        guidance: float = 1.0,
        native_size: tuple[int, int] = (256, 448),
        **settings: Any,
    ) -> None:
        super().__init__(weights or str(Path(__file__).parent), guidance=guidance, **settings)
        self.native_size = native_size if weights is None else None
