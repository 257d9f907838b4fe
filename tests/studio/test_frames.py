from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags, Image

from zsvss.results.predictions import Source
from zsvss.studio.copies import SPARED_BYTES, Copies
from zsvss.studio.frames import Frames, FramesError, Kept
from zsvss.studio.newest_first import NewestFirst, SupersededError
from zsvss.viz.browser_video import BrowserVideo


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


def test_frames_of_a_file_are_copied_and_the_copies_leave_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), np.uint8)
    frames_THW3 = np.repeat(np.repeat(pixels, 16, 1), 16, 2)
    with BrowserVideo(tmp_path / "video.mp4", fps=25) as movie:
        for frame_HW3 in frames_THW3:
            movie.write(frame_HW3)
    place = tmp_path / "place"
    place.mkdir()
    frames = Frames(Source(str(tmp_path / "video.mp4")), (64, 96), place)
    last = shown(frames.jpeg(8))
    frames.wait_for_copies()
    assert frames._copies is not None
    assert all(number in frames._copies for number in range(9))
    for number in (3, 0, 8):
        assert np.abs(shown(frames.jpeg(number)) - frames.read(number)).mean() < 6
        other = Frames(Source(str(tmp_path / "video.mp4")), (64, 96))
        np.testing.assert_array_equal(other.read(number), frames.read(number))
        other.close()
    np.testing.assert_array_equal(last, shown(frames.jpeg(8)))
    assert 5 not in frames._frames
    np.testing.assert_array_equal(frames.seen(5), shown(frames.jpeg(5)))
    assert np.abs(frames.seen(5).astype(int) - frames.read(5)).mean() < 6
    np.testing.assert_array_equal(frames.seen(5), frames.read(5), err_msg="the frame itself, where it is at hand")
    assert list(place.iterdir()) == []
    frames.close()


def test_copies_end_where_there_is_no_more_room(tmp_path: Path) -> None:
    copies = Copies(tmp_path, limit=10)
    assert copies.put(7, b"seven")
    assert copies.put(3, b"three")
    assert not copies.put(4, b"4")
    assert [copies.get(number) for number in (3, 4, 7)] == [b"three", None, b"seven"]
    assert list(tmp_path.iterdir()) == []
    copies.close()
    assert copies.get(7) is None


def test_copies_leave_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SPARED_BYTES + 5
    monkeypatch.setattr("zsvss.studio.copies.shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    copies = Copies(tmp_path)
    assert copies.put(0, b"12345")
    assert not copies.put(1, b"123456")
    assert (copies.get(0), copies.get(1)) == (b"12345", None)
    copies.close()


def test_a_video_file_that_is_replaced_while_it_is_open_is_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("video.mp4", "other.mp4")):
        with BrowserVideo(tmp_path / name, fps=25) as movie:
            for _ in range(1 + number):
                movie.write(np.full((32, 48, 3), 90, np.uint8))
    frames = Frames(Source(str(tmp_path / "video.mp4")), (32, 48))
    frames.jpeg(0)
    (tmp_path / "other.mp4").replace(tmp_path / "video.mp4")
    with pytest.raises(FramesError, match=r"video\.mp4 cannot be opened \(it has changed while .* put the video back"):
        frames.facts()
    frames.close()


def test_frames_are_shown_where_no_copy_can_be_made(tmp_path: Path) -> None:
    with BrowserVideo(tmp_path / "video.mp4", fps=25) as movie:
        movie.write(np.full((32, 48, 3), 90, np.uint8))
    frames = Frames(Source(str(tmp_path / "video.mp4")), (32, 48), tmp_path / "gone")
    assert np.abs(shown(frames.jpeg(0)).astype(int) - 90).max() < 6
    frames.wait_for_copies()
    assert 0 in frames._jpegs
    frames.close()


def test_what_was_asked_for_last_is_done_first_and_the_oldest_are_given_up() -> None:
    newest: NewestFirst[int] = NewestFirst("test", most=2)
    running, may_go_on, order = threading.Event(), threading.Event(), list[int]()

    def first() -> int:
        running.set()
        may_go_on.wait(20)
        return 0

    def ask(number: int) -> int | str:
        try:
            return newest.do(lambda: order.append(number) or number)
        except SupersededError as error:
            return str(error)

    with ThreadPoolExecutor(4) as people:
        answers = [people.submit(newest.do, first)]
        running.wait(20)
        for number in (1, 2, 3):
            answers.append(people.submit(ask, number))
            while not (answers[1].done() if number == 3 else len(newest._waiting) == number):
                threading.Event().wait(0.001)
        may_go_on.set()
        said = [answer.result(20) for answer in answers]
    assert said[0] == 0
    assert "asked for meanwhile" in said[1]
    assert said[2:] == [2, 3]
    assert order == [3, 2]
    with pytest.raises(KeyError):
        newest.do(lambda: {}["what it raises is told"])
    newest.close()
    with pytest.raises(SupersededError):
        newest.do(first)
