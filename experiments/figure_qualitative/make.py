"""Draw what each stage does to one clip: `python experiments/figure_qualitative/make.py`.

One row a stage (frames, ground truth where there is any, coarse labels, refined labels, segmentation), one column a
frame. By default the clip is a generated one and the network is the one that ships with the package. With `--runs` one
row a system instead, of a video of which these run folders keep media.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.data.folder import VideoFolder
from zsvss.data.loader import ClipLoader
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.module import clip_generator
from zsvss.results.media import shared_video
from zsvss.results.segment_colors import palette
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.trace import Trace
from zsvss.viz.overlay import overlay

HERE = Path(__file__).parent
MARGIN, GAP, TITLE_SIZE = 150, 6, 18
NUM_FRAMES = 8


def segment(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Rows of the figure: title -> one image a chosen frame."""
    if args.input is None:
        data = ProceduralVideos(num_videos=1, first_video=args.video, num_frames=NUM_FRAMES, num_workers=0)
    else:
        data = VideoFolder(input=args.input, num_workers=0, limit_frames=NUM_FRAMES)
    (clip,) = ClipLoader(data.plan(data.videos()), num_workers=0)
    backbone = Embedded() if args.weights is None else StableDiffusion(args.weights)
    backbone.load()
    segmenter = VideoSegmenter(backbone, KNNSceneContext(args.clusters), CorrespondenceRefinement(), MaskedModulation())
    first = None if args.input else PROCEDURAL.class_ids(clip.labels_THW[0])
    trace = Trace()
    generator = clip_generator(0, data.name, clip.video, 0)
    labels_THW = segmenter(clip.frames_THW3, generator=generator, first_labels_HW=first, trace=trace).labels_THW
    colors = np.asarray(PROCEDURAL.palette, np.uint8) if first is not None else palette(args.clusters)
    frames, size = clip.frames_THW3.numpy(), clip.frames_THW3.shape[1:3]
    chosen = [min(frame, len(frames) - 1) for frame in args.frames]

    def row(labels: torch.Tensor) -> list[np.ndarray]:
        return [overlay(frames[t], enlarge(labels[t], size).numpy(), colors, alpha=0.65) for t in chosen]

    rows = {"frame": [frames[t] for t in chosen]}
    if clip.labels_THW is not None:
        rows["ground truth"] = row(clip.labels_THW.long())
    rows["1  scene context"] = row(trace.coarse_Tn.unflatten(1, trace.grid))
    rows["2  + refinement"] = row(trace.refined_Tn.unflatten(1, trace.grid))
    rows["3  + modulation"] = row(labels_THW)
    return rows


def systems(args: argparse.Namespace) -> dict[str, list[np.ndarray]]:
    """Rows of the figure: the video, its ground truth, and each run's segmentation."""
    medias = shared_video(args.runs, args.task, args.video_name)
    first, last = medias[0], min(media.num_frames for media in medias) - 1
    chosen = [min(frame, last) for frame in args.frames]
    rows = {"frame": [first.frame(t) for t in chosen]}
    if all(first.labelled[t] for t in chosen):
        rows["ground truth"] = [
            overlay(first.frame(t), first.ground_truth(t), first.colors, alpha=0.65) for t in chosen
        ]
    for title, media in zip(args.names or [run.name for run in args.runs], medias, strict=True):
        labels = [media.labels("final", t) for t in chosen]
        frames = [media.frame(t) for t in chosen]
        rows[title] = [overlay(*pair, media.colors, alpha=0.65) for pair in zip(frames, labels, strict=True)]
    return rows


def enlarge(labels_hw: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Every pixel takes the label of its cell."""
    y, x = (torch.arange(side) * cells // side for side, cells in zip(size, labels_hw.shape, strict=True))
    return labels_hw[y[:, None], x]


def draw(rows: dict[str, list[np.ndarray]]) -> Image.Image:
    """Lay the rows out on white, titles on the left."""
    height, width, _ = next(iter(rows.values()))[0].shape
    columns = len(next(iter(rows.values())))
    sheet = Image.new("RGB", (MARGIN + columns * (width + GAP), len(rows) * (height + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE_SIZE)
    for i, (title, images) in enumerate(rows.items()):
        top = i * (height + GAP)
        pen.text((4, top + height // 2), title, fill="black", font=font, anchor="lm")
        for j, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (MARGIN + j * (width + GAP), top))
    return sheet


def main() -> None:
    """Segment a clip and save its figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--input", help="video file or folder of images in place of a generated video")
    parser.add_argument("--video", type=int, default=0, help="number of the generated test video")
    parser.add_argument("--weights", help="Stable Diffusion weights in place of the embedded ones")
    parser.add_argument("--clusters", type=int, default=20)
    parser.add_argument("--frames", type=int, nargs="+", default=[0, 2, 5, 7])
    parser.add_argument("--runs", type=Path, nargs="+", help="run folders to compare, in place of running anything")
    parser.add_argument("--names", nargs="+", help="titles of the runs")
    parser.add_argument("--task", choices=("test", "predict"), default="test", help="which media of the runs")
    parser.add_argument("--video-name", help="of the runs' video (default: the first that all of them keep)")
    parser.add_argument("--output", type=Path, default=HERE / "figure.png")
    args = parser.parse_args()
    draw(systems(args) if args.runs else segment(args)).save(args.output, optimize=True)


if __name__ == "__main__":
    main()
