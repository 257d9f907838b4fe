"""Lightning's hooks as this package uses them: a batch is a clip, and ``test`` and ``predict`` are alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from zsvss.data.clip import Clip


class ClipCallback(Callback, ABC):
    """A callback that is told of every clip."""

    @abstractmethod
    def on_clip_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], clip: Clip) -> None:
        """Do something with what the module's step returned for a clip; ``trainer.testing`` tells test from predict."""

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Clip,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Call `on_clip_end`, unless the clip is of a video that failed."""
        if outputs:
            self.on_clip_end(trainer, pl_module, outputs, batch)

    on_predict_batch_end = on_test_batch_end


def callbacks(trainer: Trainer) -> list[Callback]:
    """The run's callbacks, which Lightning attaches to the trainer without declaring them."""
    lightnings: Any = trainer
    attached: list[Callback] = lightnings.callbacks
    return attached
