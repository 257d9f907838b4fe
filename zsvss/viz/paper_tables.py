"""Tables of runs for papers, as Markdown and LaTeX: the results, and the ablation with a column for each component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zsvss.metrics import headline_scores
from zsvss.results.run_folder import COMPONENTS, Run, best, differing_settings
from zsvss.results.summary import caveats

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
_MD_ALIGNMENT = {"text": "---", "switch": ":-:", "score": "--:"}
_LATEX_ALIGNMENT = {"text": "l", "switch": "c", "score": "r"}
_ALWAYS = ("context", "refinement", "modulation")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, a switch, or a score of 0..1 (NaN: nothing qualifies)."""

    value: str | bool | float
    is_best: bool = False
    digits: int = 1
    """Of a score in per cent, after the decimal point."""

    @property
    def kind(self) -> str:
        """``text``, ``switch`` or ``score``."""
        return {str: "text", bool: "switch"}.get(type(self.value), "score")

    def __str__(self) -> str:
        """As people read it; scores in per cent."""
        if isinstance(self.value, bool):
            return "✓" if self.value else "–"
        if isinstance(self.value, str):
            return self.value
        return "–" if math.isnan(self.value) else f"{100 * self.value:.{self.digits}f}"


@dataclass(frozen=True)
class ScoreTable:
    """A table; the cells of a column are of one kind, but for text in place of a score or a switch."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def kinds(self) -> list[str]:
        """Of each column's cells."""
        columns = ([cell.kind for cell in column] for column in zip(*self.rows, strict=True))
        return [next((kind for kind in column if kind != "text"), "text") for column in columns]

    def markdown(self) -> str:
        """As a Markdown table."""
        alignment = [_MD_ALIGNMENT[kind] for kind in self.kinds]
        lines = [
            [_md(column) for column in self.columns],
            alignment,
            *([_md_cell(cell) for cell in row] for row in self.rows),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def latex(self) -> str:
        """As a LaTeX ``tabular`` that needs the packages booktabs and amssymb."""
        alignment = "".join(_LATEX_ALIGNMENT[kind] for kind in self.kinds)
        lines = [
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(latex(column) for column in self.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"


def ablation_table(runs: Sequence[Run]) -> ScoreTable:
    """The paper's layout: a column for each component, and mIoU and video consistency after them.

    Blending and injection have columns where some run switches them off; other settings that differ, and another
    class than a component's, stand in words.
    """
    told = [key for key in COMPONENTS if key in _ALWAYS or any(_is_off(run, key) for run in runs)]
    differing = differing_settings(runs)
    has_others = any(differing)
    scores = headline_scores(common_scores(runs))
    winners = {name: best(runs, name) for name in scores}
    columns = ["Run", *(COMPONENTS[key] for key in told), *(["Other settings"] if has_others else []), *scores]
    rows = [
        [
            Cell(run.title),
            *(Cell(run.components[key]) for key in told),
            *([Cell(", ".join(others))] if has_others else []),
            *(_score(run, name, winners[name], len(runs)) for name in scores),
        ]
        for run, others in zip(runs, differing, strict=True)
    ]
    return ScoreTable(columns, rows)


def result_table(runs: Sequence[Run]) -> ScoreTable:
    """One row a run with all scores and, after the first run, the differences to it."""
    names = common_scores(runs)
    winners = {name: best(runs, name) for name in names}
    differences = [f"Δ {name}" for name in names[:1]] if len(runs) > 1 else []
    rows = []
    for run in runs:
        change = run.scores[names[0]] - runs[0].scores[names[0]]
        shown = "" if run is runs[0] else "–" if math.isnan(change) else f"{100 * change:+.1f}".replace("-", "−")
        rows.append(
            [
                Cell(run.title),
                Cell(str(run.summary["naming"]["name"])),
                *(_score(run, name, winners[name], len(runs)) for name in names),
                *([Cell(shown)] if differences else []),
            ]
        )
    return ScoreTable(["Run", "Naming", *names, *differences], rows)


def common_scores(runs: Sequence[Run]) -> list[str]:
    """Names of the scores that all runs have."""
    return [name for name in runs[0].scores if all(name in run.scores for run in runs)]


def origin(runs: Sequence[Run]) -> str:
    """What the numbers of runs on one data set are over and depend on, with commit, machine and date."""

    def of(*keys: str) -> str:
        found: list[str] = []
        for run in runs:
            value: Any = run.summary
            for key in keys:
                value = value[key]
            if str(value) not in found:
                found.append(str(value))
        return " / ".join(found)

    lines = [
        f"- {of('dataset')}: {_counts(runs)}; backbone {of('backbone')}; classes {of('taxonomy')}; "
        f"video consistency `{of('consistency')}`",
        *(f"- note: {sentence}" for sentence in dict.fromkeys(s for run in runs for s in caveats(run.summary))),
        f"- naming protocol `{of('naming', 'name')}`: {of('naming', 'note')}",
        f"- commit {of('run', 'commit')}, {of('run', 'device')}, {_dates(runs)}",
    ]
    return "\n".join(lines)


def latex(text: str) -> str:
    r"""Text with LaTeX's special characters escaped.

    >>> latex("first_frame 5%")
    'first\\_frame 5\\%'
    """
    return "".join(_LATEX.get(character, character) for character in text).replace("Δ", r"$\Delta$").replace("−", "$-$")


def _counts(runs: Sequence[Run]) -> str:
    """Videos and frames of runs, which should be the same in all of them."""
    found = {tuple(int(run.summary["numbers"][f"test/num_{what}"]) for what in ("videos", "frames")) for run in runs}
    return " / ".join(f"{videos} video{'s' * (videos != 1)}, {frames} frames" for videos, frames in sorted(found))


def _dates(runs: Sequence[Run]) -> str:
    """First and last day of runs."""
    days = sorted({str(run.summary["run"]["date"])[:10] for run in runs})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _is_off(run: Run, key: str) -> bool:
    return run.components[key.partition(".")[0]] and not run.components[key]


def _score(run: Run, name: str, winner: float, num_runs: int) -> Cell:
    return Cell(run.scores[name], is_best=num_runs > 1 and run.is_complete and run.scores[name] == winner)


def _md(text: str) -> str:
    return text.replace("|", "\\|")


def _md_cell(cell: Cell) -> str:
    return f"**{cell}**" if cell.is_best else _md(str(cell))


def _latex_cell(cell: Cell) -> str:
    if isinstance(cell.value, bool):
        return r"\checkmark" if cell.value else ""
    return rf"\textbf{{{cell}}}" if cell.is_best else latex(str(cell)).replace("–", "--")
