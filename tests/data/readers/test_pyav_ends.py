"""Files of which the end is missing: refused or told where it can be known, and silent for whole files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import encode, numbered_frames, numbers_of

from zsvss.data.reader import open_frames

NUM_FRAMES = 40
# Noise, so that every packet is long enough to be cut.
FRAMES = np.clip(
    numbered_frames(NUM_FRAMES) + np.random.default_rng(0).integers(0, 40, (NUM_FRAMES, 64, 96, 1)), 0, 255
).astype(np.uint8)
OGV = Path(__file__).parent / "files" / "numbered.ogv"

# Name -> codec and pixel format.
FILES = {
    "a.ts": ("libx264", "yuv420p"),
    "a.mpg": ("mpeg2video", "yuv420p"),
    "a.flv": ("libx264", "yuv420p"),
    "a.gif": ("gif", "rgb8"),
    "a.ivf": ("libvpx", "yuv420p"),
    "a.apng": ("apng", "rgb24"),
    "a.wmv": ("wmv2", "yuv420p"),
    "a.mjpeg": ("mjpeg", "yuvj420p"),
    "a.mkv": ("libx264", "yuv420p"),
    "a.mp4": ("libx264", "yuv420p"),
    "a.avi": ("libx264", "yuv420p"),
}
REFUSED = {"a.wmv", "a.mkv", "a.mp4", "a.avi"}


def write(folder: Path, name: str) -> Path:
    codec, pix_fmt = FILES[name]
    options = {"bf": "2", "g": "12"} if codec in ("libx264", "mpeg2video") else {}
    return encode(folder / name, FRAMES, codec, pix_fmt, **options)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.6, 0.85])
def test_a_file_without_its_end(tmp_path: Path, name: str, keep: float, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, name)
    reader = open_frames(path)
    assert len(reader) == NUM_FRAMES
    assert not caplog.text
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) // 2 * 2 + 1])
    if name in REFUSED:
        with pytest.raises(ValueError, match=rf"{name} cannot be read as a video .*is the file complete"):
            open_frames(path)
        return
    reader = open_frames(path)
    num_frames = len(reader)
    assert 0 < num_frames < NUM_FRAMES
    assert f"{name} is cut short" in caplog.text
    assert f"the {num_frames} frames that can be decoded are taken" in caplog.text
    # All but the damaged one, and what leans on it, are the first frames.
    assert numbers_of(reader.read(0, num_frames))[: num_frames - 3] == list(range(num_frames - 3))


def test_theora_without_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(open_frames(OGV)) == 12
    assert not caplog.text
    data = OGV.read_bytes()
    for end, reason in ((-100, "its last page is incomplete"), (data.rfind(b"OggS"), "no page is marked as its last")):
        path = tmp_path / "a.ogv"
        path.write_bytes(data[:end])
        caplog.clear()
        num_frames = len(open_frames(path))
        assert 0 < num_frames < 12
        assert f"a.ogv is cut short ({reason}): the {num_frames} frames that" in caplog.text


def test_flash_that_ends_between_two_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode(tmp_path / "a.flv", np.repeat(FRAMES, 3, 0), "flv")
    data = path.read_bytes()
    # Tags: kind (9 is video), three bytes of length, seven more; then the content and four bytes of length again.
    at = 13
    while at < 0.5 * len(data):
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    path.write_bytes(data[:at])
    num_frames = len(open_frames(path))
    assert num_frames < 80
    told = f"its header says 4.8 s, its last tag is of {(num_frames - 1) / 25:.1f} s"
    assert f"a.flv is cut short ({told}): the {num_frames} frames" in caplog.text
    path.write_bytes(data[: at + 7])
    caplog.clear()
    assert len(open_frames(path)) == num_frames
    assert "a.flv is cut short (its last tag is incomplete)" in caplog.text


# Name -> what lies behind a whole file.
TRAILS = {
    "a.gif": (b"\n", b";\r\n", b"appended by a tool, with ; and ,", b"\0\1"),
    "a.mjpeg": (b"\r\n", b"\xff" * 16, b"\0" * 100),
    "a.ts": (b"\0" * 1000, b"\xff" * 200),
    "a.m2ts": (b"\0" * 1000, b"\0\0"),
    "a.flv": (b"\0" * 100, b"\n"),
    "a.mpg": (b"\0" * 1000,),
    "a.avi": (b"\0" * 100,),
    "a.mkv": (b"\0" * 100,),
    "a.wmv": (b"\0" * 100,),
}


@pytest.mark.parametrize("name", TRAILS)
def test_a_whole_file_with_bytes_behind_it(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    sources = {"a.m2ts": "a.ts"}
    path = write(tmp_path, sources.get(name, name))
    data = path.read_bytes()
    if name == "a.m2ts":  # of Blu-ray: 4 bytes before each packet
        data = b"".join(bytes(4) + data[at : at + 188] for at in range(0, len(data), 188))
    path = tmp_path / name
    for trail in TRAILS[name]:
        path.write_bytes(data + trail)
        reader = open_frames(path)
        assert numbers_of(reader.read(0, len(reader))) == list(range(NUM_FRAMES))
        assert not caplog.text, trail


def with_sound(path: Path, codec: str, sound: str, first: int, seconds: float) -> Path:
    """The frames from number ``first`` on, at 25 a second, beside silence of another length."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream(codec, rate=25), container.add_stream(sound, rate=44100)
        video.height, video.width = FRAMES.shape[1:3]
        video.pix_fmt = FILES[path.name][1]
        for number, array in enumerate(FRAMES):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = first + number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        context = audio.codec_context
        length, planes = context.frame_size, context.layout.nb_channels
        is_planar = context.format.is_planar
        shape = (planes, length) if is_planar else (1, planes * length)
        for number in range(int(seconds * 44100 / length)):
            kind = np.float32 if "flt" in context.format.name else np.int16
            silence = av.AudioFrame.from_ndarray(
                np.zeros(shape, kind), format=context.format.name, layout=context.layout.name
            )
            silence.sample_rate, silence.pts, silence.time_base = 44100, number * length, Fraction(1, 44100)
            container.mux(audio.encode(silence))
        container.mux(audio.encode())
    return path


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a.flv", "aac"),
        ("a.mp4", "aac"),
        ("a.mkv", "aac"),
        ("a.ts", "aac"),
        ("a.avi", "mp2"),
        ("a.mpg", "mp2"),
    ],
)
@pytest.mark.parametrize(("first", "seconds"), [(0, 5.0), (60, 2.0), (0, 0.5)])
def test_a_whole_file_with_longer_or_shorter_sound(
    tmp_path: Path, name: str, sound: str, first: int, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    reader = open_frames(with_sound(tmp_path / name, FILES[name][0], sound, first, seconds))
    num_frames = len(reader)
    assert numbers_of(reader.read(0, num_frames))[-NUM_FRAMES:] == list(range(NUM_FRAMES))
    assert num_frames == NUM_FRAMES or (first and name == "a.avi")  # which has no times and repeats the first frame
    assert not caplog.text


def test_a_last_frame_that_is_shown_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode(tmp_path / "a.flv", FRAMES[:20], stamps=[*range(19), 100])
    assert numbers_of(open_frames(path).read(0, 20)) == list(range(20))
    assert not caplog.text


def test_long_sound_does_not_hide_a_missing_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = with_sound(tmp_path / "a.flv", "libx264", "aac", 0, 5)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.9 * len(data))])  # within the sound that goes on behind the last frame
    assert len(open_frames(path)) == NUM_FRAMES
    assert "a.flv is cut short (its last tag is incomplete)" in caplog.text


def test_mxf_without_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode(tmp_path / "a.mxf", np.repeat(FRAMES, 3, 0), "mpeg2video")
    assert len(open_frames(path)) == 3 * NUM_FRAMES
    assert not caplog.text
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    num_frames = len(open_frames(path))
    assert 40 < num_frames < 80
    assert f"the {num_frames} frames that can be decoded" in caplog.text


def test_hidden_frames_are_none_that_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """VP8 has frames that others are made from, but that are not shown."""
    path = write(tmp_path, "a.ivf")
    data = bytearray(path.read_bytes())
    at = 32  # frames: 4 bytes of length, 8 of time, content, whose bit 4 says whether it is shown
    for _ in range(20):
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    data[at + 12] &= ~0x10
    path.write_bytes(data)
    assert len(open_frames(path)) == NUM_FRAMES - 1
    assert not caplog.text
    path.write_bytes(data[:at])
    assert len(open_frames(path)) == 20
    assert "a.ivf is cut short (its header says 40 packets, it has 20): the 20 frames" in caplog.text


@pytest.mark.parametrize(("over", "is_refused"), [(1, False), (8, False), (9, True)])
def test_avi_whose_header_counts_its_head_or_a_pad_byte(tmp_path: Path, over: int, is_refused: bool) -> None:
    path = write(tmp_path, "a.avi")
    data = bytearray(path.read_bytes())
    data[4:8] = (len(data) - 8 + over).to_bytes(4, "little")
    path.write_bytes(data)
    if is_refused:
        with pytest.raises(ValueError, match=rf"it has {len(data)} bytes where its header says {len(data) + over}"):
            open_frames(path)
    else:
        assert len(open_frames(path)) == NUM_FRAMES


def test_what_nothing_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the guide says: a stream that ends with a whole packet."""
    path = write(tmp_path, "a.ts")
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"\x47\x41\x00")])  # the packet that begins the last frame
    assert NUM_FRAMES - 3 <= len(open_frames(path)) < NUM_FRAMES
    assert not caplog.text
