"""Objects that enter late: DAVIS objects pasted into other DAVIS sequences, and what novelty makes of them.

Each object comes in from a side at frame 16 of 28 and moves through; it is found if it is most of what some new label
shows, and a new label that shows mostly something else is false. Features and scene context are those of
`predict_embedded.yaml`, in two clips of 14 frames at 128x224.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from zsvss.backbones.embedded import Embedded
from zsvss.data.images import list_images, read_mask, read_rgb
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, PerFrameClustering
from zsvss.stages.features import AttentionFeatures
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.novelty import Novelty
from zsvss.stages.trace import Trace

_HEIGHT, _WIDTH, _CLIP, _ENTERS = 128, 224, 14, 16
_LEAST_TOKENS = 20  # of an object, over the second clip


class Case(NamedTuple):
    """Tokens of both clips, their grid, and where the late object is on it."""

    first_Tnc: Tensor
    second_Tnc: Tensor
    grid: tuple[int, int]
    is_late_Thw: npt.NDArray[np.bool_]


class Sequence(NamedTuple):
    """Frames and object masks."""

    frames: list[npt.NDArray[np.uint8]]
    masks: list[npt.NDArray[np.uint8]]


def read(root: Path, name: str) -> Sequence:
    images, masks = (list_images(root / kind / name)[: 2 * _CLIP] for kind in ("frames", "masks"))
    size = (_WIDTH, _HEIGHT)
    return Sequence(
        [cv2.resize(read_rgb(path), size, interpolation=cv2.INTER_AREA) for path in images],
        [cv2.resize(read_mask(path), size, interpolation=cv2.INTER_NEAREST) for path in masks],
    )


def paste(ground: Sequence, source: Sequence, generator: np.random.Generator) -> Sequence:
    """Frames with the object, and its masks."""
    value = int(np.bincount(source.masks[0][source.masks[0] > 0]).argmax())
    side, scale = int(generator.choice([-1, 1])), generator.uniform(0.8, 1.2)
    down, speed = int(generator.integers(-20, 21)), generator.uniform(6, 12)
    centre = np.nonzero(source.masks[0] == value)[1].mean()
    frames, masks = [], []
    for number, frame in enumerate(ground.frames):
        inside = np.zeros(frame.shape[:2], bool)
        if (since := number - _ENTERS) >= 0:
            x = speed * (since + 1) - 30 if side > 0 else _WIDTH + 30 - speed * (since + 1)
            move = np.array([[scale, 0, x - scale * centre], [0, scale, down + _HEIGHT / 2 * (1 - scale)]], np.float32)
            mask = (source.masks[since] == value).astype(np.uint8)
            inside = cv2.warpAffine(mask, move, (_WIDTH, _HEIGHT), flags=cv2.INTER_NEAREST) > 0
            moved = cv2.warpAffine(source.frames[since], move, (_WIDTH, _HEIGHT))
            frame = np.where(inside[..., None], moved, frame)
        frames.append(frame)
        masks.append(inside.astype(np.uint8))
    return Sequence(frames, masks)


def tokens(segmenter: VideoSegmenter, video: Sequence) -> Case:
    clips = []
    for start in (0, _CLIP):
        trace = Trace()
        segmenter.reset()
        segmenter(torch.from_numpy(np.stack(video.frames[start : start + _CLIP])), trace=trace)
        assert trace.features_Tnc is not None
        assert trace.grid is not None
        clips.append(trace.features_Tnc)
    shares = (trace.grid[0] / _HEIGHT, trace.grid[1] / _WIDTH)
    is_late = [ndimage.zoom(mask.astype(float), shares, order=1) > 0.5 for mask in video.masks[_CLIP:]]
    return Case(*clips, trace.grid, np.stack(is_late))


def judge(case: Case, margin: float) -> tuple[int, int]:
    """Whether the object is found, and how many new labels are false."""
    context = KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4)
    labels_Tn, memory = context.start(case.first_Tnc, torch.Generator().manual_seed(0), None, case.grid)
    memory = context.update(case.first_Tnc, labels_Tn, memory)
    novelty = Novelty(margin)
    state = novelty.calibrate(case.first_Tnc, case.grid, False)
    new_Tn = novelty.find(case.second_Tnc, memory.points_Nc, memory.label_set_L, state)
    new_Thw = new_Tn.numpy().reshape(case.is_late_Thw.shape)
    right = [case.is_late_Thw[new_Thw == label].mean() > 0.5 for label in np.unique(new_Thw[new_Thw >= 0])]
    return int(any(right)), len(right) - sum(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder with frames/<sequence>/*.jpg and masks/<sequence>/*.png")
    parser.add_argument("--pairs", type=int, default=14)
    arguments = parser.parse_args()
    videos = {path.name: read(arguments.root, path.name) for path in sorted((arguments.root / "frames").iterdir())}
    backbone = Embedded(num_steps=100, first_step=99, guidance=1)
    backbone.load()
    features = JointFeatures([AttentionFeatures(), LabFeatures(), PositionFeatures()], [1, 1, 0.25])
    segmenter = VideoSegmenter(backbone, PerFrameClustering(2, 1), features=features, padding=16)
    generator = np.random.default_rng(0)
    pairs = list(itertools.permutations(videos, 2))
    generator.shuffle(pairs)
    cases = []
    for ground, source in pairs[: arguments.pairs]:
        case = tokens(segmenter, paste(videos[ground], videos[source], generator))
        if case.is_late_Thw.sum() >= _LEAST_TOKENS:
            cases.append(case)
    for margin in (0.8, 1.0, 1.25, 1.5, 2.0):
        found, false = np.array([judge(case, margin) for case in cases]).sum(0)
        print(
            f"margin {margin:g}: {found} of {len(cases)} found, {false / len(cases):.2f} false labels a video",
            flush=True,
        )


if __name__ == "__main__":
    main()
