"""``zsvss.run bench``: the modes of the method, or with ``--data-only`` the reading of frames."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    if "--data-only" in arguments:
        from zsvss.bench import reading

        return reading.main(arguments)
    from zsvss.bench import modes

    return modes.main(arguments)
