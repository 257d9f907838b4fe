"""What all data sets share: a checked list of videos, whole videos per rank, clips in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning
from lightning.pytorch import Trainer
from torch import distributed

from zsvss.backbones.input_size import NetworkSize
from zsvss.data.clip import Tail, clip_starts
from zsvss.data.loader import ClipLoader, PlannedClip
from zsvss.data.reader import Decoder, check_decoder
from zsvss.data.shots import ShotDetector
from zsvss.data.streaming_loader import Cutting, LoaderForLightning, Opened, StreamingLoader
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import UNKNOWN_LENGTH, UnsegmentedVideoError, Video
from zsvss.gathering import gather, is_distributed


def shard_videos(videos: Sequence[Video], num_ranks: int) -> list[list[Video]]:
    """Distribute whole videos over ranks, longest first, each to the rank with the fewest frames so far.

    Args:
        videos: All videos.
        num_ranks: Number of processes.

    Returns:
        The videos of every rank, in their original order; nothing is padded or repeated.
    """
    order = sorted(range(len(videos)), key=lambda index: (-videos[index].num_frames, index))
    num_frames = [0] * num_ranks
    shards: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in order:
        rank = num_frames.index(min(num_frames))
        shards[rank].append(index)
        num_frames[rank] += videos[index].num_frames
    return [[videos[index] for index in sorted(shard)] for shard in shards]


class VideoDataModule(lightning.LightningDataModule, ABC):
    """Clips of whole videos, sharded by rank. A data set sets ``name`` and implements ``taxonomy`` and ``find_videos``.

    Args:
        clip_length: Frames of a clip.
        tail: A video's remainder becomes a full clip that overlaps the one before (``overlap``) or a ``short`` one.
        repeat_last_clip: Process the last clip twice if the clip length divides the video (published accident).
        require_full_clip: Refuse videos shorter than a clip (the published code fails on them).
        num_workers: Processes that decode ahead; 0 decodes in the main process, without a time limit. With
            ``shots``, or where lengths are not known, one process decodes; streams are read in the main process.
        time_limit: Seconds that decoding one clip may take.
        skip_unreadable: Go on without a video that turns out unreadable; ``failures`` lists them.
        limit_videos: Use only so many videos.
        limit_frames: Use only so many frames of each video.
        decoder: ``auto`` | ``decord`` | ``pillow`` (images) | ``pyav`` (video files); see ``zsvss.data.reader``.
        shots: Finds the shots of videos in ``predict``, where labels then open anew after a cut; ``None`` takes a
            video for one shot, as ``test`` does.
    """

    name: str
    """Name of the data set; part of every random seed."""
    given_frames: Literal["none", "first", "all"] = "none"
    """Whose masks ``predict`` may give to the method: ``all`` is what masks are for where nothing is scored."""

    def __init__(
        self,
        clip_length: int = 14,
        tail: Tail = "overlap",
        repeat_last_clip: bool = False,
        require_full_clip: bool = False,
        num_workers: int = 1,
        time_limit: float = 60.0,
        skip_unreadable: bool = False,
        limit_videos: int | None = None,
        limit_frames: int | None = None,
        decoder: Decoder = "auto",
        shots: ShotDetector | None = None,
    ) -> None:
        super().__init__()
        limits = {"clip_length": clip_length, "limit_videos": limit_videos, "limit_frames": limit_frames}
        for key, value in limits.items():
            if value is not None and value < 1:
                raise ValueError(f"data.{key} is {value}; it must be at least 1")
        if num_workers < 0:
            raise ValueError(f"data.num_workers is {num_workers}; it must be at least 0")
        check_decoder(decoder)
        self.clip_length = clip_length
        self.tail: Tail = tail
        self.repeat_last_clip = repeat_last_clip
        self.require_full_clip = require_full_clip
        self.num_workers = num_workers
        self.time_limit = time_limit
        self.skip_unreadable = skip_unreadable
        self.limit_videos = limit_videos
        self.limit_frames = limit_frames
        self.decoder: Decoder = decoder
        self.shots = shots
        self.finished: Collection[str] = ()
        """Names of videos not to read again; a result store sets it before the loader is made."""
        self.places: Mapping[str, str] = {}
        """Where to go on in videos that an earlier start has begun, by name; a result store sets it likewise."""
        self.network_size: NetworkSize | None = None
        """At which size the model sees frames; set before the loader is made, so that workers resize them."""
        self.unreadable: dict[str, str] = {}
        """Videos that `find_videos` could not read, and why; they are failures of the run, and the others go on."""
        self._videos: list[Video] | None = None
        self._numbers: dict[str, int] = {}
        self._loader: ClipLoader | None = None

    @property
    @abstractmethod
    def taxonomy(self) -> Taxonomy | None:
        """What the raw ground-truth values mean; None without ground truth."""

    @property
    def consistency_caveat(self) -> str | None:
        """What to know before video consistency on these videos is quoted, to be told beside it; None if nothing."""
        return None

    @abstractmethod
    def find_videos(self) -> list[Video]:
        """List all videos and check the folder, cheaply.

        Raises:
            FileNotFoundError: If a file or folder is missing; says which, and what the layout should be.
            ValueError: If what is there cannot be used.
        """

    def videos(self) -> list[Video]:
        """The videos to process, of all ranks; checked once, before anything heavy."""
        if self._videos is None:
            videos = self.find_videos()[: self.limit_videos]
            if self.limit_frames is not None:
                videos = [_limited(video, self.limit_frames) for video in videos]
            names = [video.name for video in videos]
            if len(set(names)) < len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise ValueError(
                    f"{self.name} lists {len(twice)} videos more than once, such as {twice[0]!r}; results are kept by "
                    "name: remove the repeated lines of the split file, or rename one of the videos"
                )
            for video in videos:
                if self.require_full_clip and video.num_frames < self.clip_length:
                    raise ValueError(
                        f"video {video.name!r} has {video.num_frames} frames, fewer than data.clip_length "
                        f"{self.clip_length}, and data.require_full_clip is on; switch it off or shorten the clip"
                    )
            self._videos = videos
        return self._videos

    @property
    def has_ground_truth(self) -> bool:
        """Whether any video has ground truth."""
        return any(video.has_ground_truth for video in self.videos())

    @property
    def failures(self) -> dict[str, str]:
        """Videos of this rank without a result, and why (with ``skip_unreadable``)."""
        while_loading = {} if self._loader is None else self._loader.failures
        return self.unreadable | {name: str(error) for name, error in while_loading.items()}

    def fail(self, name: str, reason: str) -> None:
        """Leave out the rest of a video that could not be segmented.

        Raises:
            UnsegmentedVideoError: unless ``skip_unreadable``.
        """
        assert self._loader is not None
        path = next(video.path for video in self.videos() if video.name == name)
        self._loader.record(UnsegmentedVideoError(name, path, reason))

    def gather_failures(self, group: distributed.ProcessGroup | None = None) -> dict[str, str]:
        """The same of all ranks (of a group); a collective operation, which every rank must call."""
        return dict(sorted(item for of_rank in gather(self.failures, group) for item in of_rank.items()))

    def prepare_data(self) -> None:
        """Check the folder."""
        self.videos()

    def setup(self, stage: str) -> None:
        """Check the folder, the number of ranks, and for ``test`` that there is something to score.

        Raises:
            ValueError: If there are more ranks than videos, or nothing to score.
        """
        num_videos, num_ranks = len(self.videos()), _rank_and_world_size()[1]
        if num_videos < num_ranks:
            raise ValueError(
                f"{self.name} has {num_videos} video(s) for {num_ranks} processes; every process needs one of its own: "
                f"set trainer.devices (times trainer.num_nodes) to at most {num_videos}"
            )
        if stage == "test" and not self.has_ground_truth:
            raise ValueError(f"{self.name} has no ground truth to test against; use `predict`, or give masks")

    def plan(self, videos: Sequence[Video]) -> list[PlannedClip]:
        """The clips of the given videos, in order."""
        return [
            PlannedClip(video, index, start, length, num_final)
            for video in videos
            for index, (start, length, num_final) in enumerate(
                clip_starts(video.num_frames, self.clip_length, self.tail, self.repeat_last_clip)
            )
        ]

    def test_dataloader(self) -> ClipLoader:
        """The clips of this rank's videos."""
        self._loader = ClipLoader(self.plan(self._share()), num_workers=self.num_workers, **self._loader_settings())
        return self._loader

    def predict_dataloader(self) -> ClipLoader:
        """The clips of this rank's videos, cut at the borders of shots where they are looked for."""
        share = self._share()
        # Several workers read clips of one video at the same time, which only a plan allows.
        is_known = all(video.num_frames != UNKNOWN_LENGTH and not video.is_live for video in share)
        has_plan = self.shots is None and not self.places and is_known
        if has_plan and (self.num_workers > 1 or self.repeat_last_clip):
            return self.test_dataloader()
        kind = StreamingLoader if self.trainer is None else LoaderForLightning
        self._loader = kind(
            share,
            Cutting(self.clip_length, self.tail, self.shots),
            self.places,
            self._when_opened,
            self.num_workers,
            **self._loader_settings(),
        )
        return self._loader

    def _share(self) -> list[Video]:
        """This rank's videos, without those that are finished."""
        rank, num_ranks = _rank_and_world_size()
        todo = [video for video in self.videos() if video.name not in self.finished]
        return shard_videos(todo, num_ranks)[rank]

    def _loader_settings(self) -> dict[str, Any]:
        return {
            "time_limit": self.time_limit,
            "skip_unreadable": self.skip_unreadable,
            "network_size": self.network_size,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type != "cpu",
        }

    def _when_opened(self, opened: Opened) -> None:
        """Keep what is known of a video now that it is open."""
        videos = self.videos()
        if not self._numbers:
            self._numbers = {video.name: number for number, video in enumerate(videos)}
        number = self._numbers[opened.name]
        videos[number] = videos[number].opened(opened.num_frames, opened.facts)


def _limited(video: Video, limit: int) -> Video:
    """A video of which at most so many frames are used; a limit says nothing of a length that is not known."""
    if video.num_frames == UNKNOWN_LENGTH:
        return replace(video, limit=limit)
    return replace(video, num_frames=min(video.num_frames, limit))


def _rank_and_world_size() -> tuple[int, int]:
    return (distributed.get_rank(), distributed.get_world_size()) if is_distributed() else (0, 1)


def datamodule(trainer: Trainer) -> Any:
    """The run's datamodule, which Lightning attaches to the trainer without declaring it."""
    lightnings: Any = trainer
    return lightnings.datamodule
