"""Workers of a sweep with a stand-in for the run: what fails is told and does not stop the others."""

from __future__ import annotations

import fcntl
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from zsvss.commands.sweep_cells import Cell, claimed, failure, is_finished, work

# Called as `python -m zsvss.run test <behaviour> --output <folder>`.
STAND_IN = """\
#!/bin/sh
echo "$4" >> "$(dirname "$6")/calls"
metrics() { echo "{\\"failures\\": $1, \\"unfinished\\": [], \\"num_videos_expected\\": 7}" > "$6/metrics.json"; }
case "$4" in
    wrong) echo "half of it is done"; echo "error: no such folder;" >&2; echo "set data.root" >&2; exit 1 ;;
    crash) echo "Traceback"; echo "KeyError: 1"; exit 1 ;;
    silent) exit 5 ;;
    killed) kill -9 $$ ;;
    unread) metrics '{"bear": "bear/3.jpg is damaged"}' 2 3 4 5 "$6"; exit 3 ;;
    good) metrics '{}' 2 3 4 5 "$6" ;;
esac
"""
REASONS = {
    "wrong": "no such folder; set data.root",
    "crash": "KeyError: 1",
    "silent": "exit code 5",
    "killed": "killed by SIGKILL",
    "unread": "1 of 7 videos are missing (bear: bear/3.jpg is damaged)",
}


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    return [Cell(name, tmp_path / name, (name,)) for name in (*REASONS, "good")]


def test_failures_are_told_and_do_not_stop_the_others(cells: list[Cell], tmp_path: Path) -> None:
    ended: list[str] = []
    work(cells, "first", lambda cell: ended.append(cell.name))
    assert ended == [cell.name for cell in cells]
    assert {cell.name: failure(cell)["reason"] for cell in cells[:-1]} == REASONS
    assert [cell.name for cell in cells if is_finished(cell)] == ["good"]

    work(cells, "first")  # another worker of the same start
    calls = (tmp_path / "calls").read_text().split()
    assert calls == ended, "failed cells were tried twice"

    work(cells, "second")
    calls = (tmp_path / "calls").read_text().split()
    assert calls == [*ended, *REASONS], "failed cells are tried again by the next start, finished ones are not"


def test_a_cell_in_other_hands_is_waited_for(cells: list[Cell], tmp_path: Path) -> None:
    first, good = cells[0], cells[-1]
    with claimed(first) as lock:
        assert lock is not None
        with claimed(first) as again:
            assert again is None
        worker = threading.Thread(target=work, args=([first, good], "start"))
        worker.start()
        deadline = time.monotonic() + 30
        while not is_finished(good) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not failure(first), "the other cell was done in between"
        # What has the lock finishes its cell.
        (first.folder / "metrics.json").write_text(json.dumps({"failures": {}, "unfinished": []}))
        fcntl.flock(lock, fcntl.LOCK_UN)
        worker.join(timeout=30)
    assert not worker.is_alive()
    assert (tmp_path / "calls").read_text().split() == ["good"]
