"""Which objects that enter late get a label of their own: `python -m experiments.footage.newcomers DAVIS --split test`.

Features and scene context are those of `predict_embedded.yaml`; labels are those of the tokens, 16x28 a frame, in clips
of 14 frames. What counts:

- A late object shows no pixel in the first clip, and later 2 % of the frame or more in at least five frames.
- It is found if a new label exists of which, from the first frame on that has the label, at least half of the pixels
  lie in the object, and which covers at least half of the object's pixels.
- Any other new label is false, also a second one for an object, and one for a part of it. (A label that finds a late
  object of less than 2 % is not.)

Shape legend: T frames, n tokens of a frame, h w token grid, c channels, O objects, N points of the memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from experiments.footage.late_videos import CLIP_LENGTH, LateVideo, Split, videos
from zsvss.backbones.base import ClipNoise, Recording
from zsvss.backbones.embedded import Embedded
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, Memory
from zsvss.stages.features import AttentionFeatures, FeaturePass
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.newcomers import Newcomers
from zsvss.stages.novelty import Novelty

GRID = (16, 28)
_KINDS = ("normal", "hard", "davis", "quiet", "own")
_LEAST_SHARE, _LEAST_FRAMES = 0.02, 5

Ints = npt.NDArray[np.int64]


class Case(NamedTuple):
    """A video's frames and tokens, and how many pixels of each object every token has (object 0 is what is none)."""

    kind: str
    images_T3HW: Tensor
    features_Tnc: Tensor
    pixels_TnO: Ints

    @property
    def late(self) -> dict[int, bool]:
        """Objects that enter late, and whether they are large enough to count."""
        share_TO = self.pixels_TnO.sum(1) / self.pixels_TnO[0].sum()
        later_TO = share_TO[CLIP_LENGTH:]
        enters_O = ~share_TO[:CLIP_LENGTH].any(0) & later_TO.any(0)
        is_large_O = (later_TO >= _LEAST_SHARE).sum(0) >= _LEAST_FRAMES
        return {int(number): bool(is_large_O[number]) for number in np.flatnonzero(enters_O)}


class Score(NamedTuple):
    """Of one video.

    Attributes:
        late: late objects.
        found: those of them that are found.
        false: false labels.
        on_objects: those of them that lie on late objects by half.
        share: share of the tokens, 0..1, that have new labels.
        delays: frames from the entry of each found object to its label.
    """

    late: int
    found: int
    false: int
    on_objects: int
    share: float
    delays: tuple[int, ...]


def distance(margin: float) -> KNNSceneContext:
    """What `Novelty` does."""
    return KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4, novelty=Novelty(margin))


def newcomers(threshold: float) -> KNNSceneContext:
    """What `Newcomers` does."""
    return KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4, novelty=Newcomers(threshold))


RULES: dict[str, Callable[[], KNNSceneContext]] = {
    "none": lambda: KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4),
    **{f"Novelty, margin {margin:g}": partial(distance, margin) for margin in (1, 1.25, 1.5, 2)},
    **{f"Newcomers, threshold {threshold:g}": partial(newcomers, threshold) for threshold in (0.2, 0.25, 0.3, 0.4)},
}


def labels_of(case: Case, context: KNNSceneContext, names_n: Tensor | None = None) -> tuple[Ints, int]:
    """Labels [T, n] of a video clip by clip, and the first that is new; those of the first frame may be given."""
    first_Tnc, *later = case.features_Tnc.split(CLIP_LENGTH)
    first, *others = (seen_of(images_T3HW) for images_T3HW in case.images_T3HW.split(CLIP_LENGTH))
    labels_Tn, memory = context.start(first_Tnc, torch.Generator().manual_seed(0), names_n, GRID, first)
    memory, first_new, all_labels = context.update(first_Tnc, labels_Tn, memory), int(labels_Tn.max()) + 1, [labels_Tn]
    for features_Tnc, seen in zip(later, others, strict=True):
        labels_Tn, memory = context.resume(features_Tnc, memory, torch.Generator(), seen)
        memory = context.update(features_Tnc, labels_Tn, memory)
        all_labels.append(labels_Tn)
    return torch.cat(all_labels).numpy(), first_new


def seen_of(images_T3HW: Tensor) -> FeaturePass:
    """A feature pass of which only the frames matter."""
    return FeaturePass(Embedded(), Recording.of_nothing(ClipNoise(images_T3HW, images_T3HW)), images_T3HW)


def judge(case: Case, labels_Tn: Ints, first_new: int) -> Score:
    """Count by the rules above."""
    pixels_TnO, late = case.pixels_TnO, case.late
    found: dict[int, int] = {}
    false = on_objects = 0
    for label in np.unique(labels_Tn[labels_Tn >= first_new]):
        is_label_Tn = labels_Tn == label
        begin = int(is_label_Tn.any(1).argmax())
        inside_O = pixels_TnO[is_label_Tn].sum(0)
        best = max(late, key=lambda number: int(inside_O[number]), default=0)
        covers = best in late and 2 * inside_O[best] >= pixels_TnO[begin:, :, best].sum()
        if covers and 2 * inside_O[best] >= inside_O.sum():
            found[best] = begin - int(pixels_TnO[:, :, best].any(1).argmax())
        else:
            false += 1
            on_objects += int(2 * inside_O[list(late)].sum() >= inside_O.sum())
    delays = tuple(delay for number, delay in found.items() if late[number])
    return Score(sum(late.values()), len(delays), false, on_objects, float((labels_Tn >= first_new).mean()), delays)


class _Reader(KNNSceneContext):
    """Keeps the features of a clip and clusters nothing."""

    def start(self, features_Tnc: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Memory]:
        self.features_Tnc = features_Tnc.clone()
        labels_Tn = torch.zeros(features_Tnc.shape[:2], dtype=torch.int64)
        return labels_Tn, Memory(features_Tnc[0], labels_Tn[0], labels_Tn[0, :1])


def make_reader() -> tuple[VideoSegmenter, _Reader]:
    """A segmenter with the features of `predict_embedded.yaml`."""
    backbone, reader = Embedded(num_steps=100, first_step=99), _Reader()
    backbone.load()
    features = JointFeatures([AttentionFeatures(), LabFeatures(), PositionFeatures()], [1, 1, 0.25])
    return VideoSegmenter(backbone, reader, features=features, padding=32), reader


def read(video: LateVideo, segmenter: VideoSegmenter, reader: _Reader) -> Case:
    """Tokens of a video."""
    clips = []
    for number, frames in enumerate(torch.from_numpy(video.frames_THW3).split(CLIP_LENGTH)):
        segmenter.reset()
        segmenter(frames, generator=torch.Generator().manual_seed(number))
        clips.append(reader.features_Tnc)
    return case_of(video, torch.cat(clips))


def case_of(video: LateVideo, features_Tnc: Tensor) -> Case:
    """A video with its tokens."""
    images_T3HW = torch.from_numpy(video.frames_THW3).movedim(-1, 1).float() / 127.5 - 1
    return Case(video.kind, images_T3HW, features_Tnc, pixels(video.objects_THW))


def pixels(objects_THW: npt.NDArray[np.uint8]) -> Ints:
    """How many pixels of each object a token has [T, n, O]."""
    height, width = (side // cells for side, cells in zip(objects_THW.shape[1:], GRID, strict=True))
    cells = objects_THW.reshape(len(objects_THW), GRID[0], height, GRID[1], width).swapaxes(2, 3)
    counts = [(cells == number).sum((3, 4)).reshape(len(cells), -1) for number in range(int(objects_THW.max()) + 1)]
    return np.stack(counts, -1)


def cases(root: Path, split: Split, cache: Path | None) -> Iterator[Case]:
    """All videos of a split, from the cache where they are there."""
    tools = None
    for video in videos(root, split):
        path = None if cache is None else cache / f"{split}__{video.name}.npz"
        if path is not None and path.exists():
            yield case_of(video, torch.from_numpy(np.load(path)["features"]))
            continue
        tools = tools or make_reader()
        case = read(video, *tools)
        if path is not None:
            np.savez(path, features=case.features_Tnc.numpy())
        yield case


def row(name: str, scores: list[tuple[str, Score]]) -> str:
    """A line of the table."""
    parts = []
    for kind in _KINDS:
        of_kind = [score for its_kind, score in scores if its_kind == kind]
        late, found, false, on_objects = (sum(values) for values in list(zip(*of_kind, strict=True))[:4])
        share = 100 * float(np.mean([score.share for score in of_kind]))
        told = f"{found} of {late}, {false / len(of_kind):.2f} ({on_objects / len(of_kind):.2f})" if late else ""
        parts.append(told or f"{false / len(of_kind):.2f}, {share:.1f} %")
    delays = [delay for _, score in scores for delay in score.delays]
    return f"| {name} | {' | '.join(parts)} | {np.median(delays) if delays else float('nan'):g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with frames/<sequence>/*.jpg and masks/<sequence>/*.png")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--cache", type=Path, help="folder that keeps the tokens")
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES), metavar="RULE")
    arguments = parser.parse_args()
    all_cases = list(cases(arguments.root, arguments.split, arguments.cache))
    print("| rule | normal | hard | DAVIS | quiet | DAVIS, quiet | frames until then |\n|---|---|---|---|---|---|---:|")
    for name in arguments.rules:
        scores = [(case.kind, judge(case, *labels_of(case, RULES[name]()))) for case in all_cases]
        print(row(name, scores), flush=True)


if __name__ == "__main__":
    main()
