"""Overlays that a killed process leaves: they play, and are gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import numbered_frames, numbers_of

from zsvss.viz.browser_video import BrowserVideo


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


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path) -> None:
    frames = numbered_frames(3)
    path = tmp_path / "overlay.mp4"
    with pytest.raises(ValueError, match="cannot be read"):
        BrowserVideo(path).resume(2, frames[1])
    with BrowserVideo(path) as movie:
        movie.write(frames[0])
    with pytest.raises(ValueError, match="has 1 frames where 3 are expected"):
        BrowserVideo(path).resume(3, frames[2])


def test_times_that_frames_tell(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.54]
    with BrowserVideo(tmp_path / "v.mp4", fps=25) as movie:
        for frame, time in zip(numbered_frames(4), times, strict=True):
            movie.write(frame, time)
    np.testing.assert_allclose(frames_of(tmp_path / "v.mp4")[1], times, atol=1e-4)
