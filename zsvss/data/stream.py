"""Streams: frames that come from outside, once and at their own pace, from whatever PyAV opens.

T frames of a clip, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import av
import torch

from zsvss.data.clip_planner import Frame
from zsvss.data.input_kinds import PIPE, URL, is_camera, without_userinfo
from zsvss.data.readers.base import first_line
from zsvss.data.readers.pyav_decoding import RgbConverter, orientation, pixel_aspect
from zsvss.data.video import OpenVideo, Video
from zsvss.data.video_facts import VideoFacts

_log = logging.getLogger(__name__)

WhenLate = Literal["drop", "wait"]

# Who sends these does not wait for who reads them.
_SENT_ANYWAY = ("rtsp", "rtsps", "rtp", "udp", "srt", "rtmp", "rtmps")
# Seconds: time stamps do not jump so far within one stream.
_LARGEST_GAP = 5.0
_USUAL_RATE = 25.0
# What cameras are to FFmpeg; not every build knows them.
_CAMERA_FORMATS = ("v4l2", "video4linux2", "avfoundation", "dshow")


@dataclass(frozen=True)
class StreamVideo(Video):
    """A stream as a video whose length shows at its end.

    Attributes:
        location: URL, camera device, or ``-`` for the standard input.
        fps: Frames to take in a second; None takes all.
        when_late: Whether frames that nobody has time for are left out (``drop``) or waited for (``wait``); None drops
            what is sent anyway (RTSP, RTP, UDP, SRT, RTMP, cameras) and waits for the rest (HTTP, pipes, files).
        num_held: Frames that are held for who reads them.
        time_limit: Seconds without a frame after which the stream counts as over.
    """

    location: str = PIPE
    fps: float | None = None
    when_late: WhenLate | None = None
    num_held: int = 28
    time_limit: float = 60.0

    @property
    def path(self) -> str:
        """The URL, without a password in it, or the device."""
        return "standard input" if self.location == PIPE else without_userinfo(self.location)

    @property
    def has_ground_truth(self) -> bool:
        """Streams have none."""
        return False

    @property
    def is_live(self) -> bool:
        """Its frames come once."""
        return True

    def open(self) -> OpenStream:
        """Open the stream and wait for its first frame.

        Raises:
            ValueError: If it cannot be opened or holds no video.
        """
        return OpenStream(self)


class OpenStream(OpenVideo):
    """A stream being received, by a thread of its own."""

    def __init__(self, video: StreamVideo) -> None:
        self._video = video
        scheme = urlsplit(video.location).scheme.lower()
        is_sent_anyway = scheme in _SENT_ANYWAY or is_camera(video.location)
        self._drops = (video.when_late or ("drop" if is_sent_anyway else "wait")) == "drop"
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._is_over = self._is_closed = False
        self._error: BaseException | None = None
        self._container = _opened(video)
        self._facts: VideoFacts | None = None
        self._thread = threading.Thread(target=self._receive, name="stream", daemon=True)
        self._thread.start()
        if not self._await(lambda: bool(self._frames) or self._is_over):
            self.close()
            raise ValueError(
                f"nothing came for {video.time_limit:g} s; is the sender running? If it is only slow, raise "
                "data.time_limit"
            )
        if not self._frames:
            raise ValueError(f"it {self._end}, before its first frame") from self._error

    @property
    def names(self) -> tuple[str, ...]:
        """Unknown beforehand; frames bear their numbers."""
        return ()

    @property
    def num_frames(self) -> int | None:
        """Unknown."""
        return None

    @property
    def facts(self) -> VideoFacts | None:
        """Size of the frames and shape of their pixels."""
        return self._facts

    def read(self, start: int, stop: int) -> Any:
        """Streams come once, in order: see `frames`."""
        raise NotImplementedError("a stream cannot be read by frame numbers")

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """The frames as they come, numbered from ``start``; a stream that falls silent or breaks off is over."""
        for number in range(start, stop):
            came = self._await(lambda: bool(self._frames) or self._is_over)
            with self._changed:
                frame = self._frames.popleft() if self._frames else None
                self._changed.notify_all()
            if frame is None:
                if not came:
                    _log.warning(
                        "%s: nothing came for %g s (data.time_limit); it counts as over after %d frames",
                        self._video.path, self._video.time_limit, number,
                    )  # fmt: skip
                elif self._error is not None:
                    _log.warning("%s %s, after %d frames", self._video.path, self._end, number)
                return
            yield frame._replace(name=f"{number:05d}")

    def close(self) -> None:
        """Stop receiving."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        # A thread that waits for a packet ends with the process: to close what it reads from would crash.
        self._thread.join(timeout=1)

    def _await(self, ready: Callable[[], bool]) -> bool:
        """Wait until something is so, at most as long as a stream may be silent; whether it is."""
        with self._changed:
            return self._changed.wait_for(ready, timeout=self._video.time_limit)

    @property
    def _end(self) -> str:
        """How it ended."""
        return "ended" if self._error is None else f"broke off ({without_userinfo(first_line(self._error))})"

    def _receive(self) -> None:
        """Take frames until the stream ends, in the thread."""
        try:
            self._take_all()
        except Exception as error:  # told to who reads
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            self._container.close()

    def _take_all(self) -> None:
        stream = self._container.streams.video[0]
        stream.thread_type = "SLICE"  # whole frames at a time would come late
        converter: RgbConverter | None = None
        clock = StreamClock(float(stream.average_rate or stream.guessed_rate or _USUAL_RATE))
        due = 0.0
        for decoded in self._decoded(stream):
            received, now = time.time(), clock.tell(decoded.time)
            if now < due - 1e-6:
                continue
            if self._video.fps:
                due = max(due + 1 / self._video.fps, now - 1 / self._video.fps)
            if converter is None:
                turn = orientation(decoded)
                size = (decoded.height, decoded.width) if turn < 5 else (decoded.width, decoded.height)
                self._facts = VideoFacts(0, size, sample_aspect_ratio=pixel_aspect(stream, turn), orientation=turn)
                converter = RgbConverter(size, turn)
            image_HW3 = torch.from_numpy(converter.convert(decoded).copy())
            if not self._hand_over(Frame("", image_HW3, time=now, received=received)):
                return

    def _decoded(self, stream: Any) -> Iterator[Any]:
        """Frames; a stream that is joined in its midst begins with what cannot be decoded."""
        for packet in self._container.demux(stream):
            with suppress(av.error.InvalidDataError):
                yield from packet.decode()

    def _hand_over(self, frame: Frame) -> bool:
        """Put a frame where it is taken from; False if nobody wants it any more."""
        with self._changed:
            if self._drops:
                while len(self._frames) >= self._video.num_held:
                    self._frames.popleft()
                    self.num_dropped += 1
            else:
                self._changed.wait_for(lambda: self._is_closed or len(self._frames) < self._video.num_held)
            if self._is_closed:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
        return True


class StreamClock:
    """Seconds from a stream's first frame to each one; they go on whatever the time stamps do.

    The first frame decides whether stamps are read. A stamp that is missing, goes back or is far ahead, as where a
    sender begins anew, lets the time go on by one frame; later ones count from there.

    Args:
        rate: Frames a second, where stamps do not tell.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._now: float | None = None
        self._zero: float | None = None  # the stamp that time 0 would have

    def tell(self, stamp: float | None) -> float:
        """The time of the next frame, by its own stamp in seconds."""
        if self._now is None:
            self._now, self._zero = 0.0, stamp
            return 0.0
        expected = self._now + self._step
        own = None if stamp is None or self._zero is None else stamp - self._zero
        if own is None or not self._now < own <= self._now + _LARGEST_GAP:
            if own is not None:
                self._zero = None if stamp is None else stamp - expected
            own = expected
        self._now = own
        return own


def stream_name(location: str) -> str:
    """Name of a stream: the last part of its place."""
    last = "pipe" if location == PIPE else re.split(r"[/?]", location.rstrip("/"))[-1] or "stream"
    if URL.match(location):
        url = urlsplit(location)
        last = Path(url.path).stem or url.hostname or "stream"
    return last.replace(":", "-")


def _opened(video: StreamVideo) -> Any:
    location, settings = video.location, dict[str, Any]()
    if location == PIPE:
        location = "pipe:0"
    elif is_camera(location):
        known = [name for name in _CAMERA_FORMATS if name in av.formats_available]
        if not known:
            raise ValueError(
                "this build of PyAV reads no cameras; let FFmpeg read it: `ffmpeg -f v4l2 -i "
                f"{location} -f mpegts - | zsvss predict -`"
            )
        settings = {"format": known[0], "options": {"framerate": f"{video.fps:g}"} if video.fps else {}}
    elif location.lower().startswith("rtsp"):
        settings = {"options": {"rtsp_transport": "tcp"}}
    try:
        container = av.open(location, timeout=video.time_limit, **settings)
    except (av.error.FFmpegError, OSError) as error:
        reason = without_userinfo(first_line(error))
        raise ValueError(f"it cannot be opened ({reason}); is the sender running?") from error
    if not container.streams.video:
        container.close()
        raise ValueError("it has no video")
    return container
