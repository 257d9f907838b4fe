"""From decoded frames to upright RGB."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numbered_videos import encode, numbered_frames

from zsvss.data.images import turn_upright
from zsvss.data.reader import open_frames

COLOUR = np.array([200, 30, 60], np.uint8)
ONE = 1 << 16


@pytest.mark.parametrize(
    ("size", "matrix", "tagged"),
    [
        ((576, 1024), Colorspace.ITU601, False),
        ((720, 1280), Colorspace.ITU709, False),
        ((96, 160), Colorspace.ITU709, True),
        ((720, 1280), Colorspace.ITU601, True),
        ((96, 160), Colorspace.BT2020, True),
    ],
)
@pytest.mark.parametrize("levels", [ColorRange.MPEG, ColorRange.JPEG])
def test_colours(tmp_path: Path, size: tuple[int, int], matrix: Colorspace, tagged: bool, levels: ColorRange) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = levels
        if tagged:
            stream.codec_context.colorspace = {Colorspace.ITU601: 6}.get(matrix, int(matrix))
        rgb = av.VideoFrame.from_ndarray(np.broadcast_to(COLOUR, (*size, 3)).copy(), format="rgb24")
        frame = rgb.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
        container.mux([*stream.encode(frame), *stream.encode()])
    assert np.abs(open_frames(path).read(0, 1).numpy().astype(int) - COLOUR).max() <= 3


# What a display matrix [a b c d] says, and the same turn as EXIF counts it.
@pytest.mark.parametrize(
    ("matrix", "orientation"),
    [
        ((1, 0, 0, 1), 1),
        ((-1, 0, 0, 1), 2),
        ((-1, 0, 0, -1), 3),
        ((1, 0, 0, -1), 4),
        ((0, 1, 1, 0), 5),
        ((0, 1, -1, 0), 6),
        ((0, -1, -1, 0), 7),
        ((0, -1, 1, 0), 8),
    ],
)
def test_frames_are_turned_upright(tmp_path: Path, matrix: tuple[int, ...], orientation: int) -> None:
    path = encode(tmp_path / "a.mp4", numbered_frames(3))
    stored = open_frames(path).read(0, 3).numpy()
    set_display_matrix(path, *(value * ONE for value in matrix))
    reader = open_frames(path)
    upright = np.stack([turn_upright(frame, orientation) for frame in stored])
    assert reader.size == upright.shape[1:3]
    np.testing.assert_array_equal(reader.read(0, 3).numpy(), upright)


def test_a_turn_by_another_angle_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", numbered_frames(3))
    slanted = round(ONE * 0.5**0.5)
    set_display_matrix(path, slanted, slanted, -slanted, slanted)
    with pytest.raises(ValueError, match=r"turned by -45 degrees; only multiples of 90"):
        open_frames(path)


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44  # the matrix lies 44 bytes after the track header's name
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
