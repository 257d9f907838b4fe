"""The backbone that suits a model, by the pipeline that its ``model_index.json`` names."""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

from zsvss.backbones.base import Backbone
from zsvss.backbones.checks import backbone_of
from zsvss.backbones.weights import Variant, WeightsSource

_MODULES = {
    "StableDiffusion": "stable_diffusion",
    "StableDiffusionXL": "stable_diffusion_xl",
    "StableDiffusion3": "stable_diffusion_3",
    "PixArt": "pixart",
    "Flux": "flux",
    "CogVideoX": "cogvideox",
    "Wan": "wan",
    "StableVideoDiffusion": "stable_video_diffusion",
}


class Auto(Backbone):
    """Chooses the class of the backbone by ``model_index.json``; constructing it gives an object of that class.

    The other settings are that class's defaults; name the class itself to set them.

    Args:
        weights: diffusers folder or hub id.
        variant: file variant, such as ``fp16``, of each part that has it; or part -> variant.
        revision: branch, tag or commit of a hub repository.

    Raises:
        ValueError: if no backbone runs such a model, or nothing tells what it is.
    """

    def __new__(cls, weights: str, *, variant: Variant = None, revision: str | None = None) -> Any:
        """Return the backbone."""
        index = WeightsSource(weights, variant, revision, reads=(".",)).pipeline()
        known = backbone_of(index)
        if known is None or known[1] is None:
            what = "has no model_index.json that tells what it is" if known is None else f"is {known[0]}"
            raise ValueError(
                f"backbone Auto: {weights} {what}; the backbones {', '.join(_MODULES)} can be named themselves."
            )
        module = importlib.import_module(f"zsvss.backbones.{_MODULES[known[1]]}")
        return getattr(module, known[1])(weights, variant=variant, revision=revision)

    def __init__(self, weights: str, *, variant: Variant = None, revision: str | None = None) -> None:
        _never()


# What is abstract in a backbone is filled in by the class that is chosen: this one can be chosen, too.
Auto.__abstractmethods__ = frozenset()


def _never() -> NoReturn:
    raise AssertionError("an object of another class is made")
