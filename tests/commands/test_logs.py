"""What is written on the screen."""

from __future__ import annotations

import logging
import sys

import pytest

from zsvss.commands.logs import quiet_console


def test_a_message_is_said_once_and_never_to_a_closed_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    monkeypatch.setattr(logging.getLogger("zsvss"), "handlers", [])
    screen = sys.stderr
    with (tmp_path / "closed.txt").open("w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        quiet_console()
    monkeypatch.setattr(sys, "stderr", screen)
    quiet_console()
    logging.getLogger("zsvss.somewhere").warning("said")
    assert capsys.readouterr().err == "said\n"


def test_lightning_is_silenced_on_the_screen_alone(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """What others attach to its loggers still gets all, such as a file of a notebook, or pytest's own handlers."""
    monkeypatch.setattr(logging.getLogger("zsvss"), "handlers", [])
    screen, file = logging.StreamHandler(), logging.FileHandler(tmp_path / "own.txt")
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "handlers", [screen, file])
    quiet_console()
    file.close()
    assert (screen.level, file.level) == (logging.ERROR, logging.NOTSET)
