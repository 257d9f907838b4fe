"""A black-and-white video of each segment, for editors: white where the segment is.

::

    <video>/<id>-<name>.mkv or .mov

Every frame is shown when the source shows it. FFV1 in Matroska is lossless, for editors that read by FFmpeg (Blender,
Kdenlive, Shotcut); Matroska rounds times to milliseconds, and PyAV cannot write the shape of pixels into it. ProRes 422
HQ, which the others read, changes values a little and keeps both.
"""

from __future__ import annotations

from abc import abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

from zsvss.results.atomic_files import file_stem, safe_folder
from zsvss.results.exports.base import Exporter
from zsvss.results.predictions import Predictions, Segment

_FALLBACK_FPS = 15
_FINEST_TIME_BASE = Fraction(1, 90_000)
_FILES_AT_ONCE = 8


class Matte(Exporter):
    """Videos of all segments; the masks are read once a few segments."""

    ending: ClassVar[str]
    keeps_aspect: ClassVar[bool] = True

    @abstractmethod
    def stream(self, container: Any, rate: Fraction) -> Any:
        """Add the video stream to a file."""

    def write(self) -> None:
        """Write a file a segment."""
        for video in self.videos:
            folder = self.output / safe_folder(video.video)
            folder.mkdir(parents=True)
            if video.frame_times is None:
                self.notes.append(
                    f"{video.video}: the source has no times, so {_FALLBACK_FPS} frames a second are shown"
                )
            if not self.keeps_aspect and video.source.sample_aspect_ratio != 1:
                self.notes.append(
                    f"{video.video}: a pixel is {video.source.sample_aspect_ratio} times as wide as high, which these "
                    "files do not say; set it in the editor, or take prores"
                )
            for start in range(0, len(video.segments), _FILES_AT_ONCE):
                self._write(video, video.segments[start : start + _FILES_AT_ONCE], folder)

    def _write(self, video: Predictions, segments: tuple[Segment, ...], folder: Path) -> None:
        files = {segment.id: _File(self, self._path(folder, segment), video) for segment in segments}
        try:
            for number in range(video.num_frames):
                ids_HW = video.mask(number)
                for segment in segments:
                    files[segment.id].write(np.where(ids_HW == segment.id, 255, 0).astype(np.uint8))
        finally:
            for file in files.values():
                file.close()
        self.written.update((video.video, segment.id) for segment in segments)

    def _path(self, folder: Path, segment: Segment) -> Path:
        return folder / f"{segment.id:03d}-{file_stem(segment.name)}{self.ending}"


class Ffv1(Matte):
    """Lossless."""

    ending = ".mkv"
    keeps_aspect = False

    def stream(self, container: Any, rate: Fraction) -> Any:
        """Grey, each frame a key frame, so that an editor can begin anywhere."""
        stream = container.add_stream("ffv1", rate=rate)
        stream.codec_context.pix_fmt = "gray"
        stream.codec_context.gop_size = 1
        stream.options = {"level": "3", "slices": "4", "slicecrc": "1"}
        return stream


class ProRes(Matte):
    """ProRes 422 HQ, 10 bits."""

    ending = ".mov"

    def stream(self, container: Any, rate: Fraction) -> Any:
        """Profile 3 is HQ."""
        stream = container.add_stream("prores_ks", rate=rate)
        stream.codec_context.pix_fmt = "yuv422p10le"
        stream.options = {"profile": "3", "vendor": "apl0"}
        return stream


class _File:
    """A video file of one segment."""

    def __init__(self, matte: Matte, path: Path, video: Predictions) -> None:
        rate = Fraction(video.source.fps or _FALLBACK_FPS).limit_denominator(1001)
        self._time_base, self._stamps = 1 / rate, list(range(video.num_frames))
        if video.frame_times is not None and video.source.time_base is not None:
            self._time_base = max(video.source.time_base, _FINEST_TIME_BASE)
            self._stamps = [round(time / self._time_base) for time in video.frame_times]
        # The prefix lets names have a colon, which would otherwise be a protocol.
        self._container: Any = av.open(f"file:{path}", "w")
        self._stream = matte.stream(self._container, rate)
        codec = self._stream.codec_context
        codec.height, codec.width = video.height, video.width
        codec.time_base = self._time_base
        codec.sample_aspect_ratio = video.source.sample_aspect_ratio
        if codec.pix_fmt != "gray":
            codec.color_range = ColorRange.MPEG
        self._written = 0

    def write(self, mask_HW: npt.NDArray[np.uint8]) -> None:
        frame: Any = av.VideoFrame.from_ndarray(mask_HW, format="gray")
        if (wanted := self._stream.codec_context.pix_fmt) != "gray":
            frame = frame.reformat(format=wanted, dst_color_range=ColorRange.MPEG)
        frame.time_base, frame.pts = self._time_base, self._stamps[self._written]
        self._container.mux(self._stream.encode(frame))
        self._written += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
