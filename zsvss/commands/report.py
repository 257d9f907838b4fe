"""``zsvss report RUN [RUN ...]``: tables and a page from run folders alone, without weights or a device.

The page is one HTML file that needs no network; where its videos would make it larger than 10 MB, they lie in files
beside it. Of test runs the ablation and result tables for papers lie there as well, as Markdown and LaTeX. Predictions
without ground truth get a page of their segments.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zsvss.commands.refusals import OneLineParser
from zsvss.results.atomic_files import write_atomically

# What needs PyTorch is imported where it is used: help and mistakes are told at once.
if TYPE_CHECKING:
    from zsvss.results.run_folder import Run

INCOMPLETE = 3
"""Exit code if the numbers are not over all videos."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    parser = OneLineParser(
        prog="zsvss report",
        description="Print the tables of test runs and write a page of them that needs no network, from run folders "
        "alone. Beside the page lie the ablation and result tables for papers, as Markdown and LaTeX. Of runs of "
        "predict, which have no ground truth, the page shows the segments.",
    )
    parser.add_argument(
        "run",
        type=Path,
        nargs="+",
        help="run folder of a test run, finished or not, or a folder of them (a sweep's); or run folders of predict",
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
        folders: run folders of test runs, or folders of them; or run folders of predict.
        output: page to write; by default ``report.html`` in the first folder.
        names: what to call the runs.
        per_class: print the tables of classes.
        per_video: print the tables of videos.
        max_side: longest side of the page's images, in pixels.
        max_frames: frames of a video in the page at most.

    Returns:
        The exit code.

    Raises:
        FileNotFoundError: a folder holds no run.
        ValueError: files of a run are damaged, no video of a run is finished, or an option makes no sense.
    """
    from zsvss.results.run_folder import find_runs, read_runs

    if max_side < 16 or max_frames < 1:
        raise ValueError(f"--max-side is {max_side} and --max-frames {max_frames}; they must be at least 16 and 1")
    page = output or folders[0] / "report.html"
    if _are_predictions(folders):
        if per_class or per_video:
            raise ValueError("--per-class and --per-video print scores, and predictions have none; leave them out")
        return _report_predictions(folders, page, names, max_side, max_frames)
    found = find_runs(folders)
    runs, empty = read_runs(_named(found, names))
    if not runs:
        raise ValueError(next(iter(empty.values())))
    for run in runs:
        if len(runs) > 1:
            print(f"\n{run.name}")
        _print(run, per_class=per_class, per_video=per_video)
    for reason in empty.values():
        print(f"left out: {reason}")
    _write(page, runs, max_side, max_frames)
    print(f"page in {page}, tables in {page.with_suffix('.md')} and {page.with_suffix('.tex')}")
    return 0 if all(run.is_complete for run in runs) and not empty else INCOMPLETE


def _named(found: Mapping[str, Path], names: Sequence[str] | None) -> dict[str, Path]:
    """The runs by the names that were given for them, in their order."""
    if names and (len(names) != len(found) or len(set(names)) != len(names)):
        raise ValueError(f"--names has {', '.join(names)}; give {len(found)} different names, for {', '.join(found)}")
    return dict(zip(names or found, found.values(), strict=True))


def _are_predictions(folders: Sequence[Path]) -> bool:
    """Whether the folders hold predictions and no scores.

    Raises:
        FileNotFoundError: one holds neither.
        ValueError: some hold predictions alone and others scores.
    """
    from zsvss.results.predictions import PredictionsError, find_predictions
    from zsvss.results.run_folder import find_runs

    kinds: dict[str, list[Path]] = {"scores": [], "predictions": []}
    for folder in folders:
        try:
            find_runs([folder])
            kinds["scores"].append(folder)
        except FileNotFoundError as error:
            try:
                find_predictions(folder)
            except PredictionsError:
                raise FileNotFoundError(f"{error}, and no predictions (predictions/<video>/segments.json)") from error
            kinds["predictions"].append(folder)
    if kinds["scores"] and kinds["predictions"]:
        raise ValueError(
            f"{kinds['predictions'][0]} holds predictions without ground truth and {kinds['scores'][0]} the scores of "
            "a test run; a page shows one or the other: give them to two reports"
        )
    return bool(kinds["predictions"])


def _report_predictions(
    folders: Sequence[Path], page: Path, names: Sequence[str] | None, max_side: int, max_frames: int
) -> int:
    """Say what was predicted, and write the page of it; returns the exit code."""
    from zsvss.results.predictions import Predictions, find_predictions
    from zsvss.viz.page_parts import Parts
    from zsvss.viz.predicted_videos import PredictedRun
    from zsvss.viz.report_page import render_predictions

    short = [folder.resolve().name for folder in folders]
    found = {name if short.count(name) == 1 else str(path): path for name, path in zip(short, folders, strict=True)}
    read = {
        name: [Predictions.read(video) for video in find_predictions(folder)]
        for name, folder in _named(found, names).items()
    }
    begun = [PredictedRun(name, [v for v in videos if v.num_frames]) for name, videos in read.items()]
    runs = [run for run in begun if run.videos]
    if not runs:
        raise ValueError(f"{folders[0]}: no frame is predicted yet, so there is nothing to show; start the run again")
    for video in (video for videos in read.values() for video in videos):
        length = (
            f"{video.num_frames} frames" if video.complete else f"{video.num_frames} of {video.video_length} frames"
        )
        print(f"{video.video}: {length}, {len(video.segments)} segments")
    parts = Parts(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, render_predictions(runs, max_side=max_side, max_frames=max_frames, parts=parts))
    parts.clean()
    print(f"page in {page}")
    return 0 if all(video.complete for videos in read.values() for video in videos) else INCOMPLETE


def _print(run: Run, *, per_class: bool, per_video: bool) -> None:
    from zsvss.results.summary import write_results
    from zsvss.results.terminal_tables import show_results

    summary = dict(run.summary)
    write_results(run.folder, summary, run.results)
    show_results(summary, run.results, per_class=per_class, per_video=per_video)
    for name, reason in run.damaged.items():
        path = run.folder / "records" / "test" / "videos" / name
        print(f"record {path}: {reason}; start the run again to compute its video")
    if summary["unfinished"]:
        print(f"not finished yet: {', '.join(summary['unfinished'])}")


def _write(page: Path, runs: Sequence[Run], max_side: int, max_frames: int) -> None:
    from zsvss.viz.page_parts import Parts
    from zsvss.viz.paper_tables import ablation_table, result_table
    from zsvss.viz.report_page import render_page

    parts = Parts(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, render_page(runs, max_side=max_side, max_frames=max_frames, parts=parts))
    parts.clean()
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
