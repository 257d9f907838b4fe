"""Refusals in one line: what was found, what is allowed, what to do; unknown names with the near misses."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

_SUFFIXES = (".yaml", ".yml")
_MOST_LISTED = 100


def fail(message: str, code: int) -> NoReturn:
    """Print one clear error and leave."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def did_you_mean(wrong: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Sentence that lists the nearest names, or all of them where none is near and they are few.

    A dotted name whose last part is the wrong one's is the nearest: a key is often given without the parts before it.

    Args:
        wrong: what was given.
        known: what is allowed.
        prefix: to write before each name.

    >>> did_you_mean("vspw_ds.yaml", ["vspw_sd.yaml", "camvid_sd.yaml"])
    ' Did you mean vspw_sd.yaml?'
    >>> did_you_mean("x", ["vspw_sd.yaml", "camvid_sd.yaml"])
    ' Known: camvid_sd.yaml, vspw_sd.yaml.'
    >>> did_you_mean("model.num_clusters", ["model.context.num_clusters", "model.consistency"], prefix="--")
    ' Did you mean --model.context.num_clusters?'
    """
    known = sorted(set(known))
    near = {name: _likeness(wrong, name) for name in known}
    near = {name: likeness for name, likeness in near.items() if likeness >= 0.6}
    if near:
        best = [name for name in sorted(near, key=lambda name: -near[name]) if near[name] > max(near.values()) - 0.1]
        return f" Did you mean {' or '.join(prefix + name for name in best[:3])}?"
    return f" Known: {', '.join(prefix + name for name in known)}." if 0 < len(known) <= _MOST_LISTED else ""


def _likeness(wrong: str, name: str) -> float:
    """How likely the one was meant for the other, 0..2."""
    wrong, name = wrong.lower(), name.lower()
    ratio = _ratio(wrong, name)
    if name.endswith(_SUFFIXES):
        last, last_wrong = (re.sub(r"\.ya?ml$", "", path.rpartition("/")[2]) for path in (name, wrong))
    else:
        last, last_wrong = name.rpartition(".")[2], wrong.rpartition(".")[2]
        if last == last_wrong and last != name:
            return 1 + ratio
    ratio = max(ratio, _ratio(last_wrong, last) - 0.05)
    # A name is often cut short rather than mistyped.
    return max(ratio, 0.6) if len(wrong) > 3 and wrong in name else ratio


def _ratio(wrong: str, name: str) -> float:
    return difflib.SequenceMatcher(None, wrong, name).ratio()


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, with the near misses, instead of its usage."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave."""
        wrong = message.removeprefix("unrecognized arguments: ").split()[0]
        near = ""
        if message.startswith("unrecognized arguments: ") and wrong.startswith("-"):
            message = f"unknown option {wrong}."
            near = did_you_mean(
                wrong.lstrip("-"),
                [name.lstrip("-") for name in self._option_string_actions if name[:2] == "--"],
                prefix="--",
            )
        fail(f"{self.prog}: {message}{near} `{self.prog} --help` lists all options", 2)
