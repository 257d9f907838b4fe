"""``zsvss report RUN [RUN ...]``: tables and a page from run folders alone, without data, weights or a device.

The page is one HTML file that needs no network. Beside it lie the ablation and result tables for papers, as Markdown
and LaTeX.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsvss.commands.refusals import OneLineParser
from zsvss.results.files import write_atomically

# What needs PyTorch is imported where it is used: help and mistakes are told at once.
if TYPE_CHECKING:
    from zsvss.results.folder import Run

INCOMPLETE = 3
"""Exit code if the numbers are not over all videos."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    parser = OneLineParser(
        prog="zsvss report",
        description="Print the tables of test runs and write a page of them that needs no network, from run folders "
        "alone. Beside the page lie the ablation and result tables for papers, as Markdown and LaTeX.",
    )
    parser.add_argument(
        "run", type=Path, nargs="+", help="run folder of a test run, finished or not, or a folder of them (a sweep's)"
    )
    parser.add_argument("--per-class", action="store_true", help="print the table of classes")
    parser.add_argument("--per-video", action="store_true", help="print the table of videos")
    parser.add_argument(
        "--output", type=Path, metavar="PAGE.html", help="page to write (default: report.html in the first RUN)"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the runs, in their order")
    parser.add_argument("--max-side", type=int, default=320, help="longest side of the page's images (default: 320)")
    parser.add_argument("--max-frames", type=int, default=100, help="of a video at most so many (default: 100)")
    options = parser.parse_args(arguments)
    try:
        return report(
            options.run,
            options.output,
            names=options.names,
            per_class=options.per_class,
            per_video=options.per_video,
            max_side=options.max_side,
            max_frames=options.max_frames,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def report(
    folders: Sequence[Path],
    output: Path | None = None,
    *,
    names: Sequence[str] | None = None,
    per_class: bool = False,
    per_video: bool = False,
    max_side: int = 320,
    max_frames: int = 100,
) -> int:
    """Fold the records of every run, print its tables, write its ``metrics.json`` and ``videos.csv``; write the page.

    Args:
        folders: run folders, or folders of them.
        output: page to write; by default ``report.html`` in the first folder.
        names: what to call the runs.
        per_class: print the tables of classes.
        per_video: print the tables of videos.
        max_side: longest side of the page's images, in pixels.
        max_frames: frames of a video in the page at most.

    Returns:
        The exit code.

    Raises:
        FileNotFoundError: a folder holds no test run.
        ValueError: files of a run are damaged, no video of a run is finished, or an option makes no sense.
    """
    from zsvss.results.folder import find_runs, read_runs

    if max_side < 16 or max_frames < 1:
        raise ValueError(f"--max-side is {max_side} and --max-frames {max_frames}; they must be at least 16 and 1")
    found = find_runs(folders)
    if names and (len(names) != len(found) or len(set(names)) != len(names)):
        raise ValueError(f"--names has {', '.join(names)}; give {len(found)} different names, for {', '.join(found)}")
    runs, empty = read_runs(dict(zip(names or found, found.values(), strict=True)))
    if not runs:
        raise ValueError(next(iter(empty.values())))
    for run in runs:
        if len(runs) > 1:
            print(f"\n{run.name}")
        _print(run, per_class=per_class, per_video=per_video)
    for reason in empty.values():
        print(f"left out: {reason}")
    page = output or folders[0] / "report.html"
    _write(page, runs, max_side, max_frames)
    print(f"page in {page}, tables in {page.with_suffix('.md')} and {page.with_suffix('.tex')}")
    return 0 if all(run.is_complete for run in runs) and not empty else INCOMPLETE


def _print(run: Run, *, per_class: bool, per_video: bool) -> None:
    from zsvss.results.screen import show_results
    from zsvss.results.summary import write_results

    summary = dict(run.summary)
    write_results(run.folder, summary, run.results)
    show_results(summary, run.results, per_class=per_class, per_video=per_video)
    for name, reason in run.damaged.items():
        path = run.folder / "records" / "test" / "videos" / name
        print(f"record {path}: {reason}; start the run again to compute its video")
    if summary["unfinished"]:
        print(f"not finished yet: {', '.join(summary['unfinished'])}")


def _write(page: Path, runs: Sequence[Run], max_side: int, max_frames: int) -> None:
    from zsvss.viz.page import render_page
    from zsvss.viz.tables import ablation_table, result_table

    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, render_page(runs, max_side=max_side, max_frames=max_frames))
    tables = ablation_table(runs), result_table(runs)
    notes = [f"{run.name}: {_note(run)}" for run in runs]
    markdown = "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes)])
    write_atomically(page.with_suffix(".md"), markdown + "\n")
    latex = "\n".join([*(table.latex() for table in tables), *(f"% {note}" for note in notes)])
    write_atomically(page.with_suffix(".tex"), latex + "\n")


def _note(run: Run) -> str:
    """What belongs beside a run's numbers, in one line."""
    summary, made = run.summary, run.summary["run"]
    numbers, naming = summary["numbers"], summary["naming"]
    objects = f"; J and F {summary['objects']}" if summary["objects"] else ""
    return (
        f"{summary['dataset']} ({summary['taxonomy']}), {numbers['test/num_videos']} of "
        f"{summary['num_videos_expected']} videos, {numbers['test/num_frames']} frames; {summary['backbone']}; naming "
        f"{naming['name']}: {naming['note']}; consistency {summary['consistency']}{objects}; {made['device']}, commit "
        f"{made['commit'] or 'unknown'}, {made['date'][:10]}"
    )
