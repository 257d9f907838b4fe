"""The command line: ``zsvss COMMAND ...`` or ``python -m zsvss.run COMMAND ...``; this module only finds the command.

Each command is imported when it is asked for, so that help and mistakes are told at once, and none pays for another's
libraries. What `main` itself needs is imported where Ctrl-C is answered.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from zsvss.commands.interruption import EXIT_CODE, Interrupted, answer_from_now_on, end_process, leaving, tell


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        module: where it lies; imports nothing heavy before the arguments are known to be right.
        function: takes the arguments after the command's name; returns the exit code.
        says: what it does, for ``--help``.
    """

    module: str
    function: str
    says: str


COMMANDS = {
    "predict": Command(
        "zsvss.commands.before_torch", "predict", "segment a video file, or a folder of images or videos"
    ),
    "test": Command("zsvss.commands.before_torch", "test", "segment the videos of a benchmark and score them"),
    "sweep": Command("zsvss.commands.sweep", "main", "run a grid of settings: ablations, several seeds"),
    "report": Command("zsvss.commands.report", "main", "make tables and a page of finished runs"),
    "export": Command("zsvss.commands.export", "main", "write predictions as COCO, YOLO, CVAT, Label Studio, ..."),
    "studio": Command("zsvss.commands.studio", "main", "name, mend and propagate segments on a local page"),
    "bench": Command("zsvss.bench.command", "main", "measure speed and memory of the method on this machine"),
}

_STOPPED = "stopped; start the same command again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with leaving(lambda: _STOPPED):
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
        except Interrupted as stopped:
            tell(str(stopped))
            return EXIT_CODE


def _run(arguments: Sequence[str]) -> int:
    from zsvss.commands.refusals import did_you_mean, fail
    from zsvss.commands.usage import program

    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        print(program({command: described.says for command, described in COMMANDS.items()}))
        return 0
    if name.startswith("-"):
        fail(f"{name}: the command comes first, such as zsvss test {name} ... Known: {', '.join(COMMANDS)}", 2)
    if name not in COMMANDS:
        fail(f"unknown command {name}.{did_you_mean(name, COMMANDS)}", 2)
    command = COMMANDS[name]
    try:
        code: int = getattr(import_module(command.module), command.function)(rest)
    except ModuleNotFoundError as error:
        if find_spec("lightning") is not None:
            raise
        fail(
            f"{sys.executable} has no {error.name}: zsvss is not installed for this Python. In a clone of the "
            "repository run `make install`, then `. .venv/bin/activate`",
            1,
        )
    return code


def console() -> int:
    """`main` for a process of its own, whose last moments are covered too."""
    answer_from_now_on(lambda: _STOPPED)
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # what is read through `| head` has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if code == EXIT_CODE:
        end_process(code)
    answer_from_now_on(lambda: "the command had ended: all that it writes is written")
    return code


if __name__ == "__main__":
    sys.exit(console())
