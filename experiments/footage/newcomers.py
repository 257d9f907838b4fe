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
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.sparse import csr_array
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from experiments.footage.late_videos import CLIP_LENGTH, LateVideo, Split, videos
from zsvss.backbones.embedded import Embedded
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, Memory
from zsvss.stages.features import AttentionFeatures
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.novelty import Novelty

_GRID = (16, 28)
_KINDS = ("normal", "hard", "davis", "quiet", "own")
_LEAST_SHARE, _LEAST_FRAMES = 0.02, 5

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Case(NamedTuple):
    """Tokens of a video, and how many pixels of each object every one has (object 0 is what is none)."""

    kind: str
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


class Regions(KNNSceneContext):
    """Opens a label for each region that is far from the memory, alike in itself, and lasts.

    Distances are relative to how much each channel varies from frame to frame in the first clip, and to the clip's own
    upper quartile. What is far enough, also against the farthest token around it, is cut into regions by Ward's
    criterion; small and short ones are left out. A region beside a label that opened in an earlier clip takes it.

    Args:
        floor: distance of a region's tokens.
        peak: distance that a quarter of a region's tokens reach.
        relative: of the farthest token around: distance of a region's tokens.
        cut: as ``WardInitialization.stop``, of one frame; ``None`` takes connected regions.
        join: share of the tokens around a region that must bear an earlier new label; above 1 joins nothing.
        min_tokens: over all frames of the clip.
        min_frames: of the clip.
        whitened: whether channels count by how little they vary.
    """

    def __init__(
        self,
        floor: float = 0.81,
        peak: float = 0.96,
        relative: float = 0.7,
        cut: float | None = 0.1,
        join: float = 0.1,
        min_tokens: int = 20,
        min_frames: int = 6,
        whitened: bool = True,
    ) -> None:
        super().__init__(20, initialization=WardInitialization(0.03), memory_frames=4)
        self.floor, self.peak, self.relative, self.cut, self.join = floor, peak, relative, cut, join
        self.min_tokens, self.min_frames, self.whitened = min_tokens, min_frames, whitened

    def start(self, features_Tnc: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Memory]:
        """Also learn the weights of the channels, and what a cut is."""
        labels_Tn, memory = super().start(features_Tnc, *args, **kwargs)
        self.first_new = int(memory.label_set_L.max()) + 1
        moved = [
            (now - before[torch.cdist(now, before).argmin(1)]).square().mean(0)
            for before, now in itertools.pairwise(features_Tnc)
        ]
        noise_c = torch.stack(moved).mean(0)
        self.weight_c = (noise_c / noise_c.mean() + 1).rsqrt() if self.whitened else torch.ones_like(noise_c)
        self.total = features_Tnc.shape[1] * float(features_Tnc.flatten(0, 1).var(0, correction=0).sum())
        return labels_Tn, memory

    def resume(self, features_Tnc: Tensor, memory: Memory, generator: torch.Generator) -> tuple[Tensor, Memory]:
        """Labels as they are without new ones, but for the regions."""
        labels_Tn, memory = super().resume(features_Tnc, memory, generator)
        near_Tn = torch.cdist((features_Tnc * self.weight_c).flatten(0, 1), memory.points_Nc * self.weight_c).min(1)
        distance_Thw = near_Tn.values.view(-1, *_GRID).numpy()
        distance_Thw = distance_Thw / np.quantile(distance_Thw, 0.75) ** 0.5
        distance_Thw = ndimage.gaussian_filter(distance_Thw, (1, 0, 0), mode="nearest")
        found = self._regions(distance_Thw, features_Tnc.unflatten(1, _GRID).numpy())
        is_new_Thw = np.any(found, axis=0) if found else np.zeros(distance_Thw.shape, np.bool_)
        labels_Thw, free = labels_Tn.view(-1, *_GRID).numpy().copy(), int(memory.label_set_L.max()) + 1
        before_Thw = labels_Thw.copy()
        for region_Thw in found:
            around = before_Thw[ndimage.binary_dilation(region_Thw, _IN_FRAME) & ~is_new_Thw]
            opened = around[around >= self.first_new]
            if len(opened) and len(opened) >= self.join * len(around):
                labels_Thw[region_Thw] = np.bincount(opened).argmax()
            else:
                labels_Thw[region_Thw], free = free, free + 1

        return torch.from_numpy(labels_Thw).flatten(1), memory._replace(label_set_L=torch.arange(free))

    def _regions(self, distance_Thw: npt.NDArray[np.floating], features_Thwc: npt.NDArray[np.floating]) -> list[Bools]:
        highest_Thw = ndimage.maximum_filter(distance_Thw, (1, 7, 7))
        is_far_Thw = (distance_Thw > self.floor) & (distance_Thw > self.relative * highest_Thw)
        connected_Thw, _ = ndimage.label(is_far_Thw)
        regions = []
        for number, box in enumerate(ndimage.find_objects(connected_Thw), 1):
            whole = connected_Thw[box] == number
            if whole.sum() < self.min_tokens:
                continue
            for part in self._parts(whole, features_Thwc[box]):
                if part.sum() < self.min_tokens or part.any((1, 2)).sum() < min(self.min_frames, len(part)):
                    continue
                if part.sum((1, 2)).max() >= 4 and np.quantile(distance_Thw[box][part], 0.75) >= self.peak:
                    regions.append(np.zeros(distance_Thw.shape, np.bool_))
                    regions[-1][box] = part
        return regions

    def _parts(self, whole: Bools, features: npt.NDArray[np.floating]) -> list[Bools]:
        """A connected region cut by Ward's criterion."""
        if self.cut is None:
            return [whole]
        limit = (2 * self.cut * self.total) ** 0.5
        ward = AgglomerativeClustering(None, connectivity=_graph(whole), distance_threshold=limit)
        part_of = np.full(whole.shape, -1)
        part_of[whole] = ward.fit_predict(features[whole])
        return [part_of == part for part in range(ward.n_clusters_)]


_IN_FRAME = np.zeros((3, 3, 3), np.bool_)
_IN_FRAME[1] = True


def _graph(whole: Bools) -> csr_array:
    """Which tokens of a region touch, in a frame or in time."""
    index = np.full(whole.shape, -1)
    index[whole] = np.arange(whole.sum())
    pairs = []
    for axis in range(3):
        ends = (np.take(index, range(whole.shape[axis] - 1), axis), np.take(index, range(1, whole.shape[axis]), axis))
        pair = np.stack([end.ravel() for end in ends])
        pairs.append(pair[:, (pair >= 0).all(0)])
    rows, columns = np.concatenate(pairs, 1)
    shape = (int(whole.sum()),) * 2
    half = csr_array((np.ones(len(rows)), (rows, columns)), shape)
    return csr_array(half + half.T)


def distance(margin: float) -> KNNSceneContext:
    """What `Novelty` does."""
    return KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4, novelty=Novelty(margin))


RULES: dict[str, Callable[[], KNNSceneContext]] = {
    **{f"Novelty, margin {margin:g}": partial(distance, margin) for margin in (1, 1.25, 1.5, 2)},
    "regions": Regions,
    "regions, cut less (0.2)": lambda: Regions(cut=0.2),
    "regions, not cut": lambda: Regions(cut=None),
    "regions, not joined": lambda: Regions(join=2),
    "regions, at least 2 frames": lambda: Regions(min_frames=2),
    "regions, peak 0.88": lambda: Regions(peak=0.88),
    "regions, peak 1.08": lambda: Regions(peak=1.08),
    "regions, not whitened": lambda: Regions(whitened=False),
}


def labels_of(case: Case, context: KNNSceneContext) -> tuple[Ints, int]:
    """Labels [T, n] of a video clip by clip, and the first that is new."""
    first_Tnc, *later = case.features_Tnc.split(CLIP_LENGTH)
    labels_Tn, memory = context.start(first_Tnc, torch.Generator().manual_seed(0), None, _GRID)
    memory, first_new, all_labels = context.update(first_Tnc, labels_Tn, memory), int(labels_Tn.max()) + 1, [labels_Tn]
    for features_Tnc in later:
        labels_Tn, memory = context.resume(features_Tnc, memory, torch.Generator())
        memory = context.update(features_Tnc, labels_Tn, memory)
        all_labels.append(labels_Tn)
    return torch.cat(all_labels).numpy(), first_new


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
    return VideoSegmenter(backbone, reader, features=features, padding=16), reader


def read(video: LateVideo, segmenter: VideoSegmenter, reader: _Reader) -> Case:
    """Tokens of a video."""
    clips = []
    for number, frames in enumerate(torch.from_numpy(video.frames_THW3).split(CLIP_LENGTH)):
        segmenter.reset()
        segmenter(frames, generator=torch.Generator().manual_seed(number))
        clips.append(reader.features_Tnc)
    return Case(video.kind, torch.cat(clips), pixels(video.objects_THW))


def pixels(objects_THW: npt.NDArray[np.uint8]) -> Ints:
    """How many pixels of each object a token has [T, n, O]."""
    height, width = (side // cells for side, cells in zip(objects_THW.shape[1:], _GRID, strict=True))
    cells = objects_THW.reshape(len(objects_THW), _GRID[0], height, _GRID[1], width).swapaxes(2, 3)
    counts = [(cells == number).sum((3, 4)).reshape(len(cells), -1) for number in range(int(objects_THW.max()) + 1)]
    return np.stack(counts, -1)


def cases(root: Path, split: Split, cache: Path | None) -> list[Case]:
    """All videos of a split, from the cache where they are there."""
    found, tools = [], None
    for video in videos(root, split):
        path = None if cache is None else cache / f"{split}__{video.name}.npz"
        if path is not None and path.exists():
            features_Tnc = torch.from_numpy(np.load(path)["features"])
            found.append(Case(video.kind, features_Tnc, pixels(video.objects_THW)))
            continue
        tools = tools or make_reader()
        found.append(read(video, *tools))
        if path is not None:
            np.savez(path, features=found[-1].features_Tnc.numpy())
    return found


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
    all_cases = cases(arguments.root, arguments.split, arguments.cache)
    print("| rule | normal | hard | DAVIS | quiet | DAVIS, quiet | frames until then |\n|---|---|---|---|---|---|---:|")
    for name in arguments.rules:
        scores = [(case.kind, judge(case, *labels_of(case, RULES[name]()))) for case in all_cases]
        print(row(name, scores), flush=True)


if __name__ == "__main__":
    main()
