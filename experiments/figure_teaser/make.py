"""One image row through time, ours against the per-frame baseline: `python experiments/figure_teaser/make.py`.

One column for the video, its ground truth where there is any, the per-frame baseline and the method; above a frame with
the row marked, below that row in every frame, time running down. Without `--runs` both systems are run first, over a
generated video with the network that ships with the package, or whatever other options of `zsvss.run` say; what is
finished is not computed again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from zsvss.results.media import VideoMedia, shared_video
from zsvss.viz.overlay import overlay

HERE = Path(__file__).parent
GENERATED = ["--config", "procedural_embedded.yaml", "--data.num_videos", "1", "--data.first_video", "2"]
GENERATED += ["--data.num_frames", "28", "--data.height", "96", "--data.width", "160"]
GENERATED += ["--model.input_size", "[192,320]"]
SYSTEMS = {"per-frame baseline": ["--config", str(HERE / "per_frame.yaml")], "ours": []}
COLUMN, SLICE, GAP, TITLE = 300, 260, 10, 26

Picture = NDArray[np.uint8]


def run_systems(folder: Path, task: str, options: Sequence[str]) -> list[Path]:
    """Run baseline and method; returns their run folders."""
    folders = []
    for name, overlays in SYSTEMS.items():
        output = folder / name.replace(" ", "_")
        command = [sys.executable, "-m", "zsvss.run", task, *options[:2], *overlays, *options[2:]]
        command += ["--output", str(output), "--media.videos", "1", "--media.in_predict", "true"]
        subprocess.run(command, check=True)
        folders.append(output)
    return folders


def columns(systems: dict[str, VideoMedia]) -> dict[str, list[Picture]]:
    """Title -> the video, and what each system makes of it, frame by frame."""
    first = next(iter(systems.values()))
    num_frames = min(media.num_frames for media in systems.values())
    frames = [first.frame(t) for t in range(num_frames)]
    found: dict[str, list[Picture]] = {"video": frames}
    if all(first.labelled[:num_frames]):
        truth = [first.ground_truth(t) for t in range(num_frames)]
        pairs = zip(frames, truth, strict=True)
        found["ground truth"] = [
            overlay(frame, labels, first.colors, 0.75, boundaries=False) for frame, labels in pairs
        ]
    for title, media in systems.items():
        found[title] = [
            overlay(frames[t], media.labels("final", t), media.colors, 0.75, boundaries=False)
            for t in range(num_frames)
        ]
    return found


def busiest_row(media: VideoMedia) -> int:
    """The row, away from the border, that crosses most segments in the median frame."""
    maps = [
        media.labels("final", t) if (labels := media.ground_truth(t)) is None else labels
        for t in range(media.num_frames)
    ]
    borders_TH = (np.diff(np.stack(maps), axis=2) != 0).sum(2)
    margin = media.height // 8
    return margin + int(np.median(borders_TH, axis=0)[margin : media.height - margin].argmax())


def draw(found: dict[str, list[Picture]], row: int, frame: int) -> Image.Image:
    """Lay the columns out on white."""
    height, width, _ = found["video"][0].shape
    tall = round(COLUMN * height / width)
    size = (len(found) * (COLUMN + GAP) - GAP, TITLE + tall + GAP + SLICE)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for place, (title, images) in enumerate(found.items()):
        left = place * (COLUMN + GAP)
        pen.text((left + COLUMN // 2, TITLE // 2), title, fill="black", font=font, anchor="mm")
        sheet.paste(Image.fromarray(images[frame]).resize((COLUMN, tall), Image.Resampling.BICUBIC), (left, TITLE))
        y = TITLE + round(tall * (row + 0.5) / height)
        pen.line([(left, y), (left + COLUMN, y)], fill="white", width=3)
        pen.line([(left, y), (left + COLUMN, y)], fill="black", width=1)
        slice_TW3 = np.stack([image[row] for image in images])
        stretched = Image.fromarray(slice_TW3).resize((COLUMN, SLICE), Image.Resampling.NEAREST)
        sheet.paste(stretched, (left, TITLE + tall + GAP))
    return sheet


def main() -> None:
    """Make the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options are given to zsvss.run, beginning with --config: "
        "--config camvid_embedded.yaml --data.root data/camvid.",
        allow_abbrev=False,
    )
    parser.add_argument("--runs", type=Path, nargs="+", help="run folders to draw, in place of running anything")
    parser.add_argument("--names", nargs="+", help="titles of the runs (default: their folders' names)")
    parser.add_argument("--task", choices=("test", "predict"), default="test", help="predict: a video without labels")
    parser.add_argument("--video", help="name of the video (default: the first that all runs keep)")
    parser.add_argument("--row", type=int, help="row of the frame (default: where most happens)")
    parser.add_argument("--frame", type=int, help="number of the frame shown above (default: the middle one)")
    parser.add_argument("--folder", type=Path, default=Path("runs/figure_teaser"), help="where to run the systems")
    parser.add_argument("--output", type=Path, default=HERE / "figure.png")
    args, options = parser.parse_known_args()
    if args.runs and options:
        parser.error(f"with --runs nothing is run, so {' '.join(options)} means nothing")
    if options and options[0] != "--config":
        parser.error("options of zsvss.run begin with --config")
    runs = args.runs or run_systems(args.folder, args.task, options or GENERATED)
    titles = args.names or ([run.name for run in runs] if args.runs else list(SYSTEMS))
    systems = dict(zip(titles, shared_video(runs, args.task, args.video), strict=True))
    found = columns(systems)
    first = next(iter(systems.values()))
    row = busiest_row(first) if args.row is None else args.row
    frame = len(found["video"]) // 2 if args.frame is None else args.frame
    draw(found, row, frame).save(args.output, optimize=True)
    print(f"{args.output}: row {row} of {first.video}, {len(found['video'])} frames")


if __name__ == "__main__":
    main()
