"""Progress in frames: a bar with frames per second and the time left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomBarColumn
from rich.progress import ProgressColumn, Task, TextColumn
from rich.text import Text
from torch import Tensor

from zsvss.callbacks.clips import ClipCallback
from zsvss.data.clip import Clip


class FrameProgressBar(ClipCallback, RichProgressBar):
    """Lightning's Rich bar, counting the frames that are done instead of batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4, leave=False)
        self._num_done = 0

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Description, bar, frames, speed and time left."""
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} frames"),
            _SpeedColumn(),
            _TimeLeftColumn(),
        ]

    @property
    def total_test_batches_current_dataloader(self) -> int:
        """Frames of this process's share of the test videos."""
        return _num_frames(self.trainer.test_dataloaders)

    @property
    def total_predict_batches_current_dataloader(self) -> int:
        """Frames of this process's share of the videos to predict."""
        return _num_frames(self.trainer.predict_dataloaders)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Clip, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the video beside the bar."""
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._describe(self.test_progress_bar_id, batch)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Clip, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the video beside the bar."""
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        self._describe(self.predict_progress_bar_id, batch)

    def on_clip_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Tensor], clip: Clip
    ) -> None:
        """Count the clip's final frames."""
        self._num_done += clip.num_final
        task_id = self.test_progress_bar_id if trainer.testing else self.predict_progress_bar_id
        if not self.is_disabled and task_id is not None:
            self._update(task_id, self._num_done)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the results are printed."""
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before anything is printed."""
        super().on_predict_end(trainer, pl_module)
        self._stop_progress()

    def _describe(self, task_id: Any, clip: Clip) -> None:
        if self.progress is not None and task_id is not None:
            self.progress.update(task_id, description=clip.video)


class _SpeedColumn(ProgressColumn):
    """Frames per second since the start: clips are too few for the speed of the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:.2f} frames/s" if task.elapsed and task.completed else "")


class _TimeLeftColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if not task.elapsed or not task.completed or not task.total:
            return Text("")
        seconds = task.elapsed * (task.total - task.completed) / task.completed
        return Text(f"{timedelta(seconds=round(seconds))} left")


def _num_frames(loader: Any) -> int:
    return sum(planned.num_final for planned in loader.plan)
