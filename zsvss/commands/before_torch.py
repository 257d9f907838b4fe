"""What ``test`` and ``predict`` do before PyTorch is imported: help, and errors in the arguments."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import yaml

from zsvss.commands import usage
from zsvss.commands.config_files import SMALL_WITH_MASKS, has_masks, names_no_system, resolve_configs
from zsvss.commands.early_checks import CommandLineWords, look, take_apart
from zsvss.commands.interruption import leaving
from zsvss.commands.refusals import fail

ASSUMED = "predict.yaml"
"""What ``predict`` is like without a config, or below configs on top alone, whichever backbone it then takes."""


def test(arguments: Sequence[str]) -> int:
    """Score a benchmark; returns the exit code."""
    return _run("test", arguments)


def predict(arguments: Sequence[str]) -> int:
    """Segment videos; returns the exit code."""
    return _run("predict", arguments)


def _run(command: str, arguments: Sequence[str]) -> int:
    words = take_apart(arguments)
    if words.wants_help:
        print(usage.command(command, words.others[0] if words.others else ""))
        return 0
    words = _with_input(command, words).with_configs_first()
    look(command, words, _assumed(command, words))
    with leaving(lambda: "stopped before the run began: nothing was written; start the same command again"):
        run: Callable[[list[str]], int] = _imported("zsvss.commands.lightning").main
    return run([command, *resolve_configs(words.arguments())])


def _imported(name: str) -> ModuleType:
    """A module and all that it imports, without garbage collections, which would take long and find nothing.

    Later ones pass over what is there now, which stays as long as the process.
    """
    if name in sys.modules:
        return sys.modules[name]
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        module = import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
    return module


def _assumed(command: str, words: CommandLineWords) -> list[str]:
    """The config of the package that goes below what is given; configs that cannot be read are refused later."""
    arguments = words.arguments()
    try:
        is_needed = command == "predict" and names_no_system(arguments)
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return [SMALL_WITH_MASKS if has_masks(arguments) else ASSUMED] if is_needed else []


def _with_input(command: str, words: CommandLineWords) -> CommandLineWords:
    """The video of ``predict VIDEO`` as an option."""
    if not words.others:
        return words
    first, *more = words.others
    if first.endswith((".yaml", ".yml")):
        fail(f"unexpected {first!r}: a config is given by --config {first}", 2)
    if command != "predict":
        fail(f"unexpected {first!r}: {command} takes options alone, such as --data.input {first}", 2)
    if more:
        fail(
            f"predict takes one video or folder; found {len(words.others)}: {', '.join(words.others)}. Give a folder "
            "that holds them",
            2,
        )
    return words._replace(given=[*words.given, ("--data.input", first)], others=[])
