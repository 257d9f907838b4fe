"""The command line: ``zsvss COMMAND ...`` or ``python -m zsvss.run COMMAND ...``; this module only finds the command.

Each command is imported when it is asked for, so that help and mistakes are told at once, and none pays for another's
libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from zsvss.commands.interruption import EXIT_CODE, Interrupted, answer_from_now_on, leaving
from zsvss.commands.refusals import did_you_mean, fail, tell
from zsvss.commands.usage import program


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        module: where it lies; imports nothing heavy before the arguments are known to be right.
        function: takes the arguments behind the command's name; returns the exit code.
        says: what it does, for ``--help``.
    """

    module: str
    function: str
    says: str


COMMANDS = {
    "predict": Command("zsvss.commands.front", "predict", "segment a video file, or a folder of images or videos"),
    "test": Command("zsvss.commands.front", "test", "segment the videos of a benchmark and score them"),
    "sweep": Command("zsvss.commands.sweep", "main", "run a grid of settings: ablations, several seeds"),
    "report": Command("zsvss.commands.report", "main", "make tables and a page of finished runs"),
    "bench": Command("zsvss.bench.command", "main", "measure speed and memory of the method on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(program({command: described.says for command, described in COMMANDS.items()}))
        return 0
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        hint = (
            " The command comes first: zsvss test --config NAME" if what == "option" else did_you_mean(name, COMMANDS)
        )
        fail(f"unknown {what} {name}.{hint}", 2)
    command = COMMANDS[name]
    with leaving(lambda: "stopped; start the same command again"):
        try:
            code: int = getattr(import_module(command.module), command.function)(rest)
        except Interrupted:
            tell("\nstopped; start the same command again")
            code = EXIT_CODE
    return code


def console() -> int:
    """`main` for a process of its own, whose last moments are covered too."""
    code = main()
    answer_from_now_on(lambda: "the command had ended: all that it writes is written")
    return code


if __name__ == "__main__":
    sys.exit(console())
