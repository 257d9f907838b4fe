"""What a page's video browser shows, as plain values that fit into the page.

Label maps become one byte a pixel, a number in the video's list of labels (255: none), frame after frame as differences
to the frame before, deflated: a few hundred bytes a frame.

Shapes: T frames, H W pixels or tokens.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from zsvss.results.folder import Run
from zsvss.results.media import STAGES, Labels, VideoMedia
from zsvss.results.palette import VOID_ID, UInt8
from zsvss.stages.nearest import nearest


def browser_videos(runs: Sequence[Run], max_side: int, max_frames: int) -> list[dict[str, Any]]:
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
    return [_video(of_runs, max_side, max_frames) for _, of_runs in sorted(kept.items())]


def _video(of_runs: dict[int, VideoMedia], max_side: int, max_frames: int) -> dict[str, Any]:
    first = next(iter(of_runs.values()))
    num_frames = min(max_frames, *(media.num_frames for media in of_runs.values()))
    scale = min(1.0, max_side / max(first.height, first.width))
    size = (max(1, round(scale * first.height)), max(1, round(scale * first.width)))
    labels = _LabelList()
    truth = [_scaled(first.ground_truth(t), size) for t in range(num_frames)]
    return {
        "name": first.video,
        "dataset": first.dataset,
        "height": size[0],
        "width": size[1],
        "frame_names": list(first.frame_names[:num_frames]),
        "num_frames_of_video": first.video_length,
        "frames": [_jpeg(first.frame(t), size) for t in range(num_frames)],
        "truth": pack(np.stack([labels.indices(first, labels_HW) for labels_HW in truth])),
        "labelled": list(first.labelled[:num_frames]),
        "runs": {
            str(number): {
                stage: pack(
                    np.stack(
                        [
                            labels.indices(media, _at(media, stage, t, size if stage == "final" else None), number)
                            for t in range(num_frames)
                        ]
                    )
                )
                for stage in STAGES
            }
            for number, media in of_runs.items()
        },
        "labels": labels.rows,
    }


class _LabelList:
    """Numbers the labels of a video: classes are the same in all runs, clusters without a class are each run's own."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._numbers: dict[tuple[int, int], int] = {}

    def indices(self, media: VideoMedia, labels_HW: Labels, run: int = -1) -> UInt8:
        """Numbers in the list in place of the ids of a run, or of ground truth."""
        ids, inverse = np.unique(labels_HW, return_inverse=True)
        table = np.array([self._number(media, int(label), run) for label in ids], dtype=np.uint8)
        return table[inverse.reshape(labels_HW.shape)]

    def _number(self, media: VideoMedia, label: int, run: int) -> int:
        if label < 0:
            return VOID_ID
        means_class = run < 0 or media.labels_are_classes or bool(media.names)
        is_class = means_class and label < len(media.classes)
        key = (-1 if is_class else run, label)
        if key not in self._numbers:
            if len(self.rows) == VOID_ID:
                return VOID_ID
            self._numbers[key] = len(self.rows)
            name = media.classes[label] if is_class else _nameless(media, label)
            colors = media.palette if run < 0 else media.colors
            color = [int(value) for value in colors[label % len(colors)]]
            self.rows.append({"name": name, "color": color, "is_class": is_class})
        return self._numbers[key]


def _nameless(media: VideoMedia, label: int) -> str:
    """What to call a label that is no class."""
    if media.labels_are_classes:
        return "void" if label == len(media.classes) else f"new region {label}"
    return f"cluster {label - len(media.classes)}, no class" if media.names else f"cluster {label}"


def pack(indices_THW: UInt8) -> dict[str, Any]:
    """Deflated differences between frames, in base64, with the size of a frame.

    >>> packed = pack(np.zeros((3, 2, 4), np.uint8))
    >>> packed["height"], packed["width"]
    (2, 4)
    """
    # Bytes wrap around, here and in the page.
    differences_THW = np.diff(indices_THW, axis=0, prepend=np.zeros_like(indices_THW[:1]))
    data = base64.b64encode(zlib.compress(differences_THW.tobytes(), level=9)).decode()
    return {"height": indices_THW.shape[1], "width": indices_THW.shape[2], "data": data}


def _at(media: VideoMedia, stage: str, number: int, size: tuple[int, int] | None) -> Labels:
    labels_HW = media.labels(stage, number)
    return labels_HW if size is None else _scaled(labels_HW, size)


def _scaled(labels_HW: Labels | None, size: tuple[int, int]) -> Labels:
    """At this size, nearest neighbour; no labels where there is no map."""
    if labels_HW is None:
        return np.full(size, -1, dtype=np.int64)
    scaled: Labels = nearest(torch.from_numpy(labels_HW), size).numpy()
    return scaled


def _jpeg(frame_HW3: UInt8, size: tuple[int, int]) -> str:
    image = Image.fromarray(frame_HW3)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True)
    return base64.b64encode(file.getvalue()).decode()
