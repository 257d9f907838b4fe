"""Number and times of frames, and what a container says beside them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import encode, numbered_frames, numbers_of

from zsvss.data.reader import open_frames
from zsvss.data.readers.pyav_index import index_video

FRAMES = numbered_frames(30)
TIMES = [0, 1, 4, 5, 6, 12, 13, 20, 21, 22]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.wmv", "a.apng"])
def test_times_of_a_variable_frame_rate(tmp_path: Path, name: str) -> None:
    codec = {"a.wmv": "wmv2", "a.apng": "apng"}.get(name, "libx264")
    pix_fmt = "rgb24" if codec == "apng" else "yuv420p"
    options = {"bf": "2"} if codec == "libx264" else {}
    path = encode(tmp_path / name, FRAMES[:10], codec, pix_fmt, TIMES, **options)
    facts = index_video(path)
    np.testing.assert_allclose(facts.times, np.array(TIMES) / 25, atol=1e-3)
    assert facts.own_stamps


@pytest.mark.parametrize("name", ["a.avi", "a.h264"])
def test_times_come_from_the_rate_where_the_file_has_none_of_its_own(tmp_path: Path, name: str) -> None:
    facts = index_video(encode(tmp_path / name, FRAMES, bf="3", g="12"))
    np.testing.assert_allclose(facts.times, np.arange(30) / 25)
    assert (facts.fps, facts.duration) == (25, pytest.approx(1.2))


def test_long_files_are_counted_by_their_packets_and_checked_at_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mp4", np.repeat(FRAMES, 10, 0), preset="ultrafast", g="20")
    expected = index_video(path)
    monkeypatch.setattr("zsvss.data.readers.pyav_index._facts_by_decoding", None)
    assert index_video(path) == expected
    assert (expected.num_frames, expected.key_frames[-1]) == (300, 280)


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(encode(tmp_path / "b.mkv", FRAMES))) as source, av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 200, 200, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream_from_template(source.streams.video[0])
        frame = av.VideoFrame.from_ndarray(np.zeros((200, 200, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(frame.reformat(format="yuvj420p")))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        container.mux(cover.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].width == 200
    reader = open_frames(path)
    assert (len(reader), reader.size, reader.facts.fps) == (30, (64, 96), pytest.approx(25, abs=0.1))
    assert numbers_of(reader.read(0, 30)) == list(range(30))


def test_shape_of_pixels(tmp_path: Path) -> None:
    def anamorphic(codec: av.VideoCodecContext) -> None:
        codec.sample_aspect_ratio = Fraction(4, 3)

    assert index_video(encode(tmp_path / "a.mp4", FRAMES, prepare=anamorphic)).sample_aspect_ratio == Fraction(4, 3)
    assert index_video(encode(tmp_path / "b.mp4", FRAMES)).sample_aspect_ratio == 1


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
@pytest.mark.parametrize("keep", [0.9, 0.97])
def test_a_file_that_is_shorter_than_its_header_says_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = encode(tmp_path / name, FRAMES)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=rf"it has {int(keep * len(data))} bytes where its header says {len(data)}"):
        open_frames(path)


def test_a_file_without_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp")
        frame.sample_rate = 44100
        container.mux([*stream.encode(frame), *stream.encode()])
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read as a video \(it has no video stream\)"):
        open_frames(path)
