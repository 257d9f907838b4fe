"""What the tests of sweeps call in a process before its command line."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from types import SimpleNamespace
from typing import IO, Any

from warm_python import Start, fork

from zsvss.commands import sweep_cells


def fork_cells() -> None:
    """Let cells be forks, which import nothing anew."""
    sweep_cells.subprocess = SimpleNamespace(run=run_fork, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]  # a fork


def run_fork(command: list[str], *, stdout: IO[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run Python's command line in a fork, which inherits every lock."""
    start = Start(command[1:], os.getcwd())
    process = multiprocessing.get_context("fork").Process(target=fork, args=(start, (stdout.name, stdout.name)))
    process.start()
    process.join()
    return subprocess.CompletedProcess(command, process.exitcode)
