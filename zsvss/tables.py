"""Run folders as tables of a paper, in Markdown: what was run, what came out, and where the numbers are from."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zsvss.callbacks.results import percent
from zsvss.cells import Cell, incomplete, is_finished
from zsvss.files import write_atomically

YES, NO = "✓", "–"


@dataclass(frozen=True)
class Run:
    """A finished test run.

    Attributes:
        name: of its folder, or of its cell in a sweep.
        metrics: content of ``metrics.json``.
        model: settings of the model, from ``config.yaml``.
    """

    name: str
    metrics: dict[str, Any]
    model: dict[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.metrics["dataset"])

    def score(self, name: str) -> str:
        """A number such as ``mIoU`` in per cent; ``–`` where the run does not have it."""
        value = self.metrics["numbers"].get(f"test/{name}")
        return NO if value is None else percent(value)

    def stage(self, name: str) -> str | None:
        """Class of ``context``, ``refinement`` or ``modulation``; ``None`` if it is switched off."""
        slot = self.model.get(name)
        return slot and str(slot["class_path"]).rpartition(".")[2]

    @property
    def parts(self) -> dict[str, bool]:
        """Which components of the method it has, by the paper's names."""
        modulation = self.model.get("modulation") or {}
        options = modulation.get("init_args", {})
        modulated = self.stage("modulation") == "MaskedModulation"
        return {
            "scene context": self.stage("context") == "KNNSceneContext",
            "refinement": self.model.get("refinement") is not None,
            "masked modulation": modulated,
            "latent blending": modulated and options.get("blend", True),
            "injection": modulated and options.get("inject", True),
        }


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read a run folder.

    Raises:
        ValueError: it holds no finished test run, or one that lacks videos.
    """
    cell = Cell(name or folder.name, folder, ())
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        model = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} holds no finished test run: {error}") from error
    if not is_finished(cell):
        raise ValueError(f"{folder} is not finished: {incomplete(cell)}; give the same command again to finish it")
    return Run(cell.name, metrics, model)


def read_sweep_folder(folder: Path) -> tuple[list[Run], list[str]]:
    """Runs of a sweep's finished cells in its order, and the names of the other cells.

    Raises:
        ValueError: it is no sweep's folder.
    """
    try:
        listed = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["cells"]
        cells = [Cell(cell["name"], folder / cell["folder"], ()) for cell in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no folder of `zsvss.run sweep`: {error}") from error
    finished = [cell for cell in cells if is_finished(cell)]
    missing = [cell.name for cell in cells if cell not in finished]
    return [read_run(cell.folder, cell.name) for cell in finished], missing


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[str] = ()) -> str:
    """A Markdown table; columns not in ``text`` are aligned to the right.

    >>> print(markdown(["cell", "mIoU"], [["full", "45.2"]], text=["cell"]))
    | cell | mIoU |
    | --- | --: |
    | full | 45.2 |
    """
    align = ["---" if column in text else "--:" for column in header]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, align, *rows])


def origin(runs: Sequence[Run]) -> str:
    """What the numbers of runs on one data set are over and depend on, with commit, machine and date."""

    def of(*keys: str) -> str:
        found: list[str] = []
        for run in runs:
            value: Any = run.metrics
            for key in keys:
                value = value[key]
            if str(value) not in found:
                found.append(str(value))
        return " / ".join(found)

    lines = [
        f"- {of('dataset')}: {counts(runs)}; backbone {of('backbone')}; classes {of('taxonomy')}; "
        f"video consistency `{of('consistency')}`",
        f"- naming protocol `{of('naming', 'name')}`: {of('naming', 'note')}",
        f"- commit {of('run', 'commit')}, {of('run', 'device')}, {dates(runs)}",
    ]
    return "\n".join(lines)


def counts(runs: Sequence[Run]) -> str:
    """Videos and frames of runs, which should be the same in all of them."""
    found = {tuple(int(run.metrics["numbers"][f"test/num_{what}"]) for what in ("videos", "frames")) for run in runs}
    return " / ".join(f"{videos} video{'s' * (videos != 1)}, {frames} frames" for videos, frames in sorted(found))


def dates(runs: Sequence[Run]) -> str:
    """First and last day of runs."""
    days = sorted({str(run.metrics["run"]["date"])[:10] for run in runs})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def fill_in(page: Path, name: str, text: str) -> None:
    """Replace what lies between ``<!-- name -->`` and ``<!-- end of name -->`` in a page.

    Raises:
        ValueError: if the page does not have both, in this order.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found_start, rest = page.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(f"{page} must have the lines {start!r} and, below, {end!r}, for the table to lie between.")
    write_atomically(page, f"{before}{start}\n{text}\n{end}{after}")
