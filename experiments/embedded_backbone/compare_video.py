"""Is the video network worth its size? `python experiments/embedded_backbone/compare_video.py`.

Scene context model and refinement, without masked modulation, on held-out generated videos; the table goes into this
folder's README. Folders of weights are those that `train_video.py` exports; `inflated` is the network before training.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from compare import clips_of, with_error
from embedded_video import EmbeddedVideo

from zsvss.backbones.base import Backbone
from zsvss.backbones.embedded import Embedded
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.metrics import FirstFrameNaming, VideoEvaluator
from zsvss.metrics.confusion import segmentation_scores
from zsvss.metrics.consistency import mean_consistency
from zsvss.module import clip_generator
from zsvss.results.atomic_files import fill_in
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.refinement import CorrespondenceRefinement

HERE = Path(__file__).parent


def score(backbone: Backbone, number: int, num_frames: int) -> tuple[float, float]:
    """Mean IoU and VC8 of one test video."""
    data = ProceduralVideos(num_videos=1, first_video=number, num_frames=num_frames, num_workers=0)
    (video,) = data.videos()
    segmenter = VideoSegmenter(backbone, KNNSceneContext(), CorrespondenceRefinement())
    evaluator = VideoEvaluator(video.name, PROCEDURAL, FirstFrameNaming())
    for clip in clips_of(data):
        labels_THW = segmenter(
            clip.frames_THW3,
            generator=clip_generator(0, data.name, clip.video, clip.index),
            first_labels_HW=PROCEDURAL.class_ids(clip.labels_THW[0]),
            num_wanted=clip.num_final,
        ).labels_THW
        final = slice(clip.num_final)
        evaluator.update(labels_THW, clip.labels_THW[final], clip.labelled_T[final])
    result = evaluator.finish()
    return segmentation_scores(result.confusion).miou, mean_consistency(result.windows[8])


def compute(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Scores by row and video, computing what the results file lacks."""
    results: dict[str, Any] = json.loads(args.results.read_text()) if args.results.exists() else {}
    rows = {"image network": None, "inflated, not trained": args.inflated, f"trained, {args.steps} steps": args.trained}
    for name, folder in rows.items():
        if name != "image network" and folder is None:
            continue
        backbone: Backbone = Embedded() if folder is None else EmbeddedVideo(str(folder))
        of_row = results.setdefault(name, {})
        for number in range(args.videos):
            if str(number) not in of_row:
                backbone.load()
                of_row[str(number)] = score(backbone, number, args.frames)
                args.results.parent.mkdir(parents=True, exist_ok=True)
                args.results.write_text(json.dumps(results, indent=1) + "\n")
                print(name, number, of_row[str(number)], flush=True)
    return results


def table(results: dict[str, dict[str, list[float]]], args: argparse.Namespace) -> str:
    """Markdown with paired differences to the image network."""
    first = results["image network"]
    lines = ["| network | videos | mIoU | VC8 | Δ mIoU | Δ VC8 |", "|---|--:|--:|--:|--:|--:|"]
    for name, videos in results.items():
        cells = [name, str(len(videos)), *(with_error([scores[i] for scores in videos.values()]) for i in (0, 1))]
        for i in (0, 1):
            gains = [scores[i] - first[video][i] for video, scores in videos.items()]
            cells.append(with_error(gains, signed=True) if videos is not first else "")
        lines.append("| " + " | ".join(cells) + " |")
    return (
        f"Test videos of {args.frames} frames at 128x224, seen at 256x448, every other one hard; scene context and "
        "refinement, no masked modulation, naming `first_frame`; means of the videos' values ± standard errors, "
        f"per cent, Δ paired; {platform.machine()}, float32.\n\n" + "\n".join(lines)
    )


def main() -> None:
    """Score and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--inflated", type=Path, help="weights before training")
    parser.add_argument("--trained", type=Path, help="weights after training")
    parser.add_argument("--steps", type=int, default=0, help="steps that they were trained for")
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=14)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("runs/embedded_video.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = table(compute(args), args)
    fill_in(HERE / "README.md", "video", text)
    print(text)


if __name__ == "__main__":
    main()
