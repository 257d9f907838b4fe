"""What a test run leaves behind: the table on the screen, ``metrics.json`` and ``videos.csv`` in the run folder."""

from __future__ import annotations

import csv
import json
import logging
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from zsvss.callbacks.clips import datamodule
from zsvss.files import write_atomically
from zsvss.fingerprint import git_commit
from zsvss.metrics import ClassRow, VideoResult, class_table, headline_scores, video_table

METRICS, VIDEOS = "metrics.json", "videos.csv"

_log = logging.getLogger(__name__)
_PACKAGES = ("zsvss", "torch", "lightning", "diffusers", "transformers", "torchmetrics")


class ResultWriter(Callback):
    """Writes and prints a test run's numbers, always with the naming and the protocols that they depend on.

    Args:
        per_class: print the table of classes too (it is in ``metrics.json`` in any case).
        per_video: print the table of videos too (it is in ``videos.csv`` in any case).
    """

    def __init__(self, per_class: bool = False, per_video: bool = False) -> None:
        self.per_class, self.per_video = per_class, per_video

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and print the tables; of a run without a result only that of the failures."""
        module: Any = pl_module
        folder = Path(trainer.default_root_dir)
        if not module.results:
            for name in (METRICS, VIDEOS):  # of an earlier start, over videos that have changed since
                (folder / name).unlink(missing_ok=True)
            show(failure_rows(module.failures))
            return
        summary = summarize(module.results, module.numbers, run_facts(trainer, pl_module), module.failures)
        write_results(folder, summary, module.results)
        show_results(summary, module.results, per_class=self.per_class, per_video=self.per_video)


def run_facts(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """What has to be known of a run beside its videos' results, as plain values."""
    module: Any = pl_module
    data = datamodule(trainer)
    taxonomy = data.taxonomy
    return {
        "dataset": data.name,
        "taxonomy": taxonomy and taxonomy.name,
        "classes": taxonomy and list(taxonomy.classes),
        "naming": {"name": module.naming.name, "note": module.naming.note},
        "consistency": module.consistency,
        "backbone": module.backbone_name,
        "videos": sorted([*(video.name for video in data.videos()), *data.unreadable]),
        "run": environment(trainer),
    }


def summarize(
    results: Sequence[VideoResult], numbers: Mapping[str, float], facts: Mapping[str, Any], failures: Mapping[str, str]
) -> dict[str, Any]:
    """The content of ``metrics.json``: a fold over the videos' results.

    Args:
        results: of the finished videos.
        numbers: of `fold_results` over them.
        facts: of `run_facts`.
        failures: videos that could not be read, and why.
    """
    finished = {result.name for result in results}
    seconds = math.fsum(result.seconds or 0.0 for result in results)
    return {
        "numbers": dict(numbers),
        **{key: facts[key] for key in ("dataset", "taxonomy", "naming", "consistency", "backbone")},
        "num_videos_expected": len(facts["videos"]),
        "failures": dict(sorted(failures.items())),
        "unfinished": [name for name in facts["videos"] if name not in finished and name not in failures],
        # Of all processes together: what one process alone would have taken.
        "seconds": round(seconds, 3),
        "frames_per_second": round(numbers["test/num_frames"] / seconds, 3) if seconds else None,
        "per_class": [asdict(row) for row in class_table(results, facts["classes"])],
        "run": facts["run"],
    }


def write_results(folder: Path, summary: Mapping[str, Any], results: Sequence[VideoResult]) -> None:
    """Write ``metrics.json`` and ``videos.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / METRICS, json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
    write_rows(folder / VIDEOS, video_table(results))


def show_results(
    summary: dict[str, Any], results: Sequence[VideoResult], *, per_class: bool = False, per_video: bool = False
) -> None:
    """Print the tables."""
    tables = [class_rows([ClassRow(**row) for row in summary["per_class"]])] if per_class else []
    tables += [video_rows(video_table(results))] if per_video else []
    tables += [failure_rows(summary["failures"])] if summary["failures"] else []
    show(*tables, result_table(summary), provenance(summary))


def environment(trainer: Trainer) -> dict[str, Any]:
    """Where, when and with what a run was made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "device": device_name(trainer.strategy.root_device),
        "num_processes": trainer.world_size,
        "commit": git_commit(),
        "precision": str(trainer.precision),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
    }


def device_name(device: torch.device) -> str:
    """Name of the processor a run computes on, as it should stand beside a published number."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    threads = torch.get_num_threads()
    return f"{cpu}, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type


def result_table(summary: dict[str, Any]) -> Table:
    """The benchmark's numbers in one row, in per cent."""
    numbers = summary["numbers"]
    scores = {name.removeprefix("test/"): value for name, value in numbers.items() if not name.startswith("test/num_")}
    first = headline_scores(scores)
    table = Table(title=f"{summary['dataset']}: {summary['backbone']}", title_justify="left")
    columns = first + [name for name in scores if name not in first]
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row(*(percent(scores[name]) for name in columns))
    return table


def provenance(summary: dict[str, Any]) -> str:
    """What the numbers are over and which protocols they depend on."""
    numbers, naming = summary["numbers"], summary["naming"]
    speed, finished, expected = summary["frames_per_second"], numbers["test/num_videos"], summary["num_videos_expected"]
    videos = f"{finished:.0f} videos" if finished == expected else f"ONLY {finished:.0f} of {expected} videos"
    return (
        f"per cent over {videos}, {numbers['test/num_frames']:.0f} frames "
        f"({numbers['test/num_labelled_frames']:.0f} labelled); - where nothing qualifies\n"
        f"naming {naming['name']}: {naming['note']}\n"
        f"classes {summary['taxonomy']}; consistency {summary['consistency']}; "
        f"{'?' if speed is None else f'{speed:.2f}'} frames/s a process on {summary['run']['device']}"
    )


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
        table.add_column(name, justify="left" if name == "video" else "right")
    for row in videos:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(row["video"], str(row["num_frames"]), *(percent(row[name]) for name in scores), seconds)
    return table


def failure_rows(failures: Mapping[str, str]) -> Table:
    """One row a video that could not be read."""
    table = Table("video", "why it could not be read", title="Failures", title_justify="left")
    for name, reason in failures.items():
        table.add_row(name, reason)
    return table


def percent(score: float) -> str:
    """A score of 0..1 in per cent; ``-`` for NaN.

    >>> percent(0.3141), percent(math.nan)
    ('31.41', '-')
    """
    return "-" if math.isnan(score) else f"{100 * score:.2f}"


def show(*parts: Table | str) -> None:
    """Print on the screen and into the log, there without colours."""
    Console().print(*parts, sep="\n", highlight=False)
    plain = Console(width=140, no_color=True, force_terminal=False)
    with plain.capture() as capture:
        plain.print(*parts, sep="\n")
    _log.info("\n%s", capture.get(), extra={"on_screen": True})


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
