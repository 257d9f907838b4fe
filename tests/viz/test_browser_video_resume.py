"""Overlays that a killed process leaves: they play, and are gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import numbered_frames, numbers_of

from zsvss.viz.browser_video import BrowserVideo, num_whole_frames


def frames_of(path: Path) -> tuple[list[int], list[float]]:
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    return numbers_of(np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])), [f.time for f in decoded]


@pytest.mark.parametrize("num_kept", [1, 12, 29, 30])
def test_goes_on_where_a_killed_process_stopped(tmp_path: Path, num_kept: int) -> None:
    frames = numbered_frames(40)
    killed = BrowserVideo(tmp_path / "killed.mp4", fps=10)
    for frame in frames[:30]:
        killed.write(frame)
    path = tmp_path / "overlay.mp4"
    shutil.copy(tmp_path / "killed.mp4", path)  # as it lies there without being closed
    assert frames_of(path)[0] == list(range(29))

    movie = BrowserVideo(path, fps=10)
    movie.resume(num_kept, frames[num_kept - 1])
    for frame in frames[num_kept:]:
        movie.write(frame)
    movie.close()
    numbers, times = frames_of(path)
    assert numbers == list(range(40))
    np.testing.assert_allclose(times, np.arange(40) / 10, atol=1e-3)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"moof" not in content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed.mp4", "overlay.mp4"]
    killed.close()


def left_by_a_killed_process(path: Path, num_frames: int) -> None:
    movie = BrowserVideo(path.with_name("killed.mp4"), fps=10)
    for frame in numbered_frames(num_frames):
        movie.write(frame)
    shutil.copy(path.with_name("killed.mp4"), path)
    movie.close()


def resumed(path: Path, frames: np.ndarray) -> list[int]:
    """Go on after the ninth frame, to the end; returns the numbers of the frames that the video then has."""
    movie = BrowserVideo(path, fps=10)
    movie.resume(9, frames[8])
    for frame in frames[9:]:
        movie.write(frame)
    movie.close()
    return frames_of(path)[0]


def test_a_resume_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, frames = tmp_path / "overlay.mp4", numbered_frames(12)
    left_by_a_killed_process(path, 10)
    original = BrowserVideo._copy
    for num_copied in (0, 3):

        def dies(self: BrowserVideo, num_frames: int, num_copied: int = num_copied) -> None:
            original(self, num_copied)
            raise KeyboardInterrupt

        monkeypatch.setattr(BrowserVideo, "_copy", dies)
        with pytest.raises(KeyboardInterrupt):
            BrowserVideo(path, fps=10).resume(9, frames[8])
        assert num_whole_frames(path) >= 8
    monkeypatch.undo()
    assert resumed(path, frames) == list(range(12))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["killed.mp4", "overlay.mp4"]


def test_a_torn_last_fragment_is_written_again(tmp_path: Path) -> None:
    path, frames = tmp_path / "overlay.mp4", numbered_frames(12)
    left_by_a_killed_process(path, 10)
    content = path.read_bytes()
    last = content.rindex(b"moof")
    for size in (last + 20, content.rindex(b"mdat") + 8, len(content) - 1):
        path.write_bytes(content[:size])
        assert num_whole_frames(path) == 8
        assert resumed(path, frames) == list(range(12))


def test_what_an_earlier_start_left_goes_when_the_video_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "overlay.mp4"
    path.with_name(".tmp-overlay.mp4").write_bytes(b"torn")
    with BrowserVideo(path, fps=10) as movie:
        movie.write(numbered_frames(1)[0])
    assert [entry.name for entry in tmp_path.iterdir()] == ["overlay.mp4"]
    assert frames_of(path)[0] == [0]


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path) -> None:
    frames = numbered_frames(3)
    path = tmp_path / "overlay.mp4"
    with pytest.raises(ValueError, match="has 0 frames that can be read where 2 are expected"):
        BrowserVideo(path).resume(2, frames[1])
    with BrowserVideo(path) as movie:
        movie.write(frames[0])
    with pytest.raises(ValueError, match="has 1 frames that can be read where 3 are expected"):
        BrowserVideo(path).resume(3, frames[2])


def test_times_that_frames_tell(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.54]
    with BrowserVideo(tmp_path / "v.mp4", fps=25) as movie:
        for frame, time in zip(numbered_frames(4), times, strict=True):
            movie.write(frame, time)
    np.testing.assert_allclose(frames_of(tmp_path / "v.mp4")[1], times, atol=1e-4)
