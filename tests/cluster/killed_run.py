"""``python killed_run.py MOMENT COUNT ARGUMENTS..``: a run that is killed by SIGKILL the COUNT-th time MOMENT comes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zsvss.records
from zsvss.backbones.unet import UNetBackbone
from zsvss.callbacks.results import ResultWriter
from zsvss.callbacks.store import ResultStore
from zsvss.data.loader import _PlannedClips
from zsvss.run import main

MAIN = os.getpid()


def kill(_: Any = None) -> None:
    os.kill(MAIN, signal.SIGKILL)
    os._exit(1)  # a worker's own end; the main process does not come here


def half_written(handle: int) -> None:
    """The record's temporary file has half of its bytes."""
    os.ftruncate(handle, os.fstat(handle).st_size // 2)
    kill()


def at(count: int, function: Callable[..., Any], event: Callable[..., None], after: bool = False) -> Callable[..., Any]:
    """The function with an event before or after its ``count``-th call."""
    calls = 0

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and not after:
            event(arguments[0])
        result = function(*arguments, **keywords)
        if calls == count and after:
            event(arguments[0])
        return result

    return counted


def arm(moment: str, count: int) -> None:
    if moment == "decoding":
        _PlannedClips._read = at(count, _PlannedClips._read, kill)
    elif moment == "clip":
        UNetBackbone.record = at(count, UNetBackbone.record, kill)
    elif moment == "record":
        # The calls for a record: its file, then its folder; before them come run.json and its folder.
        zsvss.records.os.fsync = at(2 * count + 1, os.fsync, half_written)
    elif moment == "between":
        finished = ResultStore._write
        ResultStore._write = at(count, finished, kill, after=True)
    elif moment == "end":
        ResultWriter.on_test_end = at(1, ResultWriter.on_test_end, kill)
    else:
        raise SystemExit(f"unknown moment {moment}")


if __name__ == "__main__":
    moment, count, *arguments = sys.argv[1:]
    Path(f"armed-{moment}").touch()
    arm(moment, int(count))
    sys.exit(main(arguments))
