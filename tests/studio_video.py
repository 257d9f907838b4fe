"""A small annotated video: four coloured bands that slide down, of which the predictions take two for one segment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from predicted import predict
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.features import ColorPositionFeatures
from zsvss.studio.model import Model
from zsvss.studio.open_video import Desk

NUM_FRAMES, HEIGHT, WIDTH = 6, 64, 96
FRAMES_THW3, BANDS_THW = (tensor.numpy() for tensor in striped_video(NUM_FRAMES, HEIGHT, WIDTH))
LABELS_THW = np.minimum(BANDS_THW, 2)
"""What is predicted: bands 2 and 3 are one segment. Ids in the files are one higher."""


def write_video(folder: Path, name: str = "bands") -> Path:
    """Write frames and predictions; returns the folder of the video's predictions."""
    frames = folder / "frames" / name
    frames.mkdir(parents=True)
    files = [f"{t:05d}.png" for t in range(NUM_FRAMES)]
    for file, frame_HW3 in zip(files, FRAMES_THW3, strict=True):
        Image.fromarray(frame_HW3).save(frames / file)
    predictions = folder / "run" / "predictions"
    predict(predictions, name, files=tuple(files), path=str(frames), labels_THW=LABELS_THW)
    return predictions / name


def toy_model() -> Model:
    """A model that sees mean colours."""
    return Model(lambda: VideoSegmenter(ToyBackbone(), features=ColorPositionFeatures(0.2)))


def open_desk(folder: Path) -> Desk:
    """The video, to be annotated."""
    return Desk(folder.name, folder, folder.parents[1])
