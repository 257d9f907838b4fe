"""What a test run leaves behind: the table on the screen, ``metrics.json`` and ``videos.csv`` in the run folder."""

from __future__ import annotations

import csv
import json
import logging
import math
import platform
import sys
import time
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

from zsvss.metrics import class_table, video_table
from zsvss.metrics.benchmark import ClassRow

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
        self._start = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    @rank_zero_only  # type: ignore[untyped-decorator, unused-ignore]
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and print the tables."""
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = time.perf_counter() - self._start
        classes = class_table(module.results, data.taxonomy.classes)
        videos = video_table(module.results)
        summary = {
            "numbers": module.numbers,
            "dataset": data.name,
            "taxonomy": data.taxonomy.name,
            "naming": {"name": module.naming.name, "note": module.naming.note},
            "consistency": module.consistency,
            "backbone": module.backbone_name,
            "seconds": round(seconds, 3),
            "frames_per_second": round(module.numbers["test/num_frames"] / seconds, 3),
            "per_class": [asdict(row) for row in classes],
            "run": environment(trainer),
        }
        (folder / "metrics.json").write_text(json.dumps(_plain(summary), indent=2, allow_nan=False) + "\n")
        write_rows(folder / "videos.csv", videos)
        tables = [class_rows(classes)] if self.per_class else []
        tables += [video_rows(videos)] if self.per_video else []
        show(*tables, result_table(summary), provenance(summary))


def environment(trainer: Trainer) -> dict[str, Any]:
    """Where, when and with what a run was made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "device": device_name(trainer.strategy.root_device),
        "num_processes": trainer.world_size,
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
    # What papers print comes first.
    first = ["mIoU", *(name for name in scores if name.startswith(("VC", "self_consistency")))]
    table = Table(title=f"{summary['dataset']}: {summary['backbone']}", title_justify="left")
    columns = first + [name for name in scores if name not in first]
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row(*(percent(scores[name]) for name in columns))
    return table


def provenance(summary: dict[str, Any]) -> str:
    """What the numbers are over and which protocols they depend on."""
    numbers, naming = summary["numbers"], summary["naming"]
    return (
        f"per cent over {numbers['test/num_videos']:.0f} videos, {numbers['test/num_frames']:.0f} frames "
        f"({numbers['test/num_labelled_frames']:.0f} labelled); - where nothing qualifies\n"
        f"naming {naming['name']}: {naming['note']}\n"
        f"classes {summary['taxonomy']}; consistency {summary['consistency']}; "
        f"{summary['frames_per_second']:.2f} frames/s on {summary['run']['device']}"
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
    scores = [name for name in videos[0] if name.startswith(("mIoU", "VC", "self_consistency"))]
    for name in ("video", "frames", *scores, "seconds"):
        table.add_column(name, justify="left" if name == "video" else "right")
    for row in videos:
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
        table.add_row(row["video"], str(row["num_frames"]), *(percent(row[name]) for name in scores), seconds)
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
