"""The tables that `test` and `report` print at their end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from zsvss.metrics import OBJECT_SCORES, ClassRow, VideoResult, headline_scores, video_table
from zsvss.results.summary import caveats, percent

_log = logging.getLogger(__name__)


def show_results(
    summary: dict[str, Any], results: Sequence[VideoResult], *, per_class: bool = False, per_video: bool = False
) -> None:
    """Print the tables."""
    tables = [class_rows([ClassRow(**row) for row in summary["per_class"]])] if per_class else []
    tables += [video_rows(video_table(results))] if per_video else []
    tables += [failure_rows(summary["failures"])] if summary["failures"] else []
    show(*tables, *result_tables(summary), provenance(summary))


def result_tables(summary: dict[str, Any]) -> list[Table]:
    """The benchmark's numbers in one row, in per cent; those of objects, where there are any, in a table before it."""
    numbers = summary["numbers"]
    scores = {name.removeprefix("test/"): value for name, value in numbers.items() if not name.startswith("test/num_")}
    first = headline_scores(scores)
    columns = first + [name for name in scores if name not in first]
    groups = [[name for name in columns if (name in OBJECT_SCORES) == of_objects] for of_objects in (True, False)]
    tables: list[Table] = []
    for group in filter(None, groups):
        title = None if tables else f"{summary['dataset']}: {summary['backbone']}"
        table = Table(*(Column(_Heading(name), justify="right") for name in group), title=title, title_justify="left")
        table.add_row(*(percent(scores[name]) for name in group))
        tables.append(table)
    return tables


def provenance(summary: dict[str, Any]) -> str:
    """What the numbers are over and which protocols they depend on."""
    numbers, naming = summary["numbers"], summary["naming"]
    speed, finished, expected = summary["frames_per_second"], numbers["test/num_videos"], summary["num_videos_expected"]
    told = "".join(f"\nnote: {sentence}" for sentence in caveats(summary))
    videos = f"{finished:.0f} videos" if finished == expected else f"ONLY {finished:.0f} of {expected} videos"
    objects = f"J and F {summary['objects']}; " if summary["objects"] else ""
    return (
        f"per cent over {videos}, {numbers['test/num_frames']:.0f} frames "
        f"({numbers['test/num_labelled_frames']:.0f} labelled); - means undefined\n"
        f"naming {naming['name']}: {naming['note']}\n"
        f"classes {summary['taxonomy']}; consistency {summary['consistency']}; {objects}"
        f"{'?' if speed is None else f'{speed:.2f}'} frames/s per process on {summary['run']['device']}"
        f"{told}"
    )


class _Heading:
    """A name that goes over several lines where it must, at its underscores, so that its end is not cut off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts = name.replace("_", "_\n").splitlines()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(max(map(len, self.parts)), len(self.name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = len(self.name) <= options.max_width
        yield Text(self.name if whole else "\n".join(self.parts), "table.header", overflow="fold")


def class_rows(classes: list[ClassRow]) -> Table:
    """One row a class that has ground truth or was predicted."""
    table = Table(title="Classes", title_justify="left")
    for name in ("id", "class", "IoU", "labelled pixels", "predicted pixels"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in classes:
        if row.num_ground_truth or row.num_predicted:
            cells = (str(row.class_id), row.name, percent(row.iou), f"{row.num_ground_truth:,}")
            table.add_row(*cells, f"{row.num_predicted:,}")
    return table


def video_rows(videos: list[dict[str, Any]]) -> Table:
    """One row a video."""
    table = Table(title="Videos", title_justify="left")
    scores = headline_scores(videos[0])
    for name in ("video", "frames", *scores, "seconds"):
        table.add_column(_Heading(name), justify="left" if name == "video" else "right")
    for row in videos:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(row["video"], str(row["num_frames"]), *(percent(row[name]) for name in scores), seconds)
    return table


def failure_rows(failures: Mapping[str, str]) -> Table:
    """One row a video without a result."""
    table = Table("video", "why it has no result", title="Failures", title_justify="left")
    for name, reason in failures.items():
        table.add_row(name, reason)
    return table


def show(*parts: Table | str) -> None:
    """Print on the screen and into the log, there without colours."""
    Console().print(*parts, sep="\n", highlight=False)
    plain = Console(width=140, no_color=True, force_terminal=False)
    with plain.capture() as capture:
        plain.print(*parts, sep="\n")
    _log.info("\n%s", capture.get(), extra={"on_screen": True})
