"""The config that ``predict`` takes where none is given: Stable Diffusion's if its weights are at hand."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from zsvss.backbones.base import Backbone
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.commands.config import config_paths, find_config

_log = logging.getLogger(__name__)
_FULL, _SMALL = "predict.yaml", "predict_embedded.yaml"


def with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments of ``predict`` with a config, if they name none; which one, and how to get the other, is logged.

    Args:
        arguments: the command's name and its options; those of other commands are left as they are.
    """
    if arguments[0] != "predict" or config_paths(arguments):
        return list(arguments)
    return [arguments[0], "--config", str(find_config(_chosen(arguments))), *arguments[1:]]


def _chosen(arguments: Sequence[str]) -> str:
    words = " ".join(arguments)
    if "--model.backbone" in words:
        return _SMALL if "--model.backbone Embedded" in words or "--model.backbone=Embedded" in words else _FULL
    backbone = StableDiffusion()
    name = backbone.weights_names[0]
    if is_on_this_machine(backbone):
        _log.warning(
            "no config is given: Stable Diffusion, whose weights (%s) are on this machine, as in --config %s; the small "
            "model that ships with the package: --config %s",
            name, _FULL, _SMALL,
        )  # fmt: skip
        return _FULL
    _log.warning(
        "no config is given: the small model that ships with the package, which has only seen generated scenes, as in "
        "--config %s, since the weights of Stable Diffusion (%s) are not on this machine; to fetch and use them (5 GB): "
        "--config %s",
        _SMALL, name, _FULL,
    )  # fmt: skip
    return _SMALL


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
