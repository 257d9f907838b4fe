"""The numbers of a run: the contents of ``metrics.json`` and ``videos.csv``."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zsvss.metrics import VideoResult, class_table, video_table
from zsvss.results.atomic_files import write_atomically

METRICS, VIDEOS = "metrics.json", "videos.csv"


def summarize(
    results: Sequence[VideoResult], numbers: Mapping[str, float], facts: Mapping[str, Any], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The content of ``metrics.json``: a fold over the videos' results.

    Args:
        results: of the finished videos.
        numbers: of `fold_results` over them.
        facts: of `run_facts`.
        failures: videos without a result, and why.
    """
    finished = {result.name for result in results}
    seconds = math.fsum(result.seconds or 0.0 for result in results)
    return {
        "numbers": dict(numbers),
        **{key: facts[key] for key in ("dataset", "taxonomy", "naming", "consistency", "backbone")},
        "objects": results[0].object_protocol if any(result.objects for result in results) else None,
        "consistency_caveat": facts.get("consistency_caveat"),
        "notes": {result.name: list(result.notes) for result in results if result.notes},
        "num_videos_expected": len(facts["videos"]),
        "failures": dict(sorted(failures.items())),
        "unfinished": [name for name in facts["videos"] if name not in finished and name not in failures],
        # Of all processes together: what one process alone would have taken.
        "seconds": round(seconds, 3),
        "frames_per_second": round(numbers["test/num_frames"] / seconds, 3) if seconds else None,
        "per_class": [asdict(row) for row in class_table(results, facts["classes"])],
        "run": facts["run"],
    }


def caveats(summary: Mapping[str, Any], limit: int = 5) -> list[str]:
    """What to know before the numbers are quoted, one sentence each; of the videos' notes the first few."""
    told = [summary["consistency_caveat"]] if summary["consistency_caveat"] else []
    notes = [f"{video}: {note}" for video, notes in sorted(summary["notes"].items()) for note in notes]
    more = [f"{len(notes) - limit} more notes on videos in {METRICS}"] if len(notes) > limit else []
    return told + notes[:limit] + more


def write_results(folder: Path, summary: Mapping[str, Any], results: Sequence[VideoResult]) -> None:
    """Write ``metrics.json`` and ``videos.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / METRICS, json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    write_rows(folder / VIDEOS, video_table(results))


def percent(score: float) -> str:
    """A score of 0..1 in per cent; ``-`` for NaN.

    >>> percent(0.3141), percent(math.nan)
    ('31.41', '-')
    """
    return "-" if math.isnan(score) else f"{100 * score:.2f}"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write dictionaries of the same keys as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: Any) -> Any:
    """The same with null for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
