"""Whole runs with a network too small to be any good, on generated videos: what the tests of several modules start."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

CONFIG = """\
model: {backbone: Embedded, context: {num_clusters: 2}, modulation: null, input_size: [64, 128], windows: [2]}
data:
  class_path: ProceduralVideos
  init_args: {num_videos: 2, num_frames: 3, height: 64, width: 128, clip_length: 3, num_workers: 0}
trainer: {accelerator: cpu, devices: 1, enable_progress_bar: false}
"""
"""Of the command line, with the backbone that ships with the package; seconds a run."""


def quiet_trainer(folder: Path, callbacks: Sequence[Callback] = (), **settings: Any) -> Trainer:
    """A trainer on one CPU that says and writes nothing but what the callbacks do."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    defaults: dict[str, Any] = {"accelerator": "cpu", "devices": 1}
    return Trainer(
        **defaults | settings,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )
