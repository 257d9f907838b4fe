"""Decoding one video stream with PyAV: which stream, frame by frame from the first or from a key frame.

H W pixels; 3 is RGB.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from zsvss.data.images import ByteArray, turn_upright, upright_size

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED; PyAV has no name for it
_LARGEST_SD = (1279, 576)
_THREE_BYTES = 3
_ATTACHED_PICTURE = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
# The signs of a display matrix's a, b, c, d (x' = a x + c y, y' = b x + d y) and the same turn as EXIF counts it.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
_ONE = 1 << 16
_SLANT = 0.02
_EARLY = 1  # seconds
# How many packets, and frames, are the latest: at the end a decoder or parser may hold back some.
_LATEST = 3


class VideoDecoder:
    """The frames of a file's video stream in the order in which they are shown.

    Decoders hand out frames in that order whatever the container says, so the order is never derived from time stamps.
    They run in one thread: of a damaged file, several would give another number of frames on another number of cores.

    Args:
        path: The video file.

    Attributes:
        num_packets: How many packets with data have been decoded since the file was opened.

    Raises:
        ValueError: If it has no video stream.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.container: Any
        self.stream: Any
        self.num_packets = 0
        # Of each of the latest packets and frames, whether it is incomplete.
        self._packets: deque[bool] = deque(maxlen=_LATEST)
        self._shown: deque[bool] = deque(maxlen=_LATEST)
        self._frames: Iterator[Any]
        self._open()

    @property
    def is_damaged(self) -> bool:
        """Whether one of the latest packets and frames is known to be incomplete."""
        return any(self._packets) or any(self._shown)

    def next(self) -> Any | None:
        """The next frame, or None after the last one.

        Raises:
            av.error.FFmpegError: If it cannot be decoded.
        """
        return next(self._frames, None)

    def restart(self) -> None:
        """Go back to the first frame. The file is opened again: not every container can be sought to its begin."""
        self.close()
        self._open()

    def seek(self, stamp: int) -> Any | None:
        """Go to a key frame.

        Args:
            stamp: When it is shown.

        Returns:
            The first frame from there on that is not shown before: the key frame, if it is found and can be decoded.
        """
        # MPEG-TS finds places by when packets are decoded, which is before they are shown.
        early = round(_EARLY / self.stream.time_base) if self.container.format.name == "mpegts" else 0
        self.container.seek(stamp - early, stream=self.stream)
        self._frames = self._decode()
        while (frame := self.next()) is not None:
            if frame.pts is not None and frame.pts >= stamp:
                return frame
        return None

    def close(self) -> None:
        """Close the file and free the decoder."""
        self._frames = iter(())
        self.container.close()
        self.stream = None

    def _open(self) -> None:
        # The prefix lets names have a colon, which would otherwise be a protocol.
        self.container = av.open(f"file:{self._path}")
        self.stream = _video_stream(self.container)
        self.stream.codec_context.thread_count = 1
        for other in self.container.streams:
            if other.index != self.stream.index:
                other.discard = av.stream.Discard.all
        self.num_packets = 0
        self._packets.clear()
        self._shown.clear()
        self._frames = self._decode()

    def _decode(self) -> Iterator[Any]:
        """Frames from here on, as players show them.

        What cannot be decoded is left out before the first frame, and where FFmpeg says that the file lacks a part.
        """
        shown, failure = False, None
        for packet in self.container.demux(self.stream):
            if packet.size:  # the last one, for the decoder, has none
                self.num_packets += 1
                self._packets.append(packet.is_corrupt)
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:
                if shown and not self.is_damaged:
                    raise
                failure, frames = error, []
            for frame in frames:
                shown = True
                self._shown.append(bool(frame.is_corrupt))
                yield frame
        if failure is not None and not shown:
            raise failure


class RgbConverter:
    """Turns decoded frames into upright RGB arrays of one size.

    Frames without a named matrix are BT.709 in high definition and BT.601 below, as players take them. Frames of
    another size are scaled.

    Args:
        size: (H, W) of the arrays.
        orientation: How the frames must be turned, 1..8 as in EXIF.
    """

    def __init__(self, size: tuple[int, int], orientation: int) -> None:
        self._orientation = orientation
        self._height, self._width = upright_size(size, orientation)
        self._reformatter = VideoReformatter()

    def is_scaled(self, frame: Any) -> bool:
        """Whether a frame has another size than the arrays."""
        return (frame.width, frame.height) != (self._width, self._height)

    def convert(self, frame: Any) -> ByteArray:
        """A frame as uint8 RGB (HW3); alpha is dropped."""
        large = frame.width > _LARGEST_SD[0] or frame.height > _LARGEST_SD[1]
        rgb: Any = self._reformatter.reformat(
            frame,
            width=self._width,
            height=self._height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if large and frame.colorspace == _UNSPECIFIED else None,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC if self.is_scaled(frame) else Interpolation.BILINEAR,
            threads=1,
        )
        plane = rgb.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: self._height]
        image_HW3 = rows[:, : _THREE_BYTES * self._width].reshape(self._height, self._width, _THREE_BYTES)
        return turn_upright(image_HW3, self._orientation)


def pixel_aspect(stream: Any, orientation: int) -> Fraction:
    """Width of a pixel by its height once the frame is upright."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if aspect <= 0:
        return Fraction(1)
    return 1 / aspect if orientation > 4 else aspect


def _video_stream(container: Any) -> Any:
    streams = [stream for stream in container.streams.video if not stream.disposition & _ATTACHED_PICTURE]
    if not streams:
        pictures = " but a cover picture" if container.streams.video else ""
        raise ValueError(f"it has no video stream{pictures}")
    best = container.streams.best("video")
    return next((stream for stream in streams if best is not None and stream.index == best.index), streams[0])


def orientation(frame: Any) -> int:
    """How a frame must be turned, 1..8 as in EXIF, by its display matrix.

    Raises:
        ValueError: If it is to be turned by something else than a multiple of 90 degrees.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (KeyError, ValueError):  # PyAV does not know every kind of side data
        return {0: 1, 90: 8, 180: 3, 270: 6}[round(frame.rotation / 90) * 90 % 360]
    if data is None:
        return 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    scale = max(abs(value) for value in (a, b, c, d))
    if scale == 0:
        return 1
    signs = tuple(0 if abs(value) <= _SLANT * scale else (1 if value > 0 else -1) for value in (a, b, c, d))
    if signs not in _ORIENTATIONS:
        raise ValueError(f"it is to be shown turned by {frame.rotation} degrees; only multiples of 90 can be read")
    return _ORIENTATIONS[signs]
