"""The backbone that suits a model, by the pipeline that its ``model_index.json`` names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, NoReturn

from zsvss.backbones.base import Backbone
from zsvss.backbones.checks import backbone_of
from zsvss.backbones.schedule import PredictionType
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

    Settings are handed on to that class; ``None`` leaves its default. Those that are not named here need the class
    itself to be named.

    Args:
        weights: diffusers folder or hub id.
        variant: file variant, such as ``fp16``, of each part that has it; or part -> variant.
        revision: branch, tag or commit of a hub repository.
        prediction_type: what the network predicts, where its scheduler does not tell (Stable Diffusion 1.x).
        num_steps: steps of the whole schedule.
        first_step: first step that is run; masked modulation acts in it.
        guidance: scale of classifier-free guidance; 1 is none, as distilled models (Turbo, LCM) need.
        modulation_block: block whose attention is modulated.
        max_batch: samples a pass of the network.
        reuse_recorded: skip what a recording already holds.
        offload: bring the networks to the device in turns.
        tiling: encode and decode large images tile by tile.

    Raises:
        FileNotFoundError: if ``model_index.json`` is not on this machine and cannot be fetched.
        ValueError: if no backbone runs such a model, nothing tells what it is, or its class lacks a setting.
    """

    def __new__(
        cls,
        weights: str,
        *,
        variant: Variant = None,
        revision: str | None = None,
        prediction_type: PredictionType | None = None,
        num_steps: int | None = None,
        first_step: int | None = None,
        guidance: float | None = None,
        modulation_block: int | str | None = None,
        max_batch: int | None = None,
        reuse_recorded: bool | None = None,
        offload: bool | None = None,
        tiling: bool | None = None,
    ) -> Any:
        """Return the backbone."""
        settings = {
            "prediction_type": prediction_type,
            "num_steps": num_steps,
            "first_step": first_step,
            "guidance": guidance,
            "modulation_block": modulation_block,
            "max_batch": max_batch,
            "reuse_recorded": reuse_recorded,
            "offload": offload,
            "tiling": tiling,
        }
        chosen = _class_of(weights, variant, revision)
        given = {name: value for name, value in settings.items() if value is not None}
        lacked = sorted(given.keys() - _settings_of(chosen))
        if lacked:
            raise ValueError(
                f"backbone Auto: {weights} is run by {chosen.__name__}, which has no setting {', '.join(lacked)}. "
                "Leave it out."
            )
        return chosen(weights, variant=variant, revision=revision, **given)

    def __init__(self, weights: str, **settings: Any) -> None:
        _never()


def _class_of(weights: str, variant: Variant, revision: str | None) -> Any:
    """The class of the backbone that runs a model."""
    # What is not fetched is said as such, and the command names the index alone: nothing else is known of the model.
    known = backbone_of(WeightsSource(weights, variant, revision).config(".", "model_index.json", required=False))
    if known is None or known[1] is None:
        what = "has no model_index.json that tells what it is" if known is None else f"is {known[0]}"
        raise ValueError(
            f"backbone Auto: {weights} {what}; the backbones {', '.join(_MODULES)} can be named themselves."
        )
    return getattr(importlib.import_module(f"zsvss.backbones.{_MODULES[known[1]]}"), known[1])


def _settings_of(kind: type) -> set[str]:
    """Names of the settings of a class, with those that it hands on to the class above."""
    names: set[str] = set()
    for above in kind.__mro__:
        if "__init__" in vars(above):
            parameters = inspect.signature(vars(above)["__init__"]).parameters.values()
            names |= {parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD}
            if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names


# What is abstract in a backbone is filled in by the class that is chosen: this one can be chosen, too.
Auto.__abstractmethods__ = frozenset()


def _never() -> NoReturn:
    raise AssertionError("an object of another class is made")
