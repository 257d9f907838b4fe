"""Ctrl-C while a run imports, before its first video, within a video and after one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_run import CONFIG
from warm_python import WarmPython, command_line

from zsvss.commands import interruption
from zsvss.commands.interruption import Interrupted, answer_other_ends, ending_in_order, leaving

INTERRUPT = str(Path(__file__).with_name("interrupt.py"))


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _LeftError(Exception):
    pass


def test_the_first_ends_in_order_and_the_second_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(code: int) -> None:
        raise _LeftError(code)

    monkeypatch.setattr("os._exit", leave)
    with ending_in_order(lambda: "3 kept"):
        with pytest.raises(Interrupted, match="3 kept"):
            signal.raise_signal(signal.SIGINT)
        assert capsys.readouterr().err == "\nstopping; Ctrl-C once more ends at once\n"
        with pytest.raises(_LeftError, match="130"):
            signal.raise_signal(signal.SIGINT)
        assert capsys.readouterr().err == "\n3 kept\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ends_are_answered_though_the_terminal_is_gone(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise _LeftError(code)

    acts: list[str] = []
    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(interruption, "_last_acts", [lambda: acts.append("ended")])
    before = {other: signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, signal.SIG_DFL)  # a caller may have it ignored, as nohup does
        with open("/dev/full", "w") as gone:
            monkeypatch.setattr(sys, "stderr", gone)
            answer_other_ends(lambda: "closed")
            with pytest.raises(_LeftError, match=str(128 + number)):
                signal.raise_signal(number)
            monkeypatch.undo()
            with suppress(OSError):
                gone.close()
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)
    assert acts == ["ended"]


def test_a_switched_off_interrupt_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with leaving(lambda: "left"), ending_in_order(lambda: "ended"):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_forked_processes_leave_it_to_their_parent() -> None:
    with ending_in_order(lambda: ""):
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom zsvss.run import console\n"
    command = [sys.executable, "-c", f"{code}console()", "test", "--config", "tiny.yaml"]
    folder = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | folder, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "\nstopped before the run began: nothing was written; start the same command again\n"
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path


def interrupted(python: WarmPython, folder: Path, module: str, owner: str, function: str) -> str:
    """What a run says that is interrupted after a method; it must end with the code that shells expect."""
    start = command_line(
        ["test", "--config", "tiny.yaml", "--output", "out/run"],
        folder,
        (INTERRUPT, "behind", [module, owner, function]),
    )
    (done,) = python.run(start)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_before_the_first_video(warm_python: WarmPython, folder: Path) -> None:
    said = interrupted(warm_python, folder, "zsvss.results.records", "RecordFolder", "open")
    assert said == "stopped before the first video: nothing was computed; start the same command again"
    assert not (folder / "out").exists()


def test_within_the_first_video(warm_python: WarmPython, folder: Path) -> None:
    said = interrupted(warm_python, folder, "zsvss.backbones.unet", "UNetBackbone", "record")
    assert said == (
        "stopped before the first video was finished: out/run holds a part of it; the same command computes it anew"
    )


def test_after_a_video(warm_python: WarmPython, folder: Path) -> None:
    said = interrupted(warm_python, folder, "zsvss.results.records", "RecordFolder", "write")
    assert said == "stopped: 1 of 2 videos finished and kept in out/run; the same command resumes with the others"
    (again,) = warm_python.run(command_line(["test", "--config", "tiny.yaml", "--output", "out/run"], folder))
    assert again.returncode == 0, again.stderr
    assert "1 of 2 videos were finished by an earlier start" in again.stderr
