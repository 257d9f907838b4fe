"""The results of a sweep's cells, as lines and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from zsvss.commands.sweep_cells import Cell, failure, is_finished, metrics

_TEXT = ("cell", "naming")


def describe(cell: Cell) -> str:
    """One line about a cell that has ended."""
    found = metrics(cell)
    numbers = "" if found is None else ", ".join(f"{name} {value}" for name, value in scores(found).items())
    return f"{cell.name}: {'; '.join(filter(None, (numbers, failure(cell).get('reason', ''))))}"


def scores(found: Mapping[str, Any]) -> dict[str, str]:
    """The scores in per cent; JSON's null is NaN."""
    from zsvss.metrics import headline_scores
    from zsvss.results.summary import percent

    known = {name.removeprefix("test/"): value for name, value in found["numbers"].items()}
    return {name: "-" if known[name] is None else percent(known[name]) for name in headline_scores(known)}


def rows(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: scores, and what they are over."""
    found = {cell.name: metrics(cell) for cell in cells}
    columns = list(dict.fromkeys(name for summary in found.values() if summary for name in scores(summary)))
    table = []
    for name, summary in found.items():
        if summary is None:
            table.append([name, *("" for _ in columns), "", "", ""])
            continue
        values, numbers = scores(summary), summary["numbers"]
        over = [f"{numbers[f'test/num_{what}']:.0f}" for what in ("videos", "frames")]
        table.append([name, *(values.get(column, "") for column in columns), *over, summary["naming"]["name"]])
    return ["cell", *columns, "videos", "frames", "naming"], table


def problems(cells: Sequence[Cell]) -> list[str]:
    """A line for each cell that is not finished, with the reason."""
    return [
        f"{cell.name} failed: {reason}" if (reason := failure(cell).get("reason")) else f"{cell.name} is not finished"
        for cell in cells
        if not is_finished(cell)
    ]


def result_table(name: str, cells: Sequence[Cell]) -> Table:
    """The table for the screen."""
    header, body = rows(cells)
    table = Table(title=f"{name}, per cent", title_justify="left")
    for column in header:
        table.add_column(column, justify="left" if column in _TEXT else "right", overflow="fold")
    for row in body:
        table.add_row(*row)
    return table


def markdown_table(cells: Sequence[Cell]) -> str:
    """The table as Markdown, and what is wrong with the cells that are not finished."""
    header, body = rows(cells)
    align = ["---" if column in _TEXT else "--:" for column in header]
    lines = [f"| {' | '.join(row)} |" for row in [header, align, *body]]
    return "\n".join([*lines, *("\n" + line for line in problems(cells)), ""])
