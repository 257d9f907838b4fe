"""What W&B is given of a run beside Lightning's metrics; all of it is in the run folder as well.

==================  ==============================================  ==============================
in W&B              content                                         in the run folder
==================  ==============================================  ==============================
config              resolved config, commit, device, versions       ``config.yaml``, ``metrics.json``
``test/*``          the exact scores, in the summary                ``metrics.json``
``videos``          table: scores of each video                     ``videos.csv``
``classes``         table: scores of each class                     ``metrics.json``
``stages/<video>``  coarse, refined and final masks side by side    ``stages/<video>.mp4``
``time/*``          seconds a frame by stage                        ``timing.json``
``memory/*``        peak memory in MiB                              ``timing.json``
==================  ==============================================  ==============================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from zsvss.callbacks.prediction_writer import source_facts
from zsvss.callbacks.result_writer import environment
from zsvss.data.datamodule import datamodule
from zsvss.metrics import class_table, video_table
from zsvss.results.atomic_files import file_stem
from zsvss.results.media import STAGES, VideoMedia, read_media
from zsvss.results.segment_colors import UInt8
from zsvss.viz.browser_video import BrowserVideo
from zsvss.viz.overlay import overlay

_GAP = 4


class WandbRecord(Callback):
    """Logs config, tables, videos, times and memory to every `WandbLogger` of the run.

    Must come after the callbacks that write the run folder. The videos are those that `MediaStore` keeps.

    Args:
        settings: the resolved config.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the settings before anything else, so that a run that is cut short has them too."""
        if not trainer.is_global_zero:
            return
        for run in wandb_runs(trainer):
            run.config.update({**self.settings, "run": environment(trainer)}, allow_val_change=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the results."""
        module: Any = pl_module
        runs = wandb_runs(trainer)
        if not trainer.is_global_zero or not runs or not module.results:
            return
        content = self._tables(trainer, module) | measured(Path(trainer.default_root_dir))
        videos = list(stage_videos(trainer))
        for run in runs:
            run.log(content | {f"stages/{name}": _video(path) for name, path in videos})
            run.summary.update(module.numbers)  # Lightning's are rounded to single precision

    def _tables(self, trainer: Trainer, module: Any) -> dict[str, Any]:
        taxonomy = datamodule(trainer).taxonomy
        classes = [asdict(row) for row in class_table(module.results, taxonomy.classes)]
        return {"videos": _table(video_table(module.results)), "classes": _table(classes)}


def wandb_runs(trainer: Trainer) -> list[Any]:
    """The runs of the trainer's `WandbLogger`s."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def measured(folder: Path) -> dict[str, float]:
    """Times and memory of ``timing.json``; empty where every video was finished by an earlier start."""
    try:
        timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    seconds = {f"time/{stage}": value for stage, value in timing["seconds_per_frame"].items()}
    memory = {f"memory/{where}": value for where, value in timing["peak_memory_mib"].items()}
    return {**seconds, **memory, "time/frames_per_second": timing["frames_per_second"]}


def stage_videos(trainer: Trainer) -> Iterator[tuple[str, Path]]:
    """Name and file of each kept video, written into the run folder."""
    folder = Path(trainer.default_root_dir)
    for media in read_media(folder):
        path = folder / "stages" / f"{file_stem(media.video)}.mp4"
        path.parent.mkdir(exist_ok=True)
        with BrowserVideo(path, source=source_facts(trainer, media.video)) as video:
            for number in range(media.num_frames):
                video.write(side_by_side(media, number))
        yield media.video, path


def side_by_side(media: VideoMedia, number: int) -> UInt8:
    """A frame three times: with the coarse, the refined and the final mask, uint8 RGB ``[H, 3 W + gaps, 3]``."""
    frame_HW3 = media.frame(number)
    panels: list[UInt8] = []
    for stage in STAGES:
        labels_HW = enlarged(media.labels(stage, number), (frame_HW3.shape[0], frame_HW3.shape[1]))
        panels += [overlay(frame_HW3, labels_HW, media.colors), np.full((len(frame_HW3), _GAP, 3), 255, np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def enlarged(labels_hw: Any, size: tuple[int, int]) -> Any:
    """Every pixel takes the label of the token cell that it lies in."""
    y, x = (np.arange(side) * cells // side for side, cells in zip(size, labels_hw.shape, strict=True))
    return labels_hw[y[:, None], x]


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _video(path: Path) -> Any:
    import wandb

    return wandb.Video(str(path), format="mp4")
