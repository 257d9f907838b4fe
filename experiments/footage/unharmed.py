"""What `Newcomers` costs where nothing enters: `python -m experiments.footage.unharmed DAVIS --split test`.

The videos of `newcomers.py` into which nothing comes, with labels that take the classes of the first frame: a label
that opens is wrong by definition. Labels are those of the tokens, each standing for its 8x8 pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.footage.late_videos import LateVideo, videos
from experiments.footage.newcomers import GRID, RULES, Case, cases, labels_of
from zsvss.metrics.confusion import SegmentationIoU
from zsvss.metrics.consistency import ConsistencyWindows, mean_consistency
from zsvss.stages.nearest_resizing import to_grid

_WINDOWS = (8, 16)


def scores(rule: str, pairs: list[tuple[LateVideo, Case]]) -> str:
    """Mean IoU and consistency over videos, in per cent."""
    confusion, windows = SegmentationIoU(10), []
    for video, case in pairs:
        classes_THW = torch.from_numpy(video.classes_THW).long()
        labels_Tn, _ = labels_of(case, RULES[rule](), to_grid(classes_THW[0], GRID).flatten())
        labels_Thw = torch.from_numpy(labels_Tn).unflatten(1, GRID)
        labels_THW = labels_Thw.repeat_interleave(8, 1).repeat_interleave(8, 2)
        confusion.update(labels_THW, classes_THW)
        of_video = ConsistencyWindows(_WINDOWS)
        for predicted_HW, true_HW in zip(labels_THW, classes_THW, strict=True):
            of_video.update(predicted_HW, true_HW)
        windows.append(of_video.pairs)
    consistency = [100 * mean_consistency([pair for pairs in windows for pair in pairs[window]]) for window in _WINDOWS]
    return " | ".join(f"{value:.2f}" for value in (100 * confusion.compute().miou, *consistency))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder with frames/<sequence>/*.jpg and masks/<sequence>/*.png")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--rules", nargs="+", default=["none", "Newcomers, threshold 0.25"])
    parser.add_argument("--cache", type=Path, help="folder to keep the tokens in")
    arguments = parser.parse_args()
    pairs = zip(
        videos(arguments.root, arguments.split), cases(arguments.root, arguments.split, arguments.cache), strict=True
    )
    quiet = [pair for pair in pairs if pair[1].kind in ("quiet", "own")]
    for rule in arguments.rules:
        for kind in ("quiet", "own"):
            print(rule, kind, scores(rule, [pair for pair in quiet if pair[1].kind == kind]), sep=" | ")


if __name__ == "__main__":
    main()
