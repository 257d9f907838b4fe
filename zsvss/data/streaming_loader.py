"""Clips of videos whose length and shots show only while they are read; long videos go on where they were left.

T frames, H W pixels; 3 is RGB.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from zsvss.backbones.input_size import NetworkSize
from zsvss.data.clip import Clip, Tail
from zsvss.data.clip_planner import ClipPlanner, Cutout, Frame
from zsvss.data.loader import ClipLoader, PackedClip, resized, unchanged, use_scratch
from zsvss.data.reader import first_line
from zsvss.data.shared_memory import Slot
from zsvss.data.shots import ShotDetector
from zsvss.data.video import UNKNOWN_LENGTH, UNLABELLED, UnreadableVideoError, Video
from zsvss.data.video_facts import VideoFacts
from zsvss.data.worker_failures import WatchedItems


class Cutting(NamedTuple):
    """How videos are cut into clips, see `ClipPlanner`."""

    clip_length: int
    tail: Tail = "overlap"
    shots: ShotDetector | None = None


class Opened(NamedTuple):
    """What is known of a video when it is open."""

    name: str
    num_frames: int | None
    facts: VideoFacts | None


class StreamingLoader(ClipLoader):
    """Reads videos one after the other, from their first frame to their last, in one process for all of them.

    Nothing of a video need be known before. A worker decodes one clip ahead; live videos are read in this process.

    Args:
        videos: In this order.
        cutting: How they are cut into clips.
        places: Of videos that an earlier run has left in their midst, by name: the ``place`` of the last clip that was
            done.
        when_opened: Told of every video when it is open.
        num_workers: 0 decodes in this process, without a time limit; otherwise one worker does.
        settings: Of `ClipLoader`.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        cutting: Cutting,
        places: Mapping[str, str] | None = None,
        when_opened: Callable[[Opened], None] = lambda opened: None,
        num_workers: int = 1,
        **settings: Any,
    ) -> None:
        is_live = any(video.is_live for video in videos)
        super().__init__((), 0 if is_live else min(1, num_workers), **settings)
        self.videos = list(videos)
        self.cutting = cutting
        self.places = dict(places or {})
        self.when_opened = when_opened

    def __len__(self) -> int:
        raise TypeError("how many clips there are shows only when they are read")

    @property
    def num_frames(self) -> int | None:
        """Frames that are to be read; None if that is not known yet."""
        starts = {name: ClipPlanner.at(place).start for name, place in self.places.items()}
        lengths = [video.num_frames for video in self.videos]
        if UNKNOWN_LENGTH in lengths:
            return None
        return sum(lengths) - sum(starts.get(video.name, 0) for video in self.videos)

    def __iter__(self) -> Iterator[Clip]:
        """Yield the clips.

        Raises:
            UnreadableVideoError: If a video cannot be read, unless ``skip_unreadable``.
        """
        position = 0
        # What a worker leaves behind when it has to be killed lies in here.
        with tempfile.TemporaryDirectory(prefix="zsvss-") as scratch:
            while position < len(self.videos):
                with closing(self._read(self.videos[position:], scratch)) as items:
                    for item in items:
                        if isinstance(item, Opened):
                            self._open(position, item)
                            continue
                        if isinstance(item, UnreadableVideoError):
                            self.record(item)
                        else:
                            yield item
                        # The rest of a video that has failed is not worth reading.
                        has_failed = self.videos[position].name in self.failures
                        is_last = isinstance(item, Clip) and item.is_last
                        position += has_failed or is_last
                        if has_failed:
                            break

    def _open(self, position: int, opened: Opened) -> None:
        self.videos[position] = self.videos[position].opened(opened.num_frames, opened.facts)
        self.when_opened(opened)

    def _read(
        self, videos: Sequence[Video], scratch: str
    ) -> Generator[Clip | Opened | UnreadableVideoError, None, None]:
        """What a worker reads; ends with a failure if it hangs or dies."""
        slots = [Slot(scratch) for _ in range(self.num_workers + 1)] if self.num_workers else []
        loader = DataLoader(
            _Videos(videos, self.cutting, self.places, self.network_size, slots),
            batch_size=None,
            num_workers=self.num_workers,
            prefetch_factor=1 if self.num_workers else None,
            collate_fn=unchanged,
            timeout=self.time_limit if self.num_workers else 0,
            worker_init_fn=partial(use_scratch, scratch),
        )
        current, numbers = 0, count()
        items = WatchedItems(loader)
        try:
            for item in items:
                if isinstance(item, PackedClip):
                    item = item.unpack(slots[next(numbers) % len(slots)], pinned=self.pin_memory)
                yield item
                current += isinstance(item, UnreadableVideoError) or (isinstance(item, Clip) and item.is_last)
        except RuntimeError as error:
            reason = "the decoder crashed; is the file damaged? Copy it again or convert it"
            if "timed out" in str(error):
                reason = (
                    f"the decoder gave nothing for {self.time_limit:g} s; is the file damaged? If it is only slow, "
                    "raise data.time_limit"
                )
            elif "worker" not in str(error):
                raise
            yield UnreadableVideoError(videos[current].name, videos[current].path, reason)
        finally:
            items.close()
            for slot in slots:
                slot.close()


class LoaderForLightning(StreamingLoader):
    """The same as Lightning wants it, which would read a clip ahead of a loader without a length."""

    def __len__(self) -> int:
        return sys.maxsize


class _Videos(IterableDataset[Any]):
    """Reads videos one after the other. A failure is handed out, not raised, so that it stays readable."""

    def __init__(
        self,
        videos: Sequence[Video],
        cutting: Cutting,
        places: Mapping[str, str],
        network_size: NetworkSize | None,
        slots: Sequence[Slot],
    ) -> None:
        self._videos, self._cutting, self._places = videos, cutting, places
        self._network_size, self._slots = network_size, slots

    def __iter__(self) -> Iterator[Any]:
        numbers = count()
        for video in self._videos:
            try:
                for item in self._read(video):
                    if self._slots and isinstance(item, Clip):
                        yield PackedClip.pack(item, self._slots[next(numbers) % len(self._slots)])
                    else:
                        yield item
            # Decoders raise types of their own; one bad video must not sink a run.
            except Exception as error:
                yield UnreadableVideoError(video.name, video.path, first_line(error))

    def _read(self, video: Video) -> Iterator[Clip | Opened]:
        with closing(video.open()) as opened:
            length = opened.num_frames
            num_frames = video.at_most if length is None else min(length, video.at_most)
            yield Opened(video.name, None if length is None else num_frames, opened.facts)
            place = self._places.get(video.name)
            planner = self._planner(video, None if length is None else num_frames)
            if place is not None:
                planner = ClipPlanner.at(place)
            is_empty = True
            for cutout in planner.clips(opened.frames(planner.start, num_frames)):
                is_empty = False
                clip = as_clip(video.name, cutout, planner.num_frames, self._network_size)
                yield clip._replace(place=None if video.is_live else clip.place, num_dropped=opened.num_dropped)
            if is_empty:
                raise ValueError("it holds no frame")

    def _planner(self, video: Video, num_frames: int | None) -> ClipPlanner:
        clip_length, tail, shots = self._cutting
        # To move the last clip back means to wait for another one.
        return ClipPlanner(clip_length, "short" if video.is_live else tail, shots, num_frames)


def as_clip(video: str, cutout: Cutout, num_frames: int | None, network_size: NetworkSize | None = None) -> Clip:
    """The clip that a planner has cut out of a video."""
    frames_THW3 = torch.stack([frame.image_HW3 for frame in cutout.frames])
    times = [frame.time for frame in cutout.frames if frame.time is not None]
    return Clip(
        video=video,
        index=cutout.index,
        start=cutout.start,
        frames_THW3=frames_THW3,
        labels_THW=_labels(cutout.frames),
        labelled_T=torch.tensor([frame.labels_HW is not None for frame in cutout.frames]),
        num_final=cutout.num_final,
        video_length=UNKNOWN_LENGTH if num_frames is None else num_frames,
        frame_names=tuple(frame.name for frame in cutout.frames),
        resized_THW3=resized(frames_THW3, network_size),
        shot=cutout.shot,
        place=cutout.place,
        times=tuple(times) or None,
        received=cutout.frames[-1].received,
    )


def _labels(frames: Sequence[Frame]) -> Tensor | None:
    """Ground truth of some frames, 255 in those without; None if none has any."""
    given = [frame.labels_HW for frame in frames if frame.labels_HW is not None]
    if not given:
        return None
    open_HW = torch.full_like(given[0], UNLABELLED)
    return torch.stack([open_HW if frame.labels_HW is None else frame.labels_HW for frame in frames])
