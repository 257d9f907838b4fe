"""How the time of a frame grows: `python experiments/speed/growth.py --output growth.png`.

One quantity at a time is varied around two frames of 64x96 pixels with five labels, in exact and in fast mode with the
embedded backbone, on one thread. Times are of the processor, best of the repeats. Over the video's length, memory is
measured as well: what the process holds after a clip, at most.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from zsvss.backbones.embedded import Embedded
from zsvss.bench.modes import fast_mode
from zsvss.commands.allocator import keep_freed_memory
from zsvss.data.scenes import Scene
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

mpl.use("Agg")
from matplotlib import pyplot


@dataclass(frozen=True)
class Setting:
    """One point of a curve; with ``num_classes`` the clusters are merged into so many labels."""

    size: tuple[int, int] = (128, 192)
    clip_length: int = 2
    num_clusters: int = 5
    num_classes: int | None = None
    num_clips: int = 1


BASE = Setting()
# The video's length comes first: what a process has held once it keeps.
CURVES: dict[str, dict[float, Setting]] = {
    "frames of the video": {2 * n: replace(BASE, num_clips=n) for n in (1, 4, 16, 32)},
    "labels": {n: replace(BASE, num_clusters=n) for n in (2, 5, 10, 20)},
    "clusters, of five labels": {n: replace(BASE, num_clusters=n, num_classes=5) for n in (5, 10, 20, 40)},
    "kilopixels": {
        h * w / 1000: replace(BASE, size=(h, w)) for h, w in ((128, 128), (128, 192), (192, 320), (256, 448))
    },
    "frames of a clip": {n: replace(BASE, clip_length=n) for n in (1, 2, 4, 8)},
}


def clip_of(setting: Setting, number: int) -> Tensor:
    """Frames of a clip of the generated video."""
    height, width = setting.size
    scene = Scene(100, num_frames=64, height=height, width=width)
    start = number * setting.clip_length
    frames = [scene.render(index)[0] for index in range(start, start + setting.clip_length)]
    return torch.from_numpy(np.stack(frames))


def measure(segmenter: VideoSegmenter, setting: Setting, repeats: int) -> tuple[float, float]:
    """Processor seconds of a frame, and the largest MiB that the process held after a clip."""
    segmenter.context = KNNSceneContext(setting.num_clusters)
    classes_HW = None
    if setting.num_classes:
        columns_W = torch.arange(setting.size[1]) * setting.num_classes // setting.size[1]
        classes_HW = columns_W.expand(setting.size)
    seconds, peak = [], 0.0
    segmenter.reset()
    segmenter(clip_of(setting, 0), first_labels_HW=classes_HW)
    for _ in range(repeats):
        segmenter.reset()
        spent = 0.0
        for number in range(setting.num_clips):
            frames_THW3 = clip_of(setting, number)
            start = time.process_time()
            segmenter(frames_THW3, first_labels_HW=classes_HW)
            spent += time.process_time() - start
            peak = max(peak, resident_mib())
        seconds.append(spent / setting.num_clips / setting.clip_length)
    return min(seconds), peak


def resident_mib() -> float:
    """Memory of the process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def plot(curves: dict[str, dict[str, list[list[float]]]], output: Path) -> None:
    """One panel a quantity, one line a mode; the last panel is of the memory."""
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), constrained_layout=True)
    for axis, (quantity, modes) in zip(axes.flat, curves.items(), strict=False):
        for mode, points in modes.items():
            x, y, _ = zip(*points, strict=True)
            axis.plot(x, y, marker="o", label=mode)
        axis.set(xlabel=quantity, ylabel="seconds a frame", xlim=(0, None), ylim=(0, None))
    axes.flat[0].legend()
    for mode, points in curves["frames of the video"].items():
        x, _, memory = zip(*points, strict=True)
        axes.flat[-1].plot(x, memory, marker="o", label=mode)
    axes.flat[-1].set(xlabel="frames of the video", ylabel="MiB of the process")
    axes.flat[-1].set(xlim=(0, None), ylim=(0, 1.2 * max(memory)))
    figure.savefig(output, dpi=110)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("growth.png"), help="a JSON file of the same name too")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    settings, modulation = fast_mode()
    backbones = {"exact": Embedded(guidance=5.0), "fast": Embedded(**settings)}
    segmenters = {}
    for mode, backbone in backbones.items():
        backbone.load()
        stage = MaskedModulation() if mode == "exact" else modulation
        segmenters[mode] = VideoSegmenter(backbone, None, CorrespondenceRefinement(), stage, input_size="frames")
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for quantity, points in CURVES.items():
        curves[quantity] = {mode: [] for mode in segmenters}
        for x, setting in points.items():
            for mode, segmenter in segmenters.items():
                seconds, memory = measure(segmenter, setting, args.repeats)
                curves[quantity][mode].append([x, seconds, memory])
                print(f"{quantity} {x:g}, {mode}: {seconds:.3f} s a frame, {memory:.0f} MiB", flush=True)
    plot(curves, args.output)
    args.output.with_suffix(".json").write_text(json.dumps(curves, indent=2) + "\n")


if __name__ == "__main__":
    main()
