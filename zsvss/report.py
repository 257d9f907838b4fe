"""``zsvss.run report RUN``: fold the records of a run folder into its table, without data, weights or a device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from zsvss.callbacks.results import show_results, summarize, write_results
from zsvss.metrics import VideoResult, fold_results
from zsvss.records import RecordFolder

INCOMPLETE = 3
"""Exit code if the numbers are not over all videos."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(prog="zsvss.run report", description=__doc__)
    parser.add_argument("run", type=Path, help="run folder of a test run, finished or not")
    parser.add_argument("--per-class", action="store_true", help="print the table of classes")
    parser.add_argument("--per-video", action="store_true", help="print the table of videos")
    options = parser.parse_args(arguments)
    try:
        return report(options.run, per_class=options.per_class, per_video=options.per_video)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def report(run: Path, *, per_class: bool = False, per_video: bool = False) -> int:
    """Fold the records, print the tables, write ``metrics.json`` and ``videos.csv``; returns the exit code.

    Raises:
        FileNotFoundError: the folder holds no test run.
        ValueError: its ``run.json`` is damaged, or no video is finished.
    """
    records = RecordFolder(run / "records" / "test")
    facts = records.run()["facts"]
    found, damaged = records.read()
    failures = {name: reason for name, reason in records.read_failures().items() if name not in found}
    results = [VideoResult.from_dict(found[name]["result"]) for name in facts["videos"] if name in found]
    summary = summarize(results, fold_results(results), facts, failures)
    write_results(run, summary, results)
    show_results(summary, results, per_class=per_class, per_video=per_video)
    for name, reason in damaged.items():
        print(f"record {records.videos / name}: {reason}; start the run again to compute its video")
    if summary["unfinished"]:
        print(f"not finished yet: {', '.join(summary['unfinished'])}")
    return INCOMPLETE if failures or summary["unfinished"] else 0
