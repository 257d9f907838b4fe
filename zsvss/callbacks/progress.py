"""Progress in frames: a bar that moves within a clip too, with frames per second and the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.progress import ProgressColumn, Task, TextColumn
from rich.text import Text

from zsvss.callbacks.clip_callback import ClipCallback
from zsvss.data.clip import Clip
from zsvss.progress import listening

# Shares of a clip's time before any is measured, in the order of the stages; about those of the whole method.
_USUAL_SHARES = {"encode": 0.03, "record": 0.12, "context": 0.08, "refinement": 0.02, "modulation": 0.75}


class ClipShare:
    """How much of a clip is done, from how much of its stages is; never less than before.

    Stages that are told of but not known count nothing.
    """

    def __init__(self) -> None:
        self._seconds = dict(_USUAL_SHARES)
        self.done = 0.0

    def begin(self) -> None:
        """A clip begins."""
        self.done = 0.0

    def advance(self, stage: str, share: float) -> float:
        """Note how much of a stage is done, 0..1; returns how much of the clip is, 0..1."""
        stages = list(self._seconds)
        if stage in stages:
            before = sum(self._seconds[name] for name in stages[: stages.index(stage)])
            total = sum(self._seconds.values()) or 1.0
            self.done = max(self.done, (before + share * self._seconds[stage]) / total)
        return self.done

    def learn(self, seconds: Mapping[str, float]) -> None:
        """Take the shares of the clip that was measured last; parts that are measured apart belong to the context."""
        known = {name: seconds.get(name, 0.0) for name in _USUAL_SHARES}
        known["context"] += sum(value for name, value in seconds.items() if name not in known)
        self._seconds = known


class FrameProgressBar(ClipCallback, RichProgressBar):
    """Lightning's Rich bar, counting the frames that are done instead of batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4, leave=False)
        self._num_done = 0
        self._share = ClipShare()
        self._listening = ExitStack()

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Description, bar, frames, speed and time left."""
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(),
            _FramesColumn(),
            _SpeedColumn(),
            _TimeLeftColumn(),
        ]

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """Frames of this process's share of the test videos."""
        return _num_frames(self.trainer.test_dataloaders)

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Frames of this process's share of the videos to predict."""
        return _num_frames(self.trainer.predict_dataloaders)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Clip, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the video beside the bar and follow the clip's stages."""
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._follow(self.test_progress_bar_id, batch)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Clip, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the video beside the bar and follow the clip's stages."""
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._follow(self.predict_progress_bar_id, batch)

    def on_clip_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], clip: Clip) -> None:
        """Count the clip's final frames."""
        self._listening.close()
        self._share.learn(outputs["seconds"])
        self._num_done += clip.num_final
        if clip.received is not None and self.progress is not None and self.predict_progress_bar_id is not None:
            self.progress.update(self.predict_progress_bar_id, description=lateness(clip))
        self._show(self.test_progress_bar_id if trainer.testing else self.predict_progress_bar_id, self._num_done)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the results are printed."""
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before anything is printed."""
        super().on_predict_end(trainer, pl_module)
        self._stop_progress()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Follow no more."""
        self._listening.close()
        super().on_exception(trainer, pl_module, exception)

    def _follow(self, task_id: Any, clip: Clip) -> None:
        self._listening.close()
        if self.is_disabled or self.progress is None or task_id is None:
            return
        self.progress.update(task_id, description=lateness(clip))
        self._share.begin()

        def advance(stage: str, share: float) -> None:
            self._show(task_id, self._num_done + clip.num_final * self._share.advance(stage, share))

        self._listening.enter_context(listening(advance))

    def _show(self, task_id: Any, num_done: float) -> None:
        if not self.is_disabled and self.progress is not None and task_id is not None:
            self.progress.update(task_id, completed=num_done)
            self.refresh()


def lateness(clip: Clip) -> str:
    """A video's name; of a stream also how long ago the clip's last frame came, and how many frames were left out."""
    if clip.received is None:
        return clip.video
    dropped = f", {clip.num_dropped} dropped" if clip.num_dropped else ""
    return f"{clip.video} {max(0.0, time.time() - clip.received):.1f} s late{dropped}"


class _FramesColumn(ProgressColumn):
    """Whole frames that are done; the bar beside them shows the parts."""

    def render(self, task: Task) -> Text:
        known = f"/{task.total:.0f}" if task.total and math.isfinite(task.total) else ""
        return Text(f"{int(task.completed + 1e-9)}{known} frames")


class _SpeedColumn(ProgressColumn):
    """Frames per second since the start: clips are too few for the speed of the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:.2f} frames/s" if task.elapsed and task.completed else "")


class _TimeLeftColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if not task.elapsed or not task.completed or not task.total or not math.isfinite(task.total):
            return Text("")
        seconds = task.elapsed * (task.total - task.completed) / task.completed
        return Text(f"{timedelta(seconds=round(seconds))} left")


def _num_frames(loader: Any) -> int | float:
    """Frames in all; infinitely many where that is not known, which Lightning's bar understands."""
    return math.inf if loader.num_frames is None else int(loader.num_frames)
