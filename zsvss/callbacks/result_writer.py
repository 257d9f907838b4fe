"""What a test run leaves behind: the table on the screen, ``metrics.json`` and ``videos.csv`` in the run folder."""

from __future__ import annotations

import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from zsvss.data.datamodule import datamodule
from zsvss.data.input_kinds import without_userinfo
from zsvss.results.fingerprint import git_commit
from zsvss.results.summary import METRICS, VIDEOS, summarize, write_results
from zsvss.results.terminal_tables import failure_rows, show, show_results

_PACKAGES = ("zsvss", "torch", "lightning", "diffusers", "transformers", "torchmetrics")


class ResultWriter(Callback):
    """Writes and prints a test run's numbers, always with the naming and the protocols that they depend on.

    Args:
        per_class: print the table of classes too (it is in ``metrics.json`` in any case).
        per_video: print the table of videos too (it is in ``videos.csv`` in any case).
    """

    def __init__(self, per_class: bool = False, per_video: bool = False) -> None:
        self.per_class, self.per_video = per_class, per_video

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and print the tables; of a run without a result only that of the failures."""
        if not trainer.is_global_zero:
            return
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
        "consistency_caveat": data.consistency_caveat,
        "backbone": module.backbone_name,
        "videos": sorted([*(video.name for video in data.videos()), *data.unreadable]),
        "run": environment(trainer),
    }


def environment(trainer: Trainer) -> dict[str, Any]:
    """Where, when and with what a run was made."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [without_userinfo(word) for word in sys.argv],
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
