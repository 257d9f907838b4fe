"""Arms a run so that it is killed by SIGKILL at a random moment of one of its phases."""

from __future__ import annotations

import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zsvss.results.records
from zsvss.callbacks.resume import ResultStore
from zsvss.data.loader import _PlannedClips
from zsvss.module import VideoSegmentation
from zsvss.segmenter import VideoSegmenter

MOMENTS = ("decoding", "clip", "record", "between", "end")


class Moment(NamedTuple):
    """When to kill.

    Attributes:
        count: in which pass of the phase, from 1.
        fraction: how far into it, 0..1.
    """

    count: int
    fraction: float


def draw(phase: str, seed: int, num_videos: int, num_clips: int) -> Moment:
    """A random moment. Not in the first pass: how long one takes is learnt from those before."""
    rng = random.Random(f"{phase} {seed}")
    last = {"decoding": num_clips, "clip": num_clips, "record": num_videos, "between": num_videos - 1, "end": 1}[phase]
    return Moment(rng.randint(min(2, last), last), rng.random())


class Clock:
    """Kills the run a fraction into a pass of a phase, by what the pass before took; at the latest when it ends."""

    def __init__(self, moment: Moment, seconds: float = 0.0) -> None:
        self.moment, self.seconds = moment, seconds
        self.main = os.getpid()
        self.passes, self.start, self.within = 0, 0.0, False

    def begin(self, *_: Any) -> None:
        """The phase begins."""
        self.passes, self.within = self.passes + 1, True
        self.start = time.perf_counter()
        if self.passes == self.moment.count:
            threading.Thread(target=self._kill_later).start()  # the process cannot end before it

    def end(self, *_: Any) -> None:
        """The phase ends, if it has begun."""
        if not self.within:
            return
        if self.passes == self.moment.count:
            self.kill()
        self.seconds, self.within = time.perf_counter() - self.start, False

    def kill(self) -> None:
        """Kill the run, and this process, if it is one of its workers."""
        os.kill(self.main, signal.SIGKILL)
        os._exit(1)

    def _kill_later(self) -> None:
        time.sleep(self.moment.fraction * self.seconds)
        self.kill()


def around(function: Callable[..., Any], before: Callable[..., Any], after: Callable[..., Any]) -> Callable[..., Any]:
    """The function with something before and after it."""

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        before(*arguments)
        result = function(*arguments, **keywords)
        after(*arguments)
        return result

    return wrapped


def nothing(*_: Any) -> None:
    """Do nothing."""


def arm(phase: str, count: int, fraction: float) -> None:
    """Arm this process."""
    clock = Clock(Moment(count, fraction))
    if phase == "decoding":
        _PlannedClips._read = around(_PlannedClips._read, clock.begin, clock.end)  # type: ignore[method-assign]  # timed
    elif phase == "clip":
        VideoSegmenter.forward = around(VideoSegmenter.forward, clock.begin, clock.end)  # type: ignore[method-assign]  # timed
    elif phase == "record":
        zsvss.results.records.write_atomically = cut_short(clock)
    elif phase == "between":
        ResultStore._write = around(ResultStore._write, nothing, clock.begin)  # type: ignore[method-assign]  # timed
        VideoSegmenter.forward = around(VideoSegmenter.forward, clock.end, nothing)  # type: ignore[method-assign]  # timed
    elif phase == "end":
        clock.seconds = 0.5  # about what gathering, folding, writing and printing take
        end = VideoSegmentation.on_test_epoch_end
        VideoSegmentation.on_test_epoch_end = around(end, clock.begin, nothing)  # type: ignore[method-assign]  # timed
    else:
        raise ValueError(phase)


def cut_short(clock: Clock) -> Callable[[Path, str], None]:
    """Writes files as usual, but of the COUNT-th record only a part, to the byte; or all of it, without the folder."""
    whole, passes, fsync = zsvss.results.records.write_atomically, 0, os.fsync

    def write(path: Path, text: str) -> None:
        nonlocal passes
        passes += path.parent.name == "videos"
        if path.parent.name != "videos" or passes < clock.moment.count:
            whole(path, text)
            return
        num_bytes = int(clock.moment.fraction * 1.2 * len(text.encode()))

        def killed_fsync(handle: int) -> None:
            if num_bytes <= len(text.encode()):
                os.ftruncate(handle, num_bytes)
                clock.kill()
            if stat.S_ISDIR(os.fstat(handle).st_mode):  # renamed, but the folder is not on disk yet
                clock.kill()
            fsync(handle)

        zsvss.results.records.os.fsync = killed_fsync  # type: ignore[attr-defined]  # of the imported os
        whole(path, text)

    return write
