"""Deletes the folder of a run that recorded nothing, and says at Ctrl-C what is kept."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only


class RunFolder(Callback):
    """Knows what of a run's folder was there before, and whether a video was begun.

    Args:
        path: the folder.
        task: ``test`` or ``predict``.
    """

    def __init__(self, path: Path, task: str) -> None:
        self.path, self.task = path, task
        self.begun = self.is_live = False
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note that a video was begun."""
        self.begun = True
        self.is_live = getattr(batch, "received", None) is not None

    on_predict_batch_start = on_test_batch_start

    def withdraw(self) -> None:
        """Remove what the run has made of its folder, if it began no video and recorded nothing."""
        recorded = any(any(self.path.glob(f"records/*/{name}")) for name in ("videos/*.json", "failures.json"))
        is_first_process = getattr(rank_zero_only, "rank", 0) == 0
        if self.begun or recorded or self.path not in self._made or not is_first_process:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made[1:]:
            with contextlib.suppress(OSError):  # of a folder that somebody else uses by now
                folder.rmdir()

    def kept(self) -> str:
        """What a run that is stopped now leaves, and how to go on, in one sentence."""
        records = self.path / "records" / self.task
        finished = len(list((records / "videos").glob("*.json")))
        if not finished and not self.begun:
            return "stopped before the first video: nothing was computed; start the same command again"
        if self.is_live:
            return f"stopped: {self.path} holds what was segmented of the stream"
        if not finished:
            goes_on = "goes on there" if any((records / "midway").glob("*.pt")) else "computes it anew"
            return (
                f"stopped before the first video was finished: {self.path} holds a part of it; the same command "
                f"{goes_on}"
            )
        of = ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((records / "run.json").read_text(encoding="utf-8"))["facts"]
            of = f" of {len(facts['videos'])}"
        return (
            f"stopped: {finished}{of} videos finished and kept in {self.path}; the same command resumes with the others"
        )
