"""Video files decoded by PyAV, so that frame i is the i-th frame that a player shows.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import contextlib
import logging
from bisect import bisect_right
from collections import deque
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from zsvss.data.readers.base import FrameReader
from zsvss.data.readers.pyav_decoding import RgbConverter, VideoDecoder
from zsvss.data.readers.pyav_index import index_video
from zsvss.data.video_facts import VideoFacts

_log = logging.getLogger(__name__)

# Memory for decoded frames that a reader of frames in backward order may want again.
_KEPT_BYTES = 64 << 20
# How many frames are rather decoded than jumped over.
_WORTH_A_JUMP = 64


class PyAVReader(FrameReader):
    """A video file decoded by PyAV.

    Frames are decoded one after the other, and the frames of the last `read` are kept as the decoder gave them: reading
    forward costs one decode a frame, also where a clip begins within the clip before. Reading elsewhere starts from the
    first frame, or from a key frame where the packets show that this is safe; what comes is checked by its time stamps.

    Args:
        path: The video file.
        facts: Number and times of its frames, if they are known from an earlier `PyAVReader` of the file.

    Raises:
        ValueError: If the file holds no frames, is cut short or damaged.
    """

    def __init__(self, path: Path, facts: VideoFacts | None = None) -> None:
        self._path = path
        self._facts = facts or index_video(path)
        self._decoder = VideoDecoder(path)
        self._converter = RgbConverter(self._facts.size, self._facts.orientation)
        self._kept: deque[tuple[int, Any]] = deque()
        self._num_kept = 1
        self._next = 0
        self._unsafe: set[int] = set()
        self._told = False

    @property
    def facts(self) -> VideoFacts:
        """Number, size and times of the frames."""
        return self._facts

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        height, width = self.size
        frames_THW3 = np.empty((stop - start, height, width, 3), np.uint8)
        self._num_kept = stop - start
        if start < self._next and not any(number == start for number, _ in self._kept):
            self._num_kept = max(self._num_kept, _KEPT_BYTES // (3 * height * width))
        for number in range(start, stop):
            frames_THW3[number - start] = self._convert(number, self._frame(number))
        return torch.from_numpy(frames_THW3)

    def close(self) -> None:
        """Close the file."""
        self._kept.clear()
        self._decoder.close()

    def _frame(self, number: int) -> Any:
        """The decoded frame of a number."""
        for kept, frame in self._kept:
            if kept == number:
                return frame
        if number != self._next:
            key_frame = self._key_frame_before(number)
            if number < self._next or (key_frame is not None and key_frame - self._next > _WORTH_A_JUMP):
                self._jump(key_frame)
        while self._next <= number:
            self._keep(self._checked_next())
        if self._next == len(self) and not self._facts.own_stamps and self._decoder.next() is not None:
            raise ValueError(
                f"{self._path}: more frames can be decoded than the {len(self)} that were counted: is the file "
                "damaged? Copy it again, or convert it with ffmpeg"
            )
        return self._kept[-1][1]

    def _key_frame_before(self, number: int) -> int | None:
        key_frames = self._facts.key_frames[: bisect_right(self._facts.key_frames, number)]
        return next((key_frame for key_frame in reversed(key_frames) if key_frame not in self._unsafe), None)

    def _jump(self, key_frame: int | None) -> None:
        """Go to a key frame, or to the first frame if there is none or what comes is not that key frame."""
        self._kept.clear()
        if key_frame is not None:
            stamp = self._facts.stamps[key_frame]
            frame = None
            with contextlib.suppress(av.error.FFmpegError):
                frame = self._decoder.seek(stamp)
            if frame is not None and frame.pts == stamp and frame.key_frame:
                self._next = key_frame
                self._keep(frame)
                return
            self._unsafe.add(key_frame)
        self._decoder.restart()
        self._next = 0

    def _keep(self, frame: Any) -> None:
        while len(self._kept) >= self._num_kept:
            self._kept.popleft()
        self._kept.append((self._next, frame))
        self._next += 1

    def _checked_next(self) -> Any:
        """The next frame.

        Raises:
            ValueError: If it is missing, damaged or another one; says at which frame and time.
        """
        facts, number = self._facts, self._next
        failure: Exception | None = None
        try:
            frame = self._decoder.next()
        except av.error.FFmpegError as error:
            frame, failure = None, error
        if frame is None or (facts.own_stamps and frame.pts != facts.stamps[number]):
            raise ValueError(
                f"{self._path}: frame {number} of {len(self)}, at {facts.times[number]:.2f} s, cannot be decoded: is "
                "the file damaged there? Copy it again, or convert it with ffmpeg"
            ) from failure
        return frame

    def _convert(self, number: int, frame: Any) -> Any:
        if self._converter.is_scaled(frame) and not self._told:
            self._told = True
            height, width = self.size
            _log.warning(
                "%s changes its size from %dx%d to %dx%d at frame %d or before; such frames are scaled to the first "
                "one's size",
                *(self._path, width, height, frame.width, frame.height, number),
            )
        return self._converter.convert(frame)
