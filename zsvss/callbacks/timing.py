"""Where time and memory go: seconds per frame of each stage, and the peaks of the process."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from zsvss.callbacks.clip_callback import ClipCallback
from zsvss.data.clip import Clip


class StageTiming(ClipCallback):
    """Adds up the segmenter's time per stage and writes it to ``timing.json`` (of this process) in the run folder.

    Args:
        output: run folder.
    """

    def __init__(self, output: str) -> None:
        self.output = Path(output)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._num_frames = 0
        self._start = self._total = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_clip_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], clip: Clip) -> None:
        """Add the clip's times."""
        # Frames that an overlapping clip predicts again are paid for twice and counted once.
        self._num_frames += clip.num_final
        for stage, seconds in outputs["seconds"].items():
            self._seconds[stage] += seconds

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if not trainer.is_global_zero or not self._num_frames:
            return  # without a frame, everything was finished by an earlier start, whose times stay
        self._total = time.perf_counter() - self._start
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "timing.json").write_text(json.dumps(self.summary(), indent=2) + "\n")

    on_predict_start = on_test_start
    on_predict_end = on_test_end

    def summary(self) -> dict[str, Any]:
        """Frames, seconds in all, frames per second, and seconds per frame of each stage, peak memory."""
        num_frames = max(self._num_frames, 1)
        return {
            "num_frames": self._num_frames,
            "seconds": round(self._total, 3),
            "frames_per_second": round(self._num_frames / self._total, 3) if self._total else None,
            "seconds_per_frame": {stage: round(value / num_frames, 5) for stage, value in self._seconds.items()},
            "peak_memory_mib": peak_memory(),
        }


def peak_memory() -> dict[str, float]:
    """Most memory that this process has had so far, in MiB: its own and, if it has one, on its GPU."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    peaks = {"process": round(kilobytes / 1024, 1)}
    if torch.cuda.is_available():
        peaks["gpu"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peaks
