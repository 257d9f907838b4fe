"""What a page's video browser shows of test runs, as plain values.

Shapes: T frames, H W pixels or tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zsvss.results.id_images import VOID_ID
from zsvss.results.media import STAGES, Labels, VideoMedia
from zsvss.results.run_folder import Run
from zsvss.results.segment_colors import UInt8, palette
from zsvss.viz.label_maps import pack, pack_frames, page_size, scaled
from zsvss.viz.page_parts import PageVideo


def browser_videos(runs: Sequence[Run], max_side: int, max_frames: int) -> Iterator[PageVideo]:
    """The videos of which any run keeps media.

    Args:
        runs: of the page; each is known by its number.
        max_side: longest side of the images in the page.
        max_frames: of a video at most the first so many.
    """
    kept: dict[tuple[str, str], dict[int, VideoMedia]] = {}
    for number, run in enumerate(runs):
        for media in run.media:
            kept.setdefault((media.dataset, media.video), {})[number] = media
    for _, of_runs in sorted(kept.items()):
        yield _video(of_runs, max_side, max_frames)


def _video(of_runs: dict[int, VideoMedia], max_side: int, max_frames: int) -> PageVideo:
    first = next(iter(of_runs.values()))
    num_frames = min(max_frames, *(media.num_frames for media in of_runs.values()))
    size = page_size(first.height, first.width, max_side)
    labels = _LabelList()
    truth = [scaled(first.ground_truth(t), size) for t in range(num_frames)]
    pieces = {"truth": pack(np.stack([labels.classes(first, labels_HW) for labels_HW in truth]))}
    for number, media in of_runs.items():
        for stage in STAGES:
            maps = [_at(media.labels(stage, t), stage, size) for t in range(num_frames)]
            pieces[f"{number} {stage}"] = pack(np.stack([labels.labels(media, number, map_) for map_ in maps]))
    for number, media in of_runs.items():  # after all classes, as there are numbers for so many labels alone
        known = [media.clusters(t) for t in range(num_frames)]
        stage = "final" if media.names else "coarse"
        clusters = [labels.clusters(media, number, _at(map_, stage, size)) for map_ in known if map_ is not None]
        if clusters:
            pieces[f"{number} clusters"] = pack(np.stack(clusters))
    return {
        "name": first.video,
        "dataset": first.dataset,
        "height": size[0],
        "width": size[1],
        "frame_names": list(first.frame_names[:num_frames]),
        "num_frames_of_video": first.video_length,
        "labelled": list(first.labelled[:num_frames]),
        "runs": list(of_runs),
        "labels": labels.rows,
        "pieces": {**pieces, **pack_frames(map(first.frame, range(num_frames)), size)},
    }


def _at(labels_HW: Labels, stage: str, size: tuple[int, int]) -> Labels:
    """At the page's size, unless it is a map of tokens."""
    return scaled(labels_HW, size) if stage == "final" else labels_HW


class _LabelList:
    """Numbers the labels of a video: classes are the same in all runs, clusters without a class are each run's own."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._numbers: dict[tuple[str, int, int], int] = {}

    def classes(self, media: VideoMedia, truth_HW: Labels) -> UInt8:
        """Numbers in the list in place of the class ids of ground truth."""
        return self._replaced(truth_HW, lambda label: self._class(media, label))

    def labels(self, media: VideoMedia, run: int, labels_HW: Labels) -> UInt8:
        """Numbers in the list in place of a run's labels."""
        return self._replaced(labels_HW, lambda label: self._label(media, run, label))

    def clusters(self, media: VideoMedia, run: int, clusters_HW: Labels) -> UInt8:
        """Numbers in the list in place of a run's clusters; each has the number of the label that it became."""

        def number(cluster: int) -> int:
            label = media.cluster_names.get(cluster, len(media.classes) + cluster)
            became = VOID_ID if label < 0 else self._label(media, run, label)
            row = {"name": f"cluster {cluster}", "color": _rgb(palette(VOID_ID), cluster), "is_class": False}
            row |= {"run": run, "class": None if became == VOID_ID else became}
            return self._add(("cluster", run, cluster), row)

        return self._replaced(clusters_HW, number)

    def _label(self, media: VideoMedia, run: int, label: int) -> int:
        if (media.labels_are_classes or media.names) and label < len(media.classes):
            return self._class(media, label)
        row = {"name": _nameless(media, label), "color": _rgb(media.colors, label), "is_class": False, "run": run}
        return self._add(("label", run, label), row)

    def _class(self, media: VideoMedia, class_id: int) -> int:
        row = {"name": media.classes[class_id], "color": _rgb(media.class_colors, class_id), "is_class": True}
        return self._add(("class", -1, class_id), row)

    def _add(self, key: tuple[str, int, int], row: dict[str, Any]) -> int:
        if key not in self._numbers:
            if len(self.rows) == VOID_ID:
                return VOID_ID
            self._numbers[key] = len(self.rows)
            self.rows.append(row)
        return self._numbers[key]

    @staticmethod
    def _replaced(labels_HW: Labels, number: Callable[[int], int]) -> UInt8:
        ids, inverse = np.unique(labels_HW, return_inverse=True)
        table = np.array([VOID_ID if label < 0 else number(label) for label in ids.tolist()], dtype=np.uint8)
        return table[inverse.reshape(labels_HW.shape)]


def _rgb(colors: UInt8, label: int) -> list[int]:
    rgb: list[int] = colors[label % len(colors)].tolist()
    return rgb


def _nameless(media: VideoMedia, label: int) -> str:
    """What to call a label that is no class."""
    if media.labels_are_classes:
        return "void" if label == len(media.classes) else f"new region {label}"
    return f"cluster {label - len(media.classes)}, no class" if media.names else f"cluster {label}"
