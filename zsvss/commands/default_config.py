"""The config that ``predict`` takes if no whole one is given: Stable Diffusion's if its weights are at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zsvss.backbones.base import Backbone
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.commands.config_files import SMALL, SMALL_WITH_MASKS, config_paths, find_config, has_masks, names_no_system
from zsvss.commands.interruption import tell

_FULL = "predict.yaml"


def with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``predict`` with a config, if they name none or only configs on top; says which one it is.

    Args:
        arguments: the command's name and its options; those of other commands are left as they are.
    """
    if arguments[0] != "predict" or not names_no_system(arguments):
        return list(arguments)
    return [arguments[0], "--config", str(find_config(_chosen(arguments))), *arguments[1:]]


def _chosen(arguments: Sequence[str]) -> str:
    words = " ".join(arguments)
    small = SMALL_WITH_MASKS if has_masks(arguments) else SMALL
    if "--model.backbone" in words:
        return small if "--model.backbone Embedded" in words or "--model.backbone=Embedded" in words else _FULL
    backbone = StableDiffusion()
    name = backbone.weights_names[0]
    on_top = [Path(path).name for path in config_paths(arguments)]
    reason = f"{', '.join(on_top)} alone" if on_top else "no config"
    if is_on_this_machine(backbone):
        tell(
            f"{reason} given: taking {_FULL}, as the weights of Stable Diffusion ({name}) are on this machine. For "
            f"the small model that ships with the package, add --config {small}"
        )
        return _FULL
    tell(
        f"{reason} given: taking {small}, the small model that ships with the package, as the weights of Stable "
        f"Diffusion ({name}) are not on this machine. To fetch and use them (5 GB), add --config {_FULL}"
    )
    return small


def is_on_this_machine(backbone: Backbone) -> bool:
    """Whether a backbone's weights can be read without a network; damaged ones are there, and refused when read."""
    try:
        with _offline():
            backbone.check()
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client answer from this machine alone."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
