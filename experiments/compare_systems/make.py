"""The paper's four systems side by side: `python experiments/compare_systems/make.py --camvid data/camvid`.

Ours and the EmerDiff-style baseline, on an image and on a video model, on generated videos and on CamVid, each through
the command line into a run folder of its own; a run that is finished is not run again. The table in this folder's
README is made from the run folders alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from zsvss.results.atomic_files import fill_in
from zsvss.results.summary import percent

HERE = Path(__file__).parent
NUM_FRAMES, CLIP_LENGTH = 18, 9
DATASETS = {"procedural": "procedural_embedded.yaml", "camvid": "camvid_embedded.yaml"}
BASELINES = {"sd": "baselines/emerdiff_sd.yaml", "svd": "baselines/emerdiff_svd.yaml"}


@dataclass(frozen=True)
class Run:
    """One row: a model (sd, svd), a method (ours, emerdiff), a data set."""

    model: str
    method: str
    dataset: str

    @property
    def name(self) -> str:
        """Of the run folder."""
        return f"{self.model}_{self.method}_{self.dataset}"

    @property
    def configs(self) -> list[str]:
        """The data set's config and, for the baseline, its overlay."""
        return [DATASETS[self.dataset], *([BASELINES[self.model]] if self.method == "emerdiff" else [])]

    def arguments(self, args: argparse.Namespace) -> list[str]:
        """Of the command line."""
        arguments = ["test", *(part for config in self.configs for part in ("--config", config))]
        arguments += ["--data.limit_frames", str(NUM_FRAMES), "--data.clip_length", str(CLIP_LENGTH)]
        if self.dataset == "procedural":
            # Scenes of as many frames as are used, so that figures that enter late do so within them.
            arguments += ["--data.num_videos", str(args.videos), "--data.num_frames", str(NUM_FRAMES)]
        else:
            arguments += ["--data.root", str(args.camvid)]
        if self.model == "sd":
            arguments += ["--model.backbone", "Embedded"]
        else:
            arguments += ["--model.backbone", "StableVideoDiffusion", "--model.backbone.variant", "null"]
            arguments += ["--model.backbone.weights", str(args.svd), "--model.input_size", "[128,192]"]
        return [*arguments, "--output", str(args.runs / self.name)]


RUNS = [
    Run(model, method, dataset) for dataset in DATASETS for model in ("sd", "svd") for method in ("ours", "emerdiff")
]


def golden_video_weights(golden: Path, folder: Path) -> Path:
    """The random video model of the golden vectors as a folder that can be loaded: it needs an image embedding."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("unet", "vae"):
        if not (folder / part).exists():
            (folder / part).symlink_to((golden / "svd" / "weights" / part).resolve())
    embedding_1mc = torch.from_numpy(np.load(golden / "svd" / "batch0_cond.npz")["c_crossattn"])
    save_file({"cond": embedding_1mc.float()}, folder / "context.safetensors")
    return folder


def start(run: Run, args: argparse.Namespace) -> None:
    """Run one system in a process of its own; what it finished before is kept."""
    command = [sys.executable, "-m", "zsvss.run", *run.arguments(args)]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def is_possible(run: Run, args: argparse.Namespace) -> bool:
    """Whether the data and the weights that a run needs were given."""
    return not (run.dataset == "camvid" and args.camvid is None) and not (run.model == "svd" and args.svd is None)


def row(run: Run, summary: dict[str, Any], svd_note: str) -> str:
    """A line of the table."""
    numbers = summary["numbers"]
    scores = [numbers[f"test/{name}"] for name in ("mIoU", "VC8", "VC16")]
    cells = [
        f"{'SD' if run.model == 'sd' else 'SVD'} {run.method}",
        run.dataset,
        f"{numbers['test/num_frames']:.0f}",
        *("–" if score is None else percent(score) for score in scores),
        f"{summary['frames_per_second']:.2f}",
        "embedded" if run.model == "sd" else svd_note,
        " + ".join(f"`{config.removesuffix('.yaml')}`" for config in run.configs),
        f"`{(summary['run']['commit'] or '?')}`",
    ]
    return "| " + " | ".join(cells) + " |"


def table(args: argparse.Namespace) -> str:
    """The Markdown table of all finished runs."""
    found = {run: args.runs / run.name / "metrics.json" for run in RUNS}
    summaries = {run: json.loads(path.read_text()) for run, path in found.items() if path.exists()}
    lines = [
        "| system | data | frames | mIoU | VC8 | VC16 | frames/s | weights | config | commit |",
        "|---|---|--:|--:|--:|--:|--:|---|---|---|",
        *(row(run, summary, args.svd_note) for run, summary in summaries.items()),
    ]
    devices = sorted({f"{summary['run']['device']}, {summary['run']['date'][:10]}" for summary in summaries.values()})
    missing = [run.name for run in RUNS if run not in summaries]
    note = (
        f"Per cent; the first {NUM_FRAMES} frames of each video in clips of {CLIP_LENGTH}, naming `first_frame` (uses "
        f"the first frame's ground truth inside the method), consistency `official`; {'; '.join(devices)}."
    )
    return "\n".join([note + (f" Not run: {', '.join(missing)}." if missing else ""), "", *lines])


def main() -> None:
    """Run what is missing and write the table into the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    golden = os.environ.get("ZSVSS_GOLDEN")
    parser.add_argument("--camvid", type=Path, help="root of CamVid; without it, its rows are left out")
    parser.add_argument(
        "--svd",
        type=Path,
        help="weights of the video model; by default the random ones of the golden vectors, found by ZSVSS_GOLDEN",
    )
    parser.add_argument("--svd-note", default="random, quality means nothing", help="what the table says of them")
    parser.add_argument("--videos", type=int, default=1, help="generated videos")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare_systems"), help="run folders")
    parser.add_argument("--limit", type=int, default=len(RUNS), help="start at most so many runs")
    args = parser.parse_args()
    if args.svd is None and golden:
        args.svd = golden_video_weights(Path(golden), args.runs / "video_weights")
    finished = {run for run in RUNS if (args.runs / run.name / "metrics.json").exists()}
    todo = [run for run in RUNS if run not in finished and is_possible(run, args)]
    for run in todo[: args.limit]:
        start(run, args)
    text = table(args)
    fill_in(HERE / "README.md", "systems", text)
    print(text)


if __name__ == "__main__":
    main()
