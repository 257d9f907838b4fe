"""The ablation table: `python experiments/table_ablation/make.py` runs the component sweep and writes README.md here.

Generated videos always, CamVid where its folder is. What is finished is not computed again. `--only-tabulate` takes the
run folders as they are.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zsvss.commands.sweep import INCOMPLETE
from zsvss.results.run_folder import COMPONENTS, Run, find_runs, read_runs
from zsvss.viz.paper_tables import Cell, ScoreTable, origin

HERE = Path(__file__).parent
SCORES = ("mIoU", "VC8", "VC16")
SMALL = ["--data.height", "96", "--data.width", "160", "--model.input_size", "[192,320]"]

PREFACE = """\
# Ablation of the components

`make ablation` runs `configs/sweeps/components.yaml` and writes this page from the run folders. Scores
in per cent, of the tiny backbone that ships with the package: nothing is said about Stable Diffusion.
Generated videos are the first of the test split, at 96x160, seen at 192x320; of CamVid val it is the
first frames, as `camvid_embedded.yaml` sees them. So few frames tell the large effects, not a point or
two; `make ablation ABLATION='--videos 20 --frames 42'` takes more.
"""


def sweep(config: str, output: Path, workers: int, options: Sequence[str]) -> None:
    """Run the components on one data set; cells may fail, and the table says which.

    Raises:
        ValueError: the sweep could not run at all.
    """
    command = ["-m", "zsvss.run", "sweep", "--config", config, "--sweep", "sweeps/components.yaml"]
    command += ["--output", str(output), "--launcher", "local", "--workers", str(workers), *options]
    code = subprocess.run([sys.executable, *command], check=False).returncode
    if code not in (0, INCOMPLETE):
        raise ValueError(f"the sweep of {config} ended with exit code {code}, see above; no table is written")


def read_sweep(folder: Path) -> tuple[list[Run], list[str]]:
    """Runs of a sweep's finished cells in its order, and the names of the other cells.

    Raises:
        ValueError: files of a cell are damaged.
        FileNotFoundError: it is no sweep's folder.
    """
    runs, empty = read_runs(find_runs([folder]))
    return [run for run in runs if run.is_complete], [*empty, *(run.name for run in runs if not run.is_complete)]


def table(datasets: dict[str, list[Run]]) -> ScoreTable:
    """Components in the columns, as the paper names them, then the scores on each data set.

    Raises:
        ValueError: there is no run.
    """
    by_name: dict[str, dict[str, Run]] = {}
    for dataset, runs in datasets.items():
        for run in runs:
            by_name.setdefault(run.name, {})[dataset] = run
    if not by_name:
        raise ValueError("no cell of the sweep is finished; its failed.json and screen.txt in the run folders say why")
    rows = []
    for name, of_datasets in by_name.items():
        components = next(iter(of_datasets.values())).components.values()
        found = [of_datasets.get(dataset) for dataset in datasets]
        scores = [run.scores.get(score, math.nan) if run else "failed" for run in found for score in SCORES]
        rows.append([*map(Cell, components), *(Cell(score, digits=2) for score in scores), Cell(f"`{name}`")])
    columns = [
        *COMPONENTS.values(),
        *(f"{dataset} {score}" for dataset in datasets for score in SCORES),
        "Config on top",
    ]
    return ScoreTable(columns, rows)


def main() -> int:
    """Run what is not finished, and write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="folder of the sweeps")
    parser.add_argument("--camvid", type=Path, default=Path(os.environ.get("CAMVID_ROOT", "data/camvid")))
    parser.add_argument("--videos", type=int, default=2, help="generated videos; every other one is hard")
    parser.add_argument("--frames", type=int, default=20, help="of each video; CamVid val has 101")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-tabulate", action="store_true", help="run nothing")
    parser.add_argument("--output", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    try:
        write_page(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write_page(args: argparse.Namespace) -> None:
    """Run the sweeps, unless told not to, and write the page.

    Raises:
        ValueError: a sweep could not run, or there is nothing for the table.
        FileNotFoundError: there is no sweep to tabulate.
    """
    folders = {"generated": args.runs / "procedural"}
    has_camvid = (args.camvid / "val").is_dir()
    if has_camvid:
        folders["CamVid"] = args.runs / "camvid"
    else:
        print(f"no CamVid in {args.camvid}: left out; name its folder by --camvid or CAMVID_ROOT", flush=True)
    if not args.only_tabulate:
        videos = ["--data.num_videos", str(args.videos), "--data.num_frames", str(args.frames), *SMALL]
        sweep("procedural_embedded.yaml", folders["generated"], args.workers, videos)
        if has_camvid:
            frames = ["--data.root", str(args.camvid), "--data.limit_frames", str(args.frames)]
            sweep("camvid_embedded.yaml", folders["CamVid"], args.workers, frames)

    datasets, missing = {}, []
    for dataset, folder in folders.items():
        datasets[dataset], failed = read_sweep(folder)
        missing += [f"{name} on {dataset}" for name in failed]
    lines = [
        PREFACE,
        table(datasets).markdown(),
        *(line for runs in datasets.values() if runs for line in (origin(runs), "")),
        *([] if has_camvid else ["CamVid was not at hand.", ""]),
        *([f"Failed: {', '.join(missing)}.", ""] if missing else []),
    ]
    args.output.write_text("\n".join(lines).rstrip() + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    sys.exit(main())
