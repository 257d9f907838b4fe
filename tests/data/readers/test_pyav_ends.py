"""Files of which the end is missing: refused or told where it can be known, and silent for whole files."""

from __future__ import annotations

from pathlib import Path

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
}
REFUSED = {"a.wmv", "a.mkv"}


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
    told = f"its header says 4.8 s, its frames last {num_frames / 25:.1f} s"
    assert f"a.flv is cut short ({told}): the {num_frames} frames" in caplog.text


def test_what_nothing_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the guide says: a stream that ends with a whole packet."""
    path = write(tmp_path, "a.ts")
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"\x47\x41\x00")])  # the packet that begins the last frame
    assert NUM_FRAMES - 3 <= len(open_frames(path)) < NUM_FRAMES
    assert not caplog.text
