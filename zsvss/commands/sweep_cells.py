"""The cells of a sweep and the workers that run them; imports nothing heavy, as workers start by the dozen."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from zsvss.results.atomic_files import write_atomically

_LONGEST_REASON = 300


class Cell(NamedTuple):
    """One point of the grid.

    Attributes:
        name: what is particular about it, such as ``no_context+num_clusters=10``.
        folder: its run folder.
        arguments: of ``zsvss.run test``, without the run folder.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]


def work(cells: Sequence[Cell], start: str, say: Callable[[Cell], None] = lambda cell: None) -> None:
    """Run the cells that nobody has finished and no other worker has in hand.

    A cell stays claimed until its run has ended, even where its worker was killed: whoever comes next waits for it.

    Args:
        cells: in the order to run them.
        start: name of this start; what failed since is not tried again.
        say: is told every cell that has ended.
    """
    pending = list(cells)
    while pending:
        for cell in list(pending):
            with claimed(cell) as lock:
                if lock is None:
                    continue
                if not is_finished(cell) and failure(cell).get("start") != start:
                    run_cell(cell, start, lock)
            pending.remove(cell)
            say(cell)
        if pending:
            time.sleep(0.5)


@contextlib.contextmanager
def claimed(cell: Cell) -> Iterator[IO[str] | None]:
    """The cell's lock, or ``None`` where another worker or a run that has lost its worker has it."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    with (cell.folder / "sweep.lock").open("a") as lock:
        try:
            # Other than the run folder's own lock, this one is inherited: it is free when the last process has ended.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield lock


def run_cell(cell: Cell, start: str, lock: IO[str]) -> None:
    """Run a cell in a process of its own, so that nothing that befalls it befalls the others."""
    (cell.folder / "failed.json").unlink(missing_ok=True)
    screen = cell.folder / "screen.txt"
    command = [sys.executable, "-m", "zsvss.run", "test", *cell.arguments, "--output", str(cell.folder)]
    with screen.open("w") as file:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(lock.fileno(),), check=False
        )
    if done.returncode < 0:
        mark_failed(cell, start, f"killed by {signal.Signals(-done.returncode).name}")
    elif not is_finished(cell):
        said = screen.read_text(encoding="utf-8", errors="replace")
        mark_failed(cell, start, incomplete(cell) or last_error(said) or f"exit code {done.returncode}")


def metrics(cell: Cell) -> dict[str, Any] | None:
    """Content of the cell's ``metrics.json``."""
    try:
        content: dict[str, Any] = json.loads((cell.folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def is_finished(cell: Cell) -> bool:
    """Whether all its videos are scored."""
    found = metrics(cell)
    return found is not None and not found["failures"] and not found["unfinished"]


def incomplete(cell: Cell) -> str | None:
    """Which videos its result lacks, and why; ``None`` without a result."""
    found = metrics(cell)
    return None if found is None else missing_videos(found)


def missing_videos(found: Mapping[str, Any]) -> str:
    """Which videos a ``metrics.json`` lacks, and why."""
    lacking = [f"{name}: {reason}" for name, reason in found["failures"].items()] + list(found["unfinished"])
    return f"{len(lacking)} of {found['num_videos_expected']} videos are missing ({'; '.join(lacking)})"


def failure(cell: Cell) -> dict[str, str]:
    """Content of the cell's ``failed.json``."""
    try:
        content: dict[str, str] = json.loads((cell.folder / "failed.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def mark_failed(cell: Cell, start: str, reason: str) -> None:
    """Write the cell's ``failed.json``."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(reason.split())
    short = text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."
    write_atomically(cell.folder / "failed.json", json.dumps({"start": start, "reason": short}) + "\n")


def last_error(said: str) -> str:
    r"""The error that a run told, from that line on, or the last line it wrote.

    >>> last_error("1 of 2\nerror: no such folder;\nset data.root\n"), last_error("Traceback\nKeyError: 1\n")
    ('no such folder; set data.root', 'KeyError: 1')
    """
    _, found, message = said.rpartition("error: ")
    lines = (message if found else said).split("\n")
    kept = [line.strip() for line in lines if line.strip()]
    return " ".join(kept) if found else (kept[-1] if kept else "")
