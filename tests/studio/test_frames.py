from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from zsvss.results.predictions import Source
from zsvss.studio.frames import Frames, FramesError, Kept


def images(folder: Path, *, turned: bool = False, kind: str = "jpg") -> tuple[Frames, np.ndarray]:
    rng = np.random.default_rng(0)
    frames_THW3 = np.repeat(np.repeat(rng.integers(0, 256, (3, 4, 6, 3), np.uint8), 16, 1), 16, 2)
    for number, frame_HW3 in enumerate(frames_THW3):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3 if turned else 1
        Image.fromarray(frame_HW3).save(folder / f"{number}.{kind}", quality=95, exif=exif)
    return Frames(Source(str(folder), tuple(f"{n}.{kind}" for n in range(3)))), frames_THW3


def shown(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_page_sees_what_is_segmented(tmp_path: Path, kind: str, turned: bool) -> None:
    frames, frames_THW3 = images(tmp_path, turned=turned, kind=kind)
    for number in (2, 0, 1):
        upright = frames_THW3[number][::-1, ::-1] if turned else frames_THW3[number]
        assert np.abs(frames.read(number).astype(int) - upright).mean() < 6
        assert np.abs(shown(frames.jpeg(number)) - frames.read(number)).mean() < 6
    if kind == "jpg" and not turned:
        assert frames.jpeg(1) == (tmp_path / "1.jpg").read_bytes()
    frames.close()


def test_frames_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    frames, _ = images(tmp_path)
    with pytest.raises(FramesError, match="frame 8"):
        frames.read(7)
    (tmp_path / "1.jpg").unlink()
    for broken in (
        Frames(Source(str(tmp_path), ("0.jpg", "1.jpg"))),
        Frames(Source(str(tmp_path / "no.mp4"))),
        Frames(Source()),
    ):
        with pytest.raises(FramesError, match=r"put the video back|generated"):
            broken.jpeg(0)
        broken.close()
    sized = Frames(Source(str(tmp_path), ("0.jpg",)), (10, 10))
    with pytest.raises(FramesError, match="is 96x64, its masks are 10x10"):
        sized.read(0)
    sized.close()
    frames.close()


def test_what_was_used_longest_ago_makes_room() -> None:
    kept: Kept[str] = Kept(10)
    for name in "abc":
        kept.put(name, name, 4)
    assert [kept.get(name) for name in "abc"] == [None, "b", "c"]
    kept.get("b")
    kept.put("d", "d", 4)
    assert [kept.get(name) for name in "bcd"] == ["b", None, "d"]
    kept.put("large", "large", 99)
    assert kept.get("large") == "large"
    assert kept.get("d") is None
