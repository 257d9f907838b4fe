"""The written video has the source's times, its pixels' shape, and colours that are what its tags say."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from zsvss.data.reader import open_frames
from zsvss.data.video_facts import VideoFacts
from zsvss.viz.browser_video import BrowserVideo

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 4, 6, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)


def written(path: Path, frames: np.ndarray = FRAMES, **options: object) -> VideoFacts:
    with BrowserVideo(path, **options) as video:
        for frame in frames:
            video.write(frame)
    return open_frames(path).facts


@pytest.mark.parametrize(
    ("time_base", "stamps", "last"),
    [
        (Fraction(1, 1000), (500, 540, 700, 740, 1900, 1940), 40),
        (Fraction(1001, 30000), (0, 1, 2, 5, 6, 9), 1),
        (Fraction(1, 10**9), (0, 40_000_000, 90_000_000, 90_000_001, 10**9, 2 * 10**9), 10**8),
        (Fraction(1, 90000), (0, 3003, 6006, 9009, 12012, 15015), 0),
    ],
)
def test_every_frame_is_shown_when_the_source_shows_it(
    tmp_path: Path, time_base: Fraction, stamps: tuple[int, ...], last: int
) -> None:
    source = VideoFacts(6, (64, 96), stamps, time_base, last)
    facts = written(tmp_path / "a.mp4", source=source)
    np.testing.assert_allclose(facts.times, source.times, atol=1e-4)
    assert facts.duration == pytest.approx(source.duration, abs=0.05)


def test_a_named_rate_is_constant(tmp_path: Path) -> None:
    source = VideoFacts(6, (64, 96), (0, 1, 2, 30, 31, 32), Fraction(1, 25), 1)
    np.testing.assert_allclose(written(tmp_path / "a.mp4", fps=12.5, source=source).times, np.arange(6) / 12.5)
    np.testing.assert_allclose(written(tmp_path / "b.mp4").times, np.arange(6) / 15, atol=1e-4)


def test_frames_after_the_sources_last_follow_at_its_rate(tmp_path: Path) -> None:
    source = VideoFacts(3, (64, 96), (0, 1, 2), Fraction(1, 10), 1)
    np.testing.assert_allclose(written(tmp_path / "a.mp4", source=source).times, np.arange(6) / 10)


def test_shape_of_pixels_is_kept(tmp_path: Path) -> None:
    source = VideoFacts(6, (64, 96), (), sample_aspect_ratio=Fraction(16, 15))
    assert written(tmp_path / "a.mp4", source=source).sample_aspect_ratio == Fraction(16, 15)


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
def test_colours_are_tagged_as_what_they_are(tmp_path: Path, size: tuple[int, int]) -> None:
    colour = np.array([200, 30, 60], np.uint8)
    path = tmp_path / "a.mp4"
    written(path, np.broadcast_to(colour, (2, *size, 3)))
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)
    assert np.abs(open_frames(path).read(0, 1).numpy().astype(int) - colour).max() <= 3


def test_a_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert written(Path("take:1.mp4")).num_frames == 6
