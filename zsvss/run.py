"""The command line: ``python -m zsvss.run COMMAND ...``; this module only finds the command's own.

Each command is imported when it is asked for, so that none pays for another's libraries.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "test": "zsvss.commands.lightning",
    "predict": "zsvss.commands.lightning",
    "report": "zsvss.commands.report",
    "export": "zsvss.commands.export",
    "sweep": "zsvss.commands.sweep",
    "bench": "zsvss.bench.command",
}
"""Module of each command; its ``main(arguments)`` returns the exit code."""

# Lightning's own parser answers for these, which are given the command's name too.
_LIGHTNING = COMMANDS["test"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    module = COMMANDS.get(arguments[0], _LIGHTNING)
    rest = arguments if module == _LIGHTNING else arguments[1:]
    code: int = import_module(module).main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
