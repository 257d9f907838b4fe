"""The main table: `python experiments/table_main/make.py RUN [RUN ...]` writes README.md here from run folders.

Systems, backbones and naming protocols in the rows, benchmarks in the columns, as in the paper's comparison.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zsvss.tables import NO, Run, markdown, origin, read_run

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


def system(run: Run) -> str:
    """The stages of a run."""
    stages = [run.stage("context") or "PerFrameClustering", run.stage("refinement"), run.stage("modulation")]
    stages += [(slot := run.model.get("features")) and str(slot["class_path"]).rpartition(".")[2]]
    return " + ".join(word for stage in stages if stage and (word := WORDS.get(stage, stage)))


def columns(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Data set and score of each column, the paper's first; a score that no run has is left out."""
    rank = {name: number for number, name in enumerate(PAPER)}
    datasets = sorted({run.dataset for run in runs}, key=lambda name: rank.get(name.split("-")[0], len(rank)))
    scores = list(dict.fromkeys(name.removeprefix("test/") for run in runs for name in run.metrics["numbers"]))
    kept = [name for name in scores if name == "mIoU" or name.startswith("VC")]
    has = {(run.dataset, name) for run in runs for name in kept if run.score(name) != NO}
    return [(dataset, name) for dataset in datasets for name in kept if (dataset, name) in has]


def table(runs: Sequence[Run]) -> str:
    """The table.

    Raises:
        ValueError: two runs claim the same cell.
    """
    rows: dict[tuple[str, str, str], dict[str, Run]] = {}
    for run in runs:
        row = rows.setdefault((system(run), run.metrics["backbone"], run.metrics["naming"]["name"]), {})
        if run.dataset in row:
            raise ValueError(
                f"{row[run.dataset].name} and {run.name} are both {system(run)} on {run.dataset}; give one of them"
            )
        row[run.dataset] = run
    wanted = columns(runs)
    header = [*TEXT, *(f"{dataset} {score}" for dataset, score in wanted)]
    body = [
        [*key, *(row[dataset].score(score) if dataset in row else "" for dataset, score in wanted)]
        for key, row in rows.items()
    ]
    return markdown(header, body, text=TEXT)


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of `test` or of a sweep's cells")
    parser.add_argument("--output", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in args.runs]
        written = table(runs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    by_dataset = {run.dataset: [other for other in runs if other.dataset == run.dataset] for run in runs}
    lines = [
        "# Main table",
        "",
        "`python experiments/table_main/make.py RUN [RUN ...]` writes this page from run folders. Scores in per cent.",
        "With backbone `Embedded` they are those of the tiny model that ships with the package. Stable Diffusion on",
        "VSPW, Cityscapes and CamVid, the paper's table, is not measured yet: it needs the weights and a GPU.",
        "",
        written,
        "",
        f"Runs: {', '.join(f'`{folder}`' for folder in args.runs)}.",
        *(line for of_one in by_dataset.values() for line in ("", origin(of_one))),
    ]
    args.output.write_text("\n".join(lines) + "\n")
    print(args.output.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
