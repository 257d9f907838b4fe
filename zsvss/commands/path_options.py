"""Options whose values are paths: text as it stands, where the parser of options would read YAML.

``--data.input "Swans: the lake.mp4"`` is no mapping, ``[x]`` no list and ``#1.mp4`` no comment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

_KEYS = {
    ("data", "input"): "data.init_args.input",
    ("data", "masks"): "data.init_args.masks",
    ("output",): "output",
}
_NOTHING = ("null", "~", "")


def is_path(key: tuple[str, ...]) -> bool:
    """Whether an option, without the parts that only the parser needs, is a path.

    >>> is_path(("data", "input")), is_path(("data", "name"))
    (True, False)
    """
    return key in _KEYS


def set_aside(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Put words that mean nothing in place of paths that YAML would read as something else than text.

    Returns:
        The arguments; for each such option its key in the parsed settings, and the path.

    >>> set_aside(["predict", "--data.input", "#1.mp4", "--output=a"])
    (['predict', '--data.input', 'path', '--output=a'], {'data.init_args.input': '#1.mp4'})
    """
    kept, paths = list(arguments), dict[str, str]()
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if not equals and place + 1 < len(arguments):
            value = arguments[place + 1]
        key = tuple(part for part in name.removeprefix("--").split(".") if part != "init_args")
        if name.startswith("--") and is_path(key) and not _is_text(key, value):
            paths[_KEYS[key]] = value
            kept[place if equals else place + 1] = f"{name}=path" if equals else "path"
    return kept, paths


def _is_text(key: tuple[str, ...], value: str) -> bool:
    """Whether the parser leaves a value as it is, or it is no path."""
    if value in _NOTHING:
        return key != ("data", "input")
    try:
        read: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        return True
    return read is not None and not isinstance(read, dict | list)
