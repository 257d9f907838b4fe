"""Clips of many videos in order, decoded ahead in worker processes, with a time limit on every clip."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zsvss.backbones.input_size import NetworkSize, resize_frames
from zsvss.data.clip import Clip
from zsvss.data.reader import first_line
from zsvss.data.shared_memory import Place, Slot
from zsvss.data.video import OpenVideo, UnreadableVideoError, Video
from zsvss.data.worker_failures import WatchedItems

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PlannedClip(NamedTuple):
    """A clip yet to be read: number ``index`` of ``video``, ``length`` frames from ``start``."""

    video: Video
    index: int  # type: ignore[assignment]  # in place of a tuple's own
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
        network_size: At which size the network sees frames; the workers add the frames at that size.
        pin_memory: Put what workers have read into pinned memory, for a run on a GPU.
    """

    def __init__(
        self,
        plan: Sequence[PlannedClip],
        num_workers: int = 1,
        time_limit: float = 60.0,
        skip_unreadable: bool = False,
        network_size: NetworkSize | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.plan = tuple(plan)
        self.num_workers = num_workers
        self.time_limit = time_limit
        self.skip_unreadable = skip_unreadable
        self.network_size = network_size
        self.pin_memory = pin_memory
        self.failures: dict[str, UnreadableVideoError] = {}

    def __len__(self) -> int:
        # Lightning leaves out the whole loop of a process without a clip, for which the others would wait at its end.
        return max(1, len(self.plan))

    @property
    def num_frames(self) -> int | None:
        """Frames of all videos; None if that is not known yet."""
        return sum(planned.num_final for planned in self.plan)

    def __iter__(self) -> Iterator[Clip]:
        """Yield the clips.

        Raises:
            UnreadableVideoError: If a video cannot be read, unless ``skip_unreadable``.
        """
        position, num_workers, num_failures = 0, self.num_workers, 0
        # What a worker leaves behind when it has to be killed lies in here.
        with tempfile.TemporaryDirectory(prefix="zsvss-") as scratch:
            while position < len(self.plan):
                for item in self._read_ahead(position, num_workers, scratch):
                    if isinstance(item, UnreadableVideoError):
                        self.record(item)
                    elif self.plan[position].video.name not in self.failures:
                        yield item
                    position += 1
                # If one of several workers died, a single one tells on which clip; then they are several again.
                told = len(self.failures) > num_failures
                num_workers, num_failures = self.num_workers if told else min(1, num_workers), len(self.failures)
                while position < len(self.plan) and self.plan[position].video.name in self.failures:
                    position += 1

    def _read_ahead(self, position: int, num_workers: int, scratch: str) -> Iterator[Clip | UnreadableVideoError]:
        """One item for every planned clip from ``position`` on; ends early if a worker hangs or dies."""
        # Workers are told of the next clip before the caller has the last one: one slot more than clips under way.
        slots = [Slot(scratch) for _ in range(num_workers + 1)] if num_workers else []
        loader = DataLoader(
            _PlannedClips(self.plan[position:], self.network_size, slots),
            batch_size=None,
            num_workers=num_workers,
            # A dying worker takes prefetched clips with it; with one clip under way it is clear which one killed it.
            prefetch_factor=1 if num_workers else None,
            collate_fn=unchanged,
            timeout=self.time_limit if num_workers else 0,
            worker_init_fn=partial(use_scratch, scratch),
        )
        items = WatchedItems(loader)
        try:
            yield from self._items(items, position, num_workers, slots)
        finally:
            items.close()
            for slot in slots:
                slot.close()

    def _items(
        self, items: Iterator[Any], position: int, num_workers: int, slots: Sequence[Slot]
    ) -> Iterator[Clip | UnreadableVideoError]:
        for number, planned in enumerate(self.plan[position:]):
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
            if isinstance(item, PackedClip):
                item = item.unpack(slots[number % len(slots)], pinned=self.pin_memory)
            yield item

    def record(self, failure: UnreadableVideoError) -> None:
        """Leave out (the rest of) a video.

        Raises:
            UnreadableVideoError: it, unless ``skip_unreadable``.
        """
        if not self.skip_unreadable:
            raise failure
        if failure.video not in self.failures:
            _log.error("%s", failure)
            self.failures[failure.video] = failure


class PackedClip(NamedTuple):
    """A clip on its way from a worker, whose images lie in a slot."""

    clip: Clip
    places: list[Place]
    fields: tuple[str, ...]

    @classmethod
    def pack(cls, clip: Clip, slot: Slot) -> PackedClip:
        """Put a clip's images into a slot."""
        images: dict[str, Any] = {name: value for name in _IMAGES if (value := getattr(clip, name)) is not None}
        # As a list: a tensor would go through a file of its own.
        others: dict[str, Any] = {"labelled_T": clip.labelled_T.tolist(), **dict.fromkeys(images)}
        return cls(clip._replace(**others), slot.put(list(images.values())), tuple(images))

    def unpack(self, slot: Slot, *, pinned: bool) -> Clip:
        """The clip with its images out of the slot, in pinned memory if asked."""
        images: dict[str, Any] = dict(zip(self.fields, slot.take(self.places, pinned=pinned), strict=True))
        return self.clip._replace(labelled_T=torch.tensor(self.clip.labelled_T), **images)


_IMAGES = ("frames_THW3", "resized_THW3", "labels_THW")


class _PlannedClips(Dataset[Any]):
    """Reads planned clips; keeps the last video open. A failure is returned, not raised, so that it stays readable."""

    def __init__(self, plan: Sequence[PlannedClip], network_size: NetworkSize | None, slots: Sequence[Slot]) -> None:
        self._plan, self._network_size, self._slots = plan, network_size, slots
        self._video: Video | None = None
        self._open: OpenVideo | None = None

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> Clip | PackedClip | UnreadableVideoError:
        planned = self._plan[item]
        try:
            clip = self._read(planned)
        except Exception as error:  # decoders raise types of their own; one bad video must not sink a run
            return _failure(planned, first_line(error))
        return PackedClip.pack(clip, self._slots[item % len(self._slots)]) if self._slots else clip

    def _read(self, planned: PlannedClip) -> Clip:
        video, stop = planned.video, planned.start + planned.length
        if self._open is None or self._video is not video:
            if self._open is not None:
                self._open.close()
            self._open, self._video = None, video
            self._open = video.open()
        frames_THW3, labels_THW, labelled_T = self._open.read(planned.start, stop)
        return Clip(
            video=video.name,
            index=planned.index,
            start=planned.start,
            frames_THW3=frames_THW3,
            labels_THW=labels_THW,
            labelled_T=labelled_T,
            num_final=planned.num_final,
            video_length=video.num_frames,
            frame_names=self._open.names[planned.start : stop],
            resized_THW3=resized(frames_THW3, self._network_size),
        )


def resized(frames_THW3: Tensor, network_size: NetworkSize | None) -> Tensor | None:
    """Frames at the size that the network sees; None if that is their own, or it is not known."""
    own = (frames_THW3.shape[1], frames_THW3.shape[2])
    with contextlib.suppress(ValueError):  # too small for the network: no fault of the video's, the network tells
        if network_size is not None and (size := network_size.of(*own)) != own:
            return resize_frames(frames_THW3, size)
    return None


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


def unchanged(item: _T) -> _T:
    """Collate nothing."""
    return item


def use_scratch(scratch: str, _worker: int) -> None:
    """Let a worker leave its temporary files in a folder of its parent's."""
    tempfile.tempdir = scratch
