"""Number and times of frames, and what a container says beside them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import encode, numbered_frames, numbers_of

from zsvss.data.reader import open_frames
from zsvss.data.readers.by_pyav import PyAVReader
from zsvss.data.readers.pyav_decoding import VideoDecoder
from zsvss.data.readers.pyav_index import _facts_by_decoding, index_video
from zsvss.data.video_facts import VideoFacts

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


LONG = np.repeat(FRAMES, 10, 0)
KEY_FRAMES = {"preset": "ultrafast", "sc_threshold": "0", "bf": "2"}


def facts_by_decoding(path: Path) -> VideoFacts:
    decoder = VideoDecoder(path)
    facts = _facts_by_decoding(decoder, path)
    decoder.close()
    return facts


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.avi"])
@pytest.mark.parametrize("group", [20, 140])
def test_long_files_are_counted_by_their_packets_and_checked_at_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, group: int
) -> None:
    path = encode(tmp_path / name, LONG, **KEY_FRAMES, g=str(group))
    expected = facts_by_decoding(path)
    decoded: list[int] = []
    original = VideoDecoder.next
    monkeypatch.setattr(VideoDecoder, "next", lambda self: decoded.append(0) or original(self))
    facts = index_video(path)
    assert len(decoded) < 128 + group + 30
    assert facts.num_frames == expected.num_frames == 300
    np.testing.assert_allclose(facts.times, expected.times)
    assert facts.key_frames == (() if name == "a.avi" else tuple(range(group, 300, group)))
    reader = PyAVReader(path, facts)
    assert numbers_of(reader.read(0, 300)) == [number // 10 for number in range(300)]
    for number in (299, 130, 290, 5):
        assert numbers_of(reader.read(number, number + 1)) == [number // 10]


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Place and bytes of every packet of an MP4."""
    with av.open(str(path)) as container:
        return [(entry.pos, entry.size) for entry in container.streams.video[0].index_entries]


def damage(path: Path, number: int) -> None:
    """Overwrite the length that a packet of an MP4 begins with."""
    at, _ = packets_of(path)[number]
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)


def test_what_is_far_behind_the_last_key_frame_is_decoded_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", LONG, container_options={"movflags": "faststart"}, **KEY_FRAMES, g="150")
    assert index_video(path).num_frames == 300
    at, _ = packets_of(path)[-1]
    data = bytearray(path.read_bytes())
    data[at + 4] = 12  # filler, of which no frame comes
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"frame 29\d, or one right after it, cannot be decoded: Invalid data"):
        index_video(path)


@pytest.mark.parametrize("number", [5, 52, 57, 59])
def test_a_damaged_packet_of_a_whole_file_is_refused(tmp_path: Path, number: int) -> None:
    """Decoding in 16 threads gave the frames before it, and no error."""
    path = encode(tmp_path / "a.mp4", LONG[:60], bf="0", g="12")
    damage(path, number)
    with pytest.raises(ValueError, match=rf"a\.mp4 .*frame {number}, or one right after it, cannot be decoded"):
        open_frames(path)


def test_files_are_decoded_in_one_thread(tmp_path: Path) -> None:
    """Their frames, and what is told of their ends, must not depend on how many cores a machine has."""
    decoder = VideoDecoder(encode(tmp_path / "a.mp4", FRAMES, bf="2", g="12"))
    for again in (lambda: None, lambda: decoder.seek(12 * 512), decoder.restart):
        again()
        assert decoder.next() is not None
        assert decoder.stream.codec_context.thread_count == 1
    decoder.close()


def test_a_long_file_of_a_single_group_is_decoded_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", LONG, **KEY_FRAMES, g="300")
    expected = facts_by_decoding(path)
    monkeypatch.setattr("zsvss.data.readers.pyav_index._facts_by_decoding", lambda *_: expected)
    assert index_video(path) is expected


def test_packets_that_were_lost_are_not_counted(tmp_path: Path) -> None:
    """Of MPEG-TS, whose packets of 188 bytes travel through the air."""
    path = encode(tmp_path / "a.ts", LONG, **KEY_FRAMES, g="20")
    data = path.read_bytes()
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 20 * 188 :])
    facts = index_video(path)
    assert facts == facts_by_decoding(path)
    assert facts.num_frames < 300
    assert len(PyAVReader(path, facts).read(0, facts.num_frames)) == facts.num_frames


def test_frames_that_no_packet_promises_are_told(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", FRAMES, bf="2", g="12")
    facts = index_video(path)
    reader = PyAVReader(path, replace(facts, num_frames=29, stamps=facts.stamps[:-1]))
    assert numbers_of(reader.read(0, 28)) == list(range(28))
    with pytest.raises(ValueError, match=r"a\.avi: more frames can be decoded than the 29 that were counted"):
        reader.read(28, 29)


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
