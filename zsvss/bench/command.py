"""``zsvss.run bench``: the modes of the method, with ``--page`` all about a GPU, with ``--data-only`` the reading."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    if "--data-only" in arguments:
        from zsvss.bench import reading

        return reading.main(arguments)
    if "--page" in arguments:
        from zsvss.bench import page

        return page.main(arguments)
    from zsvss.bench import modes

    return modes.main(arguments)
