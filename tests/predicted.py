"""Predictions made by hand: what a run leaves, without running a network."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from zsvss.callbacks.video_predictions import Meaning, Origin, VideoPredictions
from zsvss.data.video_facts import VideoFacts
from zsvss.results.predictions import Predictions

HEIGHT, WIDTH, NUM_FRAMES = 37, 46, 6
STAMPS = (0, 40, 90, 120, 200, 210)
FACTS = VideoFacts(NUM_FRAMES, (HEIGHT, WIDTH), STAMPS, Fraction(1, 1000), 40, sample_aspect_ratio=Fraction(4, 3))


def labels() -> np.ndarray:
    """Labels with what is hard to hold: holes, parts, lines of one pixel, corners that touch, gaps in time."""
    labels_THW = np.full((NUM_FRAMES, HEIGHT, WIDTH), -1, dtype=np.int64)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for t in range(NUM_FRAMES):
        labels_HW = labels_THW[t]
        labels_HW[:12] = 0
        labels_HW[(rows - 20) ** 2 + (columns - 12 - t) ** 2 < 90] = 1  # a disc with a hole of nothing and one of 4
        labels_HW[(rows - 20) ** 2 + (columns - 12 - t) ** 2 < 30] = -1
        labels_HW[19:22, 11 + t : 14 + t] = 4
        labels_HW[33, 3:40] = 2  # a line
        labels_HW[30:33, 3 + t] = 2
        if t not in (2, 3):  # gone, and back
            labels_HW[25:35:2, 38:44:2] = 7  # pixels on their own
            labels_HW[26:35:2, 39:44:2] = 7  # that touch at the corners
        if t == 4:
            labels_HW[-1, -1] = 9  # one pixel in one frame
    labels_THW[1] = labels_THW[0]
    labels_THW[2, :12] = 0
    return labels_THW


def filled(rings: list[np.ndarray], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Pixels whose centres lie within an odd number of rings; a hair beside them, where no cut runs."""
    y = (np.arange(height) + 0.5071)[:, None, None]
    x = (np.arange(width) + 0.4937)[None, :, None]
    inside = np.zeros((height, width), dtype=np.int64)
    for ring in rings:
        (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        inside += crossed.sum(-1)
    return inside % 2 == 1


def predict(
    folder: Path,
    name: str = "swan",
    *,
    facts: VideoFacts | None = FACTS,
    files: tuple[str, ...] | None = None,
    path: str = "swan.mp4",
    labels_THW: np.ndarray | None = None,
    meaning: Meaning | None = None,
    names: dict[int, int] | None = None,
) -> Predictions:
    """Write predictions and read them back."""
    labels_THW = labels() if labels_THW is None else labels_THW
    origin = Origin(len(labels_THW), path, files, facts if files is None else None)
    writer = VideoPredictions(folder / name, name, origin=origin, meaning=meaning, video=False, settings={"a": 1})
    frame_names = [f"{t:05d}" for t in range(len(labels_THW))] if files is None else [Path(f).stem for f in files]
    writer.write(np.zeros((*labels_THW.shape, 3), np.uint8), labels_THW, frame_names)
    writer.close(names)
    return Predictions.read(folder / name)
