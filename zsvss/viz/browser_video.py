"""Videos that every browser plays, with the times and the shape of pixels of the video that they show.

H W pixels; 3 is RGB.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from zsvss.data.video_facts import VideoFacts
from zsvss.results.atomic_files import TEMPORARY
from zsvss.results.segment_colors import UInt8

_FALLBACK_FPS = 15.0
_FRAGMENTED = {"movflags": "frag_every_frame+empty_moov+default_base_moof", "flush_packets": "1"}
_FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: the encoder hands on how long a frame is shown
# What MP4 files count time in where the source counts finer; it divides the usual frame rates.
_FINEST_TIME_BASE = Fraction(1, 90_000)


class BrowserVideo:
    """An H.264 file with 4:2:0 colours and its index in front, which is what every browser plays.

    That format needs even sizes: an odd last row or column is repeated once. Colours are BT.709, and tagged as that.

    While it is written the file is fragmented, and plays up to its last frame but one: what a killed process leaves can
    be looked at, and `resume` goes on with it. Finishing it copies its packets into a file with an index in front.

    Args:
        path: file to write.
        fps: frames per second; ``None`` shows every frame when ``source`` shows it, or 15 a second where that has no
            times.
        source: what is known of the video whose frames are written, in order and from the first; its pixels' shape is
            kept.
    """

    def __init__(self, path: Path, fps: float | None = None, source: VideoFacts | None = None) -> None:
        self.path = path
        self._aspect = Fraction(1) if source is None else source.sample_aspect_ratio
        if fps is None and source is not None and source.fps:
            self._rate = Fraction(source.fps).limit_denominator(1001)
            self._time_base = max(source.time_base, _FINEST_TIME_BASE)
            self._stamps = _rescaled(source, self._time_base)
        else:
            self._rate = Fraction(fps or _FALLBACK_FPS).limit_denominator(1001)
            self._time_base, self._stamps = 1 / self._rate, []
        self._written = 0
        self._kept = kept_of(path)
        self._container: Any = None
        self._stream: Any = None

    def write(self, frame_HW3: UInt8, time: float | None = None) -> None:
        """Append a frame; all must have one size.

        Args:
            frame_HW3: uint8 RGB.
            time: seconds from the first frame to this one, where only the frame tells; ``source`` then knows no times.
        """
        frame_HW3 = _even(frame_HW3)
        if time is not None:
            self._note(time)
        if self._container is None:
            self._open(frame_HW3.shape[:2])
            self._kept.unlink(missing_ok=True)  # of another start, which was not gone on with
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HW3), format="rgb24")
        frame: Any = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.color_primaries, frame.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        frame.time_base = self._time_base
        frame.pts, frame.duration = self._when(self._written), self._when(self._written + 1) - self._when(self._written)
        self._container.mux(self._stream.encode(frame))
        self._written += 1

    def resume(self, num_frames: int, last_frame_HW3: UInt8) -> None:
        """Go on with the file of a process that was stopped, in place of the first `write`.

        Args:
            num_frames: how many of its frames to keep.
            last_frame_HW3: the last of them, which the file may lack.

        Raises:
            ValueError: the file has too few frames that can be read.
        """
        found = num_whole_frames(self.path)
        if found < num_frames - 1:
            raise ValueError(f"{self.path} has {found} frames that can be read where {num_frames} are expected")
        # Where there is one to go on with from an earlier attempt, that attempt was stopped too: its file is no source.
        if not self._kept.exists() and self.path.exists():
            self.path.replace(self._kept)
        self._open(_even(last_frame_HW3).shape[:2])
        self._copy(num_frames - 1)
        self.write(last_frame_HW3)
        self._kept.unlink(missing_ok=True)

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            self._finish()

    def __enter__(self) -> BrowserVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, size: Sequence[int]) -> None:
        # The prefix lets names have a colon, which would otherwise be a protocol.
        self._container = av.open(f"file:{self.path}", "w", options=_FRAGMENTED)
        self._stream = self._container.add_stream("libx264", rate=self._rate)
        codec = self._stream.codec_context
        codec.height, codec.width = size
        codec.pix_fmt = "yuv420p"
        codec.time_base = self._time_base
        codec.sample_aspect_ratio = self._aspect
        codec.flags |= _FRAME_DURATION
        codec.colorspace, codec.color_range = 1, ColorRange.MPEG  # AVCOL_SPC_BT709
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        # Without B-frames and lookahead a frame is in the file when it is written, and the file can be cut anywhere.
        self._stream.options = {"crf": "18", "preset": "veryfast", "tune": "zerolatency"}

    def _note(self, time: float) -> None:
        """Take the time of the next frame."""
        if not self._stamps:
            self._time_base = _FINEST_TIME_BASE
        self._stamps.append(max(round(time / self._time_base), self._stamps[-1] + 1 if self._stamps else 0))

    def _copy(self, num_frames: int) -> None:
        """Take over the first packets of the kept file, as the encoder would have given them."""
        if not num_frames:
            return
        with av.open(f"file:{self._kept}") as kept:
            source = kept.streams.video[0]
            as_encoded = BitStreamFilterContext("h264_mp4toannexb", source)
            packets: Any = (packet for packet in kept.demux(source) if packet.size)
            for packet in islice(packets, num_frames):
                for copy in as_encoded.filter(packet):
                    begin, end = self._when(self._written), self._when(self._written + 1)
                    copy.pts, copy.dts, copy.duration = begin, begin, end - begin
                    copy.time_base, copy.stream = self._time_base, self._stream
                    self._container.mux(copy)
                    self._written += 1

    def _finish(self) -> None:
        """Put the index in front, which a file has only when all of it is known."""
        whole = self.path.with_name(f"{TEMPORARY}whole-{self.path.name}")
        with (
            av.open(f"file:{self.path}") as fragments,
            av.open(f"file:{whole}", "w", format="mp4", options={"movflags": "faststart"}) as written,
        ):
            source = fragments.streams.video[0]
            copy = written.add_stream_from_template(source)
            for packet in fragments.demux(source):
                if packet.size:
                    packet.stream = copy
                    written.mux(packet)
        whole.replace(self.path)

    def _when(self, number: int) -> int:
        """Time stamp of a frame; frames after the source's last one follow at its rate."""
        if number < len(self._stamps):
            return self._stamps[number]
        beyond = number - max(0, len(self._stamps) - 1)
        return (self._stamps[-1] if self._stamps else 0) + round(beyond / self._rate / self._time_base)


def kept_of(path: Path) -> Path:
    """Where an overlay lies while another one is written in its place."""
    return path.with_name(f"{TEMPORARY}{path.name}")


def num_whole_frames(path: Path) -> int:
    """How many frames `BrowserVideo.resume` can go on with; 0 where there is no file that can be read.

    A fragment that is torn is cut off: decoders would lose the frame before it as well.
    """
    found, source = 0, kept_of(path) if kept_of(path).exists() else path
    with suppress(OSError, av.error.FFmpegError):
        os.truncate(source, _whole_length(source))
        with av.open(f"file:{source}") as kept:
            for packet in kept.demux(video=0):
                if packet.is_corrupt:
                    break
                found += packet.size > 0
    return found


def _whole_length(path: Path) -> int:
    """Bytes of an MP4 file up to the end of its last whole box that is no fragment's head."""
    size, begin, whole = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while begin + 8 <= size:
            file.seek(begin)
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            begin += length or size - begin  # 0: to the end of the file
            if begin > size or 0 < length < 8:
                break
            whole = whole if kind == b"moof" else begin
    return whole


def _even(frame_HW3: UInt8) -> UInt8:
    height, width = frame_HW3.shape[:2]
    return np.pad(frame_HW3, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _rescaled(source: VideoFacts, time_base: Fraction) -> list[int]:
    """The source's time stamps from 0 on, and that of its end; strictly increasing."""
    ends = [*source.stamps, source.stamps[-1] + source.last_duration] if source.last_duration else source.stamps
    stamps: list[int] = []
    for stamp in ends:
        time = round((stamp - source.stamps[0]) * source.time_base / time_base)
        stamps.append(max(time, stamps[-1] + 1) if stamps else time)
    return stamps
