"""The main table: `python experiments/table_main/make.py RUN [RUN ...]` writes README.md here from run folders.

Systems, backbones and naming protocols in the rows, benchmarks in the columns, as in the paper's comparison.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from zsvss.commands.sweep_cells import missing_videos
from zsvss.metrics import headline_scores
from zsvss.results.run_folder import Run, find_runs, plain, read_run
from zsvss.viz.paper_tables import Cell, ScoreTable, origin

HERE = Path(__file__).parent
PAPER = ("vspw", "cityscapes", "camvid")
TEXT = ("system", "backbone", "clusters named by")
# Classes by the paper's words; others keep their name.
WORDS = {
    "KNNSceneContext": "scene context",
    "PerFrameClustering": "per-frame clustering",
    "CorrespondenceRefinement": "refinement",
    "MaskedModulation": "masked modulation",
    "AttentionFeatures": "",
}


def read(folders: Sequence[Path]) -> list[Run]:
    """The runs.

    Raises:
        ValueError: one is not finished.
        FileNotFoundError: a folder holds no run.
    """
    runs = [read_run(path, name) for name, path in find_runs(folders).items()]
    for run in runs:
        if not run.is_complete:
            raise ValueError(
                f"{run.folder} is not finished: {missing_videos(run.summary)}; give the same command again to finish it"
            )
    return runs


def system(run: Run) -> str:
    """The stages of a run."""
    stages = [plain(run.settings.get(part)) for part in ("context", "refinement", "modulation", "features")]
    if stages[0] == "none":
        stages[0] = "PerFrameClustering"
    return " + ".join(word for stage in stages if stage != "none" and (word := WORDS.get(stage, stage)))


def dataset(run: Run) -> str:
    """Name of the data set."""
    return str(run.summary["dataset"])


def columns(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Data set and score of each column, the paper's first; a score that no run has is left out."""
    rank = {name: number for number, name in enumerate(PAPER)}
    datasets = sorted({dataset(run) for run in runs}, key=lambda name: rank.get(name.split("-")[0], len(rank)))
    kept = headline_scores(dict.fromkeys(name for run in runs for name in run.scores))
    has = {(dataset(run), name) for run in runs for name, score in run.scores.items() if not math.isnan(score)}
    return [(name, score) for name in datasets for score in kept if (name, score) in has]


def table(runs: Sequence[Run]) -> ScoreTable:
    """The table.

    Raises:
        ValueError: two runs claim the same cell.
    """
    rows: dict[tuple[str, str, str], dict[str, Run]] = {}
    for run in runs:
        row = rows.setdefault((system(run), run.summary["backbone"], run.summary["naming"]["name"]), {})
        other = row.setdefault(dataset(run), run)
        if other is not run:
            raise ValueError(f"{other.name} and {run.name} are both {system(run)} on {dataset(run)}; give one of them")
    wanted = columns(runs)
    body = [
        [
            *map(Cell, key),
            *(Cell(row[name].scores.get(score, math.nan) if name in row else "", digits=2) for name, score in wanted),
        ]
        for key, row in rows.items()
    ]
    return ScoreTable([*TEXT, *(f"{name} {score}" for name, score in wanted)], body)


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of `test` or of a sweep's cells")
    parser.add_argument("--output", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    try:
        runs = read(args.runs)
        written = table(runs).markdown()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    by_dataset = {dataset(run): [other for other in runs if dataset(other) == dataset(run)] for run in runs}
    lines = [
        "# Main table",
        "",
        "`python experiments/table_main/make.py RUN [RUN ...]` writes this page from run folders. Scores in per cent.",
        "With backbone `Embedded` they are those of the tiny model that ships with the package. Stable Diffusion on",
        "VSPW, Cityscapes and CamVid, the paper's table, is not measured yet: it needs the weights and a GPU.",
        "",
        written,
        f"Runs: {', '.join(f'`{folder}`' for folder in args.runs)}.",
        *(line for of_one in by_dataset.values() for line in ("", origin(of_one))),
    ]
    args.output.write_text("\n".join(lines) + "\n")
    print(args.output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
