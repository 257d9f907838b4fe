"""What pictures and pages need of a segmented video, in the run folder: written once, read by reports and trackers.

::

    <run folder>/media/test/<video>/frames/00000.jpg        frames, counted from 0
                                    ground_truth/00000.png  class ids; only of frames that have ground truth
                                    coarse/00000.png        labels of the scene context model, one pixel a token
                                    refined/00000.png       the same after refinement
                                    final/00000.png         the segmentation
                                    clusters/00000.png      clusters of the first frame, before they took classes, one
                                                            pixel a token; only where they do so inside the method
                                    video.json              what the pixels mean, see `VideoMedia`

Below ``media/predict`` there is the same of a `predict` run. PNGs are in palette mode: pixel values are ids, 255 means
no label, and viewers show colours. Ids of 255 and above stand under free values, counted down from 254, that
``video.json`` lists. Frames, ground truth and segmentation have one size, that of the frames unless they were scaled
down. `<video>` is the video's name, quoted as in a URL. The folder appears when the video is finished, under its final
name and whole; until then it is called `<video>%partial`.

Shapes: T frames, H W pixels, h w tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from zsvss.metrics.naming import rename_clusters
from zsvss.results.atomic_files import file_stem, write_atomically
from zsvss.results.id_images import VOID_ID, write_index_png
from zsvss.results.segment_colors import UInt8, class_colors, palette, visible
from zsvss.stages.nearest_resizing import nearest

Labels = npt.NDArray[np.int64]

STAGES = ("coarse", "refined", "final")
"""Labels of a frame in the order of the method's stages; all but the last lie on the token grid."""
_FIRST_FREE = 128
_PARTIAL = "%partial"  # no quoted name ends so


@dataclass(frozen=True)
class VideoMedia:
    """The media of one video; the fields are the content of ``video.json``."""

    video: str
    dataset: str
    height: int
    width: int
    frame_names: tuple[str, ...]
    """Names of the frames that are kept, which are the video's first ones."""
    video_length: int
    """Number of frames of the whole video."""
    labelled: tuple[bool, ...]
    """Which of the frames have ground truth."""
    classes: tuple[str, ...]
    """Class names by id; empty for a video without ground truth."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB of each class, as the benchmark has it."""
    labels_are_classes: bool
    """Whether labels are class ids; otherwise they are clusters."""
    names: Mapping[int, int]
    """Class id of each cluster that was named after the run."""
    large_ids: Mapping[int, int]
    """Pixel value -> id, of the ids that are too large for a pixel."""
    folder: Path
    first_names: Mapping[int, int] = field(default_factory=dict)
    """Class id of each cluster of the first frame, where clusters took classes inside the method."""

    @classmethod
    def read(cls, folder: Path) -> VideoMedia:
        """Open the media of one video.

        Raises:
            ValueError: ``video.json`` is missing or damaged.
        """
        try:
            content = json.loads((folder / "video.json").read_text(encoding="utf-8"))
            plain = {key: tuple(content[key]) for key in ("frame_names", "labelled", "classes")}
            content.setdefault("first_names", {})  # older runs have none
            keys = ("names", "large_ids", "first_names")
            numbered = {key: {int(k): v for k, v in content[key].items()} for key in keys}
            colors = tuple((r, g, b) for r, g, b in content["palette"])
            return cls(**content | plain | numbered | {"palette": colors, "folder": folder})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / 'video.json'} is missing or damaged; delete {folder} and start the run again"
            ) from error

    @property
    def num_frames(self) -> int:
        """Number of frames that are kept."""
        return len(self.frame_names)

    def frame(self, number: int) -> UInt8:
        """A frame, uint8 RGB ``[H, W, 3]``."""
        with Image.open(self.path("frames", number)) as image:
            return np.asarray(image.convert("RGB"))

    def ground_truth(self, number: int) -> Labels | None:
        """Class ids of a frame, int64 ``[H, W]``, negative where void; ``None`` if the frame has no ground truth."""
        return _read_ids(self.path("ground_truth", number)) if self.labelled[number] else None

    def labels(self, stage: str, number: int, *, named: bool = True) -> Labels:
        """Labels of a frame after one of `STAGES`, int64 ``[h, w]`` or, of the last, ``[H, W]``; negative: none.

        Args:
            stage: one of `STAGES`.
            number: of the frame, from 0.
            named: give clusters that were named after the run as class ids; a cluster k without a name becomes the
                number of classes + k.
        """
        ids = self._ids(stage, number)
        if named and self.names:
            ids = rename_clusters(torch.from_numpy(ids), dict(self.names), len(self.classes)).numpy()
        return ids

    def clusters(self, number: int) -> Labels | None:
        """Clusters of a frame before they had classes, int64 ``[H, W]`` or ``[h, w]``; their classes: `cluster_names`.

        Clusters that were named after the run are known of every frame. Those that took classes inside the method are
        known of the first one, since classes are what is carried on.

        Returns:
            ``None`` where there are none, or where labels never had classes and are clusters themselves.
        """
        if self.names:
            return self.labels("final", number, named=False)
        return self._ids("clusters", 0) if self.first_names and number == 0 else None

    @property
    def cluster_names(self) -> Mapping[int, int]:
        """Class id of each of the `clusters` that has a class; negative where it is void."""
        return self.names or self.first_names

    def _ids(self, kind: str, number: int) -> Labels:
        ids = _read_ids(self.path(kind, number))
        for value, large in self.large_ids.items():
            ids[ids == value] = large
        return ids

    @cached_property
    def colors(self) -> UInt8:
        """RGB of each label as `labels` gives them by default, uint8 ``[any, 3]``: classes first, in their own."""
        if not self.labels_are_classes and not self.names:
            return palette(VOID_ID)
        if self.labels_are_classes:
            return class_colors(self.palette)
        return np.concatenate([self.class_colors, palette(VOID_ID)])

    @cached_property
    def class_colors(self) -> UInt8:
        """RGB of each class, uint8 ``[C, 3]``; none is black."""
        return visible(self.palette)

    def path(self, kind: str, number: int) -> Path:
        """File of one image; `kind` is ``frames``, ``ground_truth``, ``clusters`` or one of `STAGES`."""
        return self.folder / kind / f"{number:05d}.{'jpg' if kind == 'frames' else 'png'}"


def read_media(run: Path, task: str = "test") -> list[VideoMedia]:
    """The media of a run folder, in order of the videos' names; empty if it has none.

    Args:
        run: the run folder.
        task: ``test`` or ``predict``.

    Raises:
        ValueError: those of a video are damaged.
    """
    folders = [path for path in (run / "media" / task).glob("*") if path.is_dir() and not path.name.endswith(_PARTIAL)]
    return sorted((VideoMedia.read(folder) for folder in folders), key=lambda media: media.video)


def shared_video(runs: Sequence[Path], task: str = "test", video: str | None = None) -> list[VideoMedia]:
    """The media of one video in each of several run folders.

    Args:
        runs: run folders.
        task: ``test`` or ``predict``.
        video: its name; by default the first that all of them keep.

    Raises:
        ValueError: the runs share no video, or not this one.
    """
    kept = [{media.video: media for media in read_media(run, task)} for run in runs]
    shared = sorted(set.intersection(*(set(media) for media in kept)))
    if not shared or (video is not None and video not in shared):
        raise ValueError(
            f"{', '.join(map(str, runs))}: media of {video or 'one video'} are needed in each; all of them keep "
            f"{', '.join(shared) or 'none'} (see --media.videos, and --media.in_predict for predict)"
        )
    return [media[video or shared[0]] for media in kept]


def media_folder(run: Path, task: str, video: str) -> Path:
    """Where the media of a video lie once it is finished."""
    return run / "media" / task / file_stem(video)


class MediaWriter:
    """Writes the media of one video, frame by frame.

    Args:
        folder: of `media_folder`.
        facts: the fields of `VideoMedia` that are known from the start: all but ``height``, ``width``,
            ``frame_names``, ``labelled``, ``names``, ``large_ids``, ``first_names`` and ``folder``.
        max_side: longest side in pixels; larger frames are scaled down.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], max_side: int) -> None:
        self.facts, self.max_side = facts, max_side
        self._final = folder
        self._folder = folder.with_name(folder.name + _PARTIAL)
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        for kind in ("frames", "ground_truth", *STAGES):
            (self._folder / kind).mkdir(parents=True)
        self._size = (0, 0)
        self._frame_names: list[str] = []
        self._labelled: list[bool] = []
        self._values: dict[int, int] = {}
        self._first_names: dict[int, int] = {}

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return len(self._frame_names)

    def write(self, name: str, frame_HW3: UInt8, ground_truth_HW: Labels | None, labels: Mapping[str, Labels]) -> None:
        """Write the video's next frame.

        Args:
            name: of the frame.
            frame_HW3: uint8 RGB.
            ground_truth_HW: class ids at any size, negative where void.
            labels: ids by stage, of all `STAGES`.
        """
        number = self.num_frames
        image = Image.fromarray(frame_HW3)
        image.thumbnail((self.max_side, self.max_side), Image.Resampling.LANCZOS)
        self._size = (image.height, image.width)
        image.save(self._path("frames", number, "jpg"), quality=90)
        classes = visible(self.facts["palette"]) if self.facts["palette"] else None
        if ground_truth_HW is not None:
            write_index_png(self._path("ground_truth", number), self._scaled(ground_truth_HW), classes)
        for stage in STAGES:
            values_HW = self._pixel_values(labels[stage])
            values_HW = self._scaled(values_HW) if stage == "final" else values_HW
            colors = classes if self.facts["labels_are_classes"] else None
            write_index_png(self._path(stage, number), values_HW, colors)
        self._frame_names.append(name)
        self._labelled.append(ground_truth_HW is not None)

    def write_clusters(self, clusters_hw: Labels, classes_hw: Labels) -> None:
        """Write the clusters of the first frame, which took classes inside the method.

        Args:
            clusters_hw: cluster of each token.
            classes_hw: class id of each token's cluster, negative where void.
        """
        clusters, first = np.unique(clusters_hw, return_index=True)
        self._first_names = dict(zip(clusters.tolist(), classes_hw.flatten()[first].tolist(), strict=True))
        path = self._path("clusters", 0)
        path.parent.mkdir()
        write_index_png(path, self._pixel_values(clusters_hw))

    def finish(self, names: Mapping[int, int]) -> None:
        """Give the folder its final name.

        Args:
            names: class id of each cluster that was named after the run.
        """
        height, width = self._size
        media = VideoMedia(
            **self.facts,
            height=height,
            width=width,
            frame_names=tuple(self._frame_names),
            labelled=tuple(self._labelled),
            names=names,
            large_ids={value: large for large, value in self._values.items() if value != VOID_ID},
            folder=self._final,
            first_names=self._first_names,
        )
        content = {key: value for key, value in asdict(media).items() if key != "folder"}
        write_atomically(self._folder / "video.json", json.dumps(content) + "\n")
        shutil.rmtree(self._final, ignore_errors=True)
        self._folder.rename(self._final)

    def discard(self) -> None:
        """Remove what was written of a video that does not end."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, kind: str, number: int, suffix: str = "png") -> Path:
        return self._folder / kind / f"{number:05d}.{suffix}"

    def _scaled(self, labels_HW: Labels) -> Labels:
        scaled: Labels = nearest(torch.from_numpy(labels_HW), self._size).numpy()
        return scaled

    def _pixel_values(self, labels_HW: Labels) -> Labels:
        """Ids as they fit into a pixel; no label where no free value is left."""
        values_HW: Labels = labels_HW.copy()
        for large in np.unique(labels_HW[labels_HW >= VOID_ID]).tolist():
            free = VOID_ID - 1 - len(self._values)
            is_free = free >= max(len(self.facts["classes"]), _FIRST_FREE)
            values_HW[labels_HW == large] = self._values.setdefault(large, free if is_free else VOID_ID)
        return values_HW


def chosen_videos(videos: Sequence[str], wanted: int | Sequence[str]) -> list[str]:
    """Videos whose media are kept: those named, or so many spread evenly over the data set.

    >>> chosen_videos(["a", "b", "c", "d", "e"], 3), chosen_videos(["a", "b"], 3), chosen_videos(["a", "b"], ["b"])
    (['a', 'c', 'e'], ['a', 'b'], ['b'])

    Raises:
        ValueError: a name that is no video's.
    """
    if isinstance(wanted, int):
        count = min(wanted, len(videos))
        return [videos[index * (len(videos) - 1) // max(count - 1, 1)] for index in range(count)]
    unknown = [name for name in wanted if name not in videos]
    if unknown:
        known = ", ".join(videos[:10]) + (", ..." if len(videos) > 10 else "")
        raise ValueError(f"media.videos: there is no video {', '.join(unknown)}; there are {known}")
    return list(wanted)


def _read_ids(path: Path) -> Labels:
    with Image.open(path) as image:
        ids = np.array(image, dtype=np.int64)
    ids[ids == VOID_ID] = -1
    return ids
