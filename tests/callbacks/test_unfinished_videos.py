"""States of videos that a run has left in their midst."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zsvss.callbacks.unfinished_videos import MidwayFolder


def test_is_read_back_and_forgotten(tmp_path: Path) -> None:
    folder = MidwayFolder(tmp_path / "midway")
    folder.save("a/b", {"place": "x", "points": torch.arange(3)})
    state = folder.read("a/b")
    assert state is not None
    assert (state["place"], state["points"].tolist()) == ("x", [0, 1, 2])
    folder.forget("a/b")
    assert folder.read("a/b") is None
    assert not list(folder.folder.iterdir())


def test_forgetting_a_video_leaves_what_others_are_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = MidwayFolder(tmp_path)

    def save(state: object, file: object) -> None:
        MidwayFolder(tmp_path).forget("other")  # another process is done with its video
        original(state, file)

    original = torch.save
    monkeypatch.setattr(torch, "save", save)
    folder.save("own", {"place": "x"})
    assert folder.read("own") == {"place": "x"}


def test_what_a_killed_process_was_writing_goes_with_its_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = MidwayFolder(tmp_path)

    def dies(state: object, file: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        folder.save("v", {})
    assert list(tmp_path.iterdir())
    folder.forget("v")
    assert not list(tmp_path.iterdir())
