"""Clips of many videos in order, decoded ahead in worker processes, with a time limit on every clip."""

from __future__ import annotations

import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from zsvss.data.clip import Clip
from zsvss.data.reader import first_line
from zsvss.data.video import OpenVideo, UnreadableVideoError, Video

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PlannedClip(NamedTuple):
    """A clip yet to be read: number ``index`` of ``video``, ``length`` frames from ``start``."""

    video: Video
    index: int  # type: ignore[assignment]
    start: int
    length: int
    num_final: int


class ClipLoader:
    """Iterates over planned clips in order; ``len()`` is their number, but at least 1.

    Not a ``DataLoader`` itself: Lightning would then offer to shard it by clip, and videos are already sharded.

    Args:
        plan: The clips, those of a video together and in order.
        num_workers: Processes that decode ahead. 0 decodes in this process, without a time limit.
        time_limit: Seconds that a clip may take; some damaged files make a decoder wait for ever.
        skip_unreadable: Leave out (the rest of) a video that cannot be read and record it in ``failures``, instead of
            raising.
    """

    def __init__(
        self,
        plan: Sequence[PlannedClip],
        num_workers: int = 1,
        time_limit: float = 60.0,
        skip_unreadable: bool = False,
    ) -> None:
        self.plan = tuple(plan)
        self.num_workers = num_workers
        self.time_limit = time_limit
        self.skip_unreadable = skip_unreadable
        self.failures: dict[str, UnreadableVideoError] = {}

    def __len__(self) -> int:
        # Lightning leaves out the whole loop of a process without a clip, for which the others would wait at its end.
        return max(1, len(self.plan))

    def __iter__(self) -> Iterator[Clip]:
        """Yield the clips.

        Raises:
            UnreadableVideoError: If a video cannot be read, unless ``skip_unreadable``.
        """
        position, num_workers = 0, self.num_workers
        # What a worker leaves behind when it has to be killed lies in here.
        with tempfile.TemporaryDirectory(prefix="zsvss-") as scratch:
            while position < len(self.plan):
                for item in self._read_ahead(position, num_workers, scratch):
                    if isinstance(item, UnreadableVideoError):
                        self._record(item)
                    elif self.plan[position].video.name not in self.failures:
                        yield _to_tensors(item)
                    position += 1
                # If one of several workers died, a single one will tell on which clip.
                num_workers = min(1, num_workers)
                while position < len(self.plan) and self.plan[position].video.name in self.failures:
                    position += 1

    def _read_ahead(self, position: int, num_workers: int, scratch: str) -> Iterator[Clip | UnreadableVideoError]:
        """One item for every planned clip from ``position`` on; ends early if a worker hangs or dies."""
        loader = DataLoader(
            _PlannedClips(self.plan[position:]),
            batch_size=None,
            num_workers=num_workers,
            # A dying worker takes prefetched clips with it; with one clip under way it is clear which one killed it.
            prefetch_factor=1 if num_workers else None,
            collate_fn=_unchanged,
            timeout=self.time_limit if num_workers else 0,
            worker_init_fn=partial(_use_scratch, scratch),
        )
        items = iter(loader)
        for planned in self.plan[position:]:
            try:
                item = next(items)
            except RuntimeError as error:
                if "timed out" in str(error):
                    yield _failure(
                        planned,
                        f"the decoder gave nothing for {self.time_limit:g} s; is the file damaged? If it is only slow, "
                        "raise data.time_limit",
                    )
                elif num_workers == 1:
                    yield _failure(planned, "the decoder crashed; is the file damaged? Copy it again or convert it")
                return
            yield item

    def _record(self, failure: UnreadableVideoError) -> None:
        if not self.skip_unreadable:
            raise failure
        if failure.video not in self.failures:
            _log.error("%s", failure)
            self.failures[failure.video] = failure


class _PlannedClips(Dataset[Any]):
    """Reads planned clips; keeps the last video open. A failure is returned, not raised, so that it stays readable."""

    def __init__(self, plan: Sequence[PlannedClip]) -> None:
        self._plan = plan
        self._video: Video | None = None
        self._open: OpenVideo | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> Any:
        planned = self._plan[item]
        try:
            return self._read(planned)
        except Exception as error:  # decoders raise types of their own; one bad video must not sink a run
            return _failure(planned, first_line(error))

    def _read(self, planned: PlannedClip) -> Any:
        video, stop = planned.video, planned.start + planned.length
        if self._open is None or self._video is not video:
            if self._open is not None:
                self._open.close()
            self._open, self._video = None, video
            self._open = video.open()
        frames_THW3, labels_THW, labelled_T = self._open.read(planned.start, stop)
        # Arrays pass between processes through a pipe, tensors through shared memory, of which containers have little.
        return Clip(
            video=video.name,
            index=planned.index,
            start=planned.start,
            frames_THW3=frames_THW3.numpy(),  # type: ignore[arg-type]
            labels_THW=None if labels_THW is None else labels_THW.numpy(),  # type: ignore[arg-type]
            labelled_T=labelled_T.numpy(),  # type: ignore[arg-type]
            num_final=planned.num_final,
            video_length=video.num_frames,
            frame_names=self._open.names[planned.start : stop],
        )


def call_with_time_limit(function: Callable[..., _T], *args: Any, seconds: float) -> _T:
    """Call a function in a process of its own and wait for its result, at most so many seconds.

    Raises:
        TimeoutError: If it takes longer; the process is killed.
        ValueError: If it raises (with the same text) or its process dies.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_send_result, args=(sender, function, args), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise TimeoutError(f"no result within {seconds:g} s")
        ok, result = receiver.recv()
    except EOFError:
        ok, result = False, "the decoder crashed"
    finally:
        process.kill()
        process.join()
        receiver.close()
    if not ok:
        raise ValueError(result)
    return cast("_T", result)


def _send_result(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sender.send((True, function(*args)))
    except Exception as error:  # sent to the caller, which raises it
        sender.send((False, str(error) or type(error).__name__))


def _failure(planned: PlannedClip, reason: str) -> UnreadableVideoError:
    return UnreadableVideoError(planned.video.name, planned.video.path, reason)


def _to_tensors(clip: Clip) -> Clip:
    def tensor(array: Any) -> Any:
        if array is None:
            return None
        return torch.from_numpy(array).pin_memory() if torch.cuda.is_available() else torch.from_numpy(array)

    return clip._replace(
        frames_THW3=tensor(clip.frames_THW3), labels_THW=tensor(clip.labels_THW), labelled_T=tensor(clip.labelled_T)
    )


def _unchanged(item: _T) -> _T:
    return item


def _use_scratch(scratch: str, _worker: int) -> None:
    tempfile.tempdir = scratch
