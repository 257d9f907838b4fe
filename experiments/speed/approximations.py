"""What each approximation gains and costs: `python experiments/speed/approximations.py [--camvid data/camvid]`.

Every variant labels the same clips with the embedded backbone; the first one is exact. Printed as Markdown: frames per
second of processor time, share of pixels labelled as by the exact method, and the change in mIoU and VC8.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zsvss.backbones.embedded import Embedded
from zsvss.commands.allocator import keep_freed_memory
from zsvss.data.camvid import CamVid
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.loader import ClipLoader
from zsvss.data.procedural import ProceduralVideos
from zsvss.metrics import FirstFrameNaming, VideoEvaluator, fold_results
from zsvss.module import clip_generator
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation, Modulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.upsampling import GuidedUpsampling, SoftUpsampling


@dataclass(frozen=True)
class Variant:
    """One row of the table: what differs from the exact method, which is guided as the paper is."""

    name: str
    modulation: Callable[[], Modulation | None] = MaskedModulation
    backbone: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32


ONE_PASS = {"first_step": 24, "guidance": 1}
VARIANTS = [
    Variant("exact"),
    Variant("modulated passes without guidance", lambda: MaskedModulation(guided=False)),
    Variant("no guidance anywhere", backbone={"guidance": 1}),
    Variant("two steps in place of three", lambda: MaskedModulation(num_steps=2)),
    Variant("no step after the modulated one", lambda: MaskedModulation(num_steps=1)),
    Variant("both, without guidance", lambda: MaskedModulation(num_steps=1, guided=False)),
    Variant("`SoftUpsampling`", SoftUpsampling),
    Variant("`SoftUpsampling`, no guidance", SoftUpsampling, backbone={"guidance": 1}),
    Variant("`SoftUpsampling`, one step without guidance", SoftUpsampling, backbone=ONE_PASS),
    Variant("`GuidedUpsampling`", GuidedUpsampling),
    Variant("`GuidedUpsampling`, no guidance", GuidedUpsampling, backbone={"guidance": 1}),
    Variant("`GuidedUpsampling`, one step without guidance", GuidedUpsampling, backbone=ONE_PASS),
    *(
        Variant(
            f"`GuidedUpsampling`, eps 0.003, the last of {num_steps} steps without guidance",
            lambda: GuidedUpsampling(eps=3e-3),
            backbone={"num_steps": num_steps, "first_step": num_steps - 1, "guidance": 1},
        )
        for num_steps in (25, 16, 12, 8)  # `fast.yaml` has 12
    ),
    Variant(
        "`GuidedUpsampling`, eps 0.003, all steps without guidance",
        lambda: GuidedUpsampling(eps=3e-3),
        backbone={"guidance": 1},
    ),
    Variant("networks in bfloat16", dtype=torch.bfloat16),
]


def build(variant: Variant, input_size: tuple[int, int]) -> VideoSegmenter:
    """The variant as a segmenter."""
    backbone = Embedded(**{"guidance": 5.0, **variant.backbone})
    backbone.load()
    return VideoSegmenter(
        backbone.to(variant.dtype),
        KNNSceneContext(),
        CorrespondenceRefinement(),
        variant.modulation(),
        input_size=input_size,
    )


def measure(data: VideoDataModule, input_size: tuple[int, int], variants: list[Variant]) -> list[dict[str, Any]]:
    """One row for each variant."""
    segmenters = [build(variant, input_size) for variant in variants]
    seconds, agreeing = [0.0] * len(variants), [0] * len(variants)
    results: list[list[Any]] = [[] for _ in variants]
    num_pixels = num_frames = 0
    for video in data.videos():
        evaluators = [VideoEvaluator(video.name, data.taxonomy, FirstFrameNaming()) for _ in variants]
        for segmenter in segmenters:
            segmenter.reset()
        for clip in ClipLoader(data.plan([video]), num_workers=0):
            classes_HW = data.taxonomy.class_ids(clip.labels_THW[0]) if clip.is_first else None
            final = slice(clip.num_final)
            exact_THW = None
            for i, segmenter in enumerate(segmenters):
                start = time.process_time()
                labels_THW = segmenter(
                    clip.frames_THW3,
                    generator=clip_generator(0, data.name, clip.video, clip.index),
                    first_labels_HW=classes_HW,
                    num_wanted=clip.num_final,
                ).labels_THW
                seconds[i] += time.process_time() - start
                exact_THW = labels_THW if exact_THW is None else exact_THW
                agreeing[i] += int((labels_THW == exact_THW).sum())
                evaluators[i].update(labels_THW, clip.labels_THW[final], clip.labelled_T[final])
            num_frames += clip.num_final
            num_pixels += exact_THW.numel()
            print(f"{clip.video} clip {clip.index}: {[round(value) for value in seconds]} s", flush=True)
        for kept, evaluator in zip(results, evaluators, strict=True):
            kept.append(evaluator.finish())
    scores = [fold_results(kept) for kept in results]
    return [
        {
            "name": variant.name,
            "frames_per_cpu_second": num_frames / seconds[i],
            "agreement": agreeing[i] / num_pixels,
            "mIoU": scores[i]["test/mIoU"],
            "VC8": scores[i]["test/VC8"],
        }
        for i, variant in enumerate(variants)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; scores in percent, those of the approximations as differences to the exact ones."""
    lines = ["| variant | frames/s | times exact | agreement | mIoU | VC8 |", "|---|--:|--:|--:|--:|--:|"]
    exact = rows[0]
    for row in rows:
        cells = [f"{row['frames_per_cpu_second']:.2f}"]
        cells += [f"{row['frames_per_cpu_second'] / exact['frames_per_cpu_second']:.1f}", f"{row['agreement']:.1%}"]
        for name in ("mIoU", "VC8"):
            cells.append(f"{100 * row[name]:.2f}" if row is exact else f"{100 * (row[name] - exact[name]):+.2f}")
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="root of CamVid (SegNet release); else generated videos")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="of the generated videos' seeds")
    parser.add_argument("--videos", type=int, default=2, help="generated videos")
    parser.add_argument("--frames", type=int, default=14, help="of each video")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--only", help="variants beside the exact one whose names contain this")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    height, width = args.size
    variants = [variant for variant in VARIANTS if variant is VARIANTS[0] or (args.only or "") in variant.name]
    data: VideoDataModule
    if args.camvid:
        data = CamVid(root=args.camvid, split="val", labels="11", limit_frames=args.frames, num_workers=0)
    else:
        data = ProceduralVideos(
            args.split, args.videos, num_frames=args.frames, height=height, width=width, num_workers=0
        )
    rows = measure(data, (height, width), variants)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
