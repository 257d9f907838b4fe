"""Frame i is the i-th frame that a player shows: every container, codec and order of reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from numbered_videos import (
    change_of_size,
    encode,
    numbered_frames,
    numbers_of,
    palette_avi,
    remux,
)

from zsvss.data.clip import clip_starts
from zsvss.data.reader import open_frames
from zsvss.data.readers.by_pyav import PyAVReader
from zsvss.data.readers.pyav_decoding import VideoDecoder
from zsvss.data.readers.pyav_index import index_video

NUM_FRAMES = 50
FRAMES = numbered_frames(NUM_FRAMES)
B_FRAMES = {"bf": "3", "g": "12", "preset": "veryfast"}
OPEN_GOP = B_FRAMES | {"x264-params": "open-gop=1:scenecut=0:b-adapt=0:keyint=12:min-keyint=12"}
HEVC = {"preset": "ultrafast", "x265-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0:log-level=none"}


def written(name: str, codec: str, **options: str) -> Callable[[Path], Path]:
    return lambda folder: encode(folder / name, FRAMES, codec, **options)


def trimmed(folder: Path) -> Path:
    """The first 8 frames are in the file, but an edit list hides them."""
    return remux(encode(folder / "whole.mov", FRAMES, **B_FRAMES), folder / "trimmed.mov", shift=8)


def cut_at_an_open_group(name: str, codec: str, **options: str) -> Callable[[Path], Path]:
    """The file begins with the key frame 12, behind which come frames that are shown before and need what is cut."""

    def cut(folder: Path) -> Path:
        whole = encode(folder / f"whole{Path(name).suffix}", FRAMES, codec, **options)
        return remux(whole, folder / name, first_key=1)

    return cut


# Name -> how it is written, and the numbers of the frames that a player shows.
ALL = range(NUM_FRAMES)
FILES: dict[str, tuple[Callable[[Path], Path], range]] = {
    "h264.mp4": (written("a.mp4", "libx264", **B_FRAMES), ALL),
    "h264.mkv": (written("a.mkv", "libx264", **B_FRAMES), ALL),
    "h264.avi": (written("a.avi", "libx264", **B_FRAMES), ALL),
    "h264.ts": (written("a.ts", "libx264", **B_FRAMES), ALL),
    "h264.flv": (written("a.flv", "libx264", **B_FRAMES), ALL),
    "raw.h264": (written("a.h264", "libx264", **B_FRAMES), ALL),
    "open group of pictures": (written("a.mp4", "libx264", **OPEN_GOP), ALL),
    "open group of pictures, cut": (cut_at_an_open_group("a.ts", "libx264", **OPEN_GOP), range(12, NUM_FRAMES)),
    "edit list": (trimmed, range(8, NUM_FRAMES)),
    "hevc.mp4": (written("a.mp4", "libx265", **HEVC), ALL),
    "hevc.ts": (written("a.ts", "libx265", **HEVC), ALL),
    "mpeg4.avi": (written("a.avi", "mpeg4", bf="2", g="12"), ALL),
    "mpeg4.mp4": (written("a.mp4", "mpeg4", bf="2", g="12"), ALL),
    "mpeg2.mpg": (written("a.mpg", "mpeg2video", bf="2", g="12"), ALL),
    "wmv2.wmv": (written("a.wmv", "wmv2", g="12"), ALL),
    "vp8.webm": (written("a.webm", "libvpx", g="12", **{"auto-alt-ref": "1", "lag-in-frames": "10"}), ALL),
    "vp9.webm": (written("a.webm", "libvpx-vp9", g="12", deadline="realtime", **{"cpu-used": "8"}), ALL),
    "mjpeg.avi": (written("a.avi", "mjpeg", pix_fmt="yuvj420p"), ALL),
    "ffv1.mkv": (written("a.mkv", "ffv1", pix_fmt="gray"), ALL),
    "10 bit": (written("a.mp4", "libx264", pix_fmt="yuv420p10le", **B_FRAMES), ALL),
    "alpha": (written("a.mov", "qtrle", pix_fmt="argb"), ALL),
    "apng": (written("a.apng", "apng", pix_fmt="rgb24"), ALL),
    "palette.avi": (lambda folder: palette_avi(folder / "a.avi", FRAMES), ALL),
}


@pytest.mark.parametrize("name", FILES)
def test_frames_in_every_order_of_reading(tmp_path: Path, name: str) -> None:
    write, shown = FILES[name]
    path = write(tmp_path)
    reader = open_frames(path)
    num_frames = len(shown)
    assert (len(reader), reader.size) == (num_frames, (64, 96))
    assert numbers_of(reader.read(0, num_frames)) == list(shown)
    for clip_length in (7, 14):
        clips = PyAVReader(path, reader.facts)
        for start, length, _ in clip_starts(num_frames, clip_length):
            assert numbers_of(clips.read(start, start + length)) == list(shown)[start : start + length]
        clips.close()
    order = [*reversed(range(num_frames)), *np.random.default_rng(0).integers(0, num_frames, 30)]
    for number in map(int, order):
        assert numbers_of(reader.read(number, number + 1)) == [shown[number]]
    reader.close()


def test_large_gif_is_read(tmp_path: Path) -> None:
    frames = numbered_frames(12, 140, 160)
    reader = open_frames(encode(tmp_path / "a.gif", frames, "gif", pix_fmt="rgb8"))
    assert reader.size == (140, 160)
    assert numbers_of(reader.read(0, 12)) == list(range(12))


def test_theora() -> None:
    """Written with `ffmpeg -c:v libtheora -q:v 4 -g 4` from numbered frames, since PyAV has no encoder."""
    reader = open_frames(Path(__file__).parent / "files" / "numbered.ogv")
    assert [numbers_of(reader.read(number, number + 1)) for number in (0, 11, 5, 6)] == [[0], [11], [5], [6]]


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one with every frame that is decoded."""
    counted: list[None] = []
    original = VideoDecoder.next

    def count(self: VideoDecoder) -> object:
        frame = original(self)
        if frame is not None:
            counted.append(None)
        return frame

    monkeypatch.setattr(VideoDecoder, "next", count)
    return counted


@pytest.mark.parametrize("name", ["h264.mp4", "h264.avi", "edit list"])
def test_reading_forward_costs_one_decode_a_frame(tmp_path: Path, name: str, decodes: list[None]) -> None:
    write, shown = FILES[name]
    path = write(tmp_path)
    reader = PyAVReader(path, index_video(path))
    decodes.clear()
    for start, length, _ in clip_starts(len(shown), 14):
        reader.read(start, start + length)
    assert len(decodes) == len(shown)


def test_a_jump_begins_at_a_key_frame_and_backward_reading_keeps_frames(tmp_path: Path, decodes: list[None]) -> None:
    frames = numbered_frames(64).repeat(4, 0)
    path = encode(tmp_path / "a.mp4", frames, **B_FRAMES, sc_threshold="0")
    reader = PyAVReader(path)
    assert reader.facts.key_frames[:3] == (12, 24, 36)
    decodes.clear()
    assert numbers_of(reader.read(200, 201)) == [50]
    assert len(decodes) <= 12
    decodes.clear()
    for number in reversed(range(200)):
        assert numbers_of(reader.read(number, number + 1)) == [number // 4]
    assert len(decodes) <= 2 * 200


@pytest.mark.parametrize("key_frame", [13, 17])
def test_a_key_frame_that_is_none_is_not_trusted(tmp_path: Path, key_frame: int) -> None:
    path = FILES["h264.mp4"][0](tmp_path)
    reader = PyAVReader(path, replace(index_video(path), key_frames=(key_frame,)))
    reader.read(49, 50)
    assert numbers_of(reader.read(20, 22)) == [20, 21]


def test_a_frame_that_is_missing_is_told_with_its_time(tmp_path: Path) -> None:
    path = FILES["h264.mp4"][0](tmp_path)
    facts = index_video(path)
    stamps = (*facts.stamps[:30], facts.stamps[30] + 1, *facts.stamps[31:])
    reader = PyAVReader(path, replace(facts, stamps=stamps))
    assert numbers_of(reader.read(0, 30)) == list(range(30))
    with pytest.raises(ValueError, match=r"a\.mp4: frame 30 of 50, at 1\.20 s, cannot be decoded.*Copy it again"):
        reader.read(30, 31)


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", np.repeat(numbered_frames(2, 360, 640), 100, 0), preset="ultrafast", g="300")
    reader = open_frames(path)
    reader.read(0, 14)
    before = psutil.Process().memory_info().rss
    for start in range(14, 196, 14):
        reader.read(start, start + 14)
    # All frames are 138 MB; two clips and the allocator's slack are far below.
    assert psutil.Process().memory_info().rss - before < 60e6


def test_a_change_of_size_is_scaled_to_the_first_size_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = change_of_size(tmp_path / "a.webm", numbered_frames(6), numbered_frames(12, 96, 160)[6:])
    reader = open_frames(path)
    assert reader.size == (64, 96)
    assert numbers_of(reader.read(0, 12)) == list(range(12))
    assert "changes its size from 96x64 to 160x96" in caplog.text
    # Scaled by the video's first size, also where reading begins behind the change.
    assert PyAVReader(path, reader.facts).read(8, 9).shape == (1, 64, 96, 3)


def test_a_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "a.mp4", FRAMES[:3], preset="ultrafast").rename(tmp_path / "take:1 %03d.mp4")
    monkeypatch.chdir(tmp_path)
    assert numbers_of(open_frames(Path("take:1 %03d.mp4")).read(0, 3)) == [0, 1, 2]
