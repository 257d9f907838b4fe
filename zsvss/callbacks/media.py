"""What reports and trackers show of a few videos, stored while they are segmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from zsvss.callbacks.clip_callback import ClipCallback
from zsvss.data.clip import Clip
from zsvss.data.datamodule import datamodule
from zsvss.data.video import Video
from zsvss.results.media import MediaWriter, VideoMedia, chosen_videos, media_folder


class MediaStore(ClipCallback):
    """Keeps frames, ground truth and the labels after each stage of a few videos in ``<run folder>/media``.

    `zsvss.results.media` documents the files and reads them back. Must come before `ResultStore` in the list of
    callbacks, so that a record means that the media are on disk as well.

    Args:
        videos: how many, spread evenly over the data set, or which by name; 0 keeps none.
        num_frames: of each only the first so many.
        max_side: longest side in pixels; larger frames are scaled down.
        in_predict: keep media in ``predict`` as well, not only in ``test``.
    """

    def __init__(
        self, videos: int | list[str] = 3, num_frames: int = 100, max_side: int = 960, in_predict: bool = False
    ) -> None:
        if isinstance(videos, int) and videos < 0:
            raise ValueError(f"media.videos is {videos}; it must be a number of videos from 0, or names of videos")
        if num_frames < 1 or max_side < 16:
            raise ValueError(
                f"media.num_frames is {num_frames} and media.max_side {max_side}; they must be at least 1 and 16"
            )
        self.videos, self.num_frames, self.max_side, self.in_predict = videos, num_frames, max_side, in_predict
        self._chosen: list[str] = []
        self._root = Path()
        self._task = ""
        self._open: MediaWriter | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the videos."""
        data = datamodule(trainer)
        self._root, self._task = Path(trainer.default_root_dir), "test" if stage == "test" else "predict"
        if self._task == "test" or self.in_predict:
            self._chosen = chosen_videos([video.name for video in data.videos()], self.videos)

    def holds(self, video: Video) -> bool:
        """Whether everything that is wanted of a video is there."""
        if video.name not in self._chosen:
            return True
        with suppress(ValueError):
            media = VideoMedia.read(media_folder(self._root, self._task, video.name))
            return media.num_frames == min(video.num_frames, self.num_frames)
        return False

    def on_clip_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Tensor], clip: Clip
    ) -> None:
        """Write the clip's final frames, if its video is chosen."""
        if clip.is_first:
            self._discard()
            if clip.video in self._chosen:
                facts = _facts(trainer, pl_module, clip)
                self._open = MediaWriter(media_folder(self._root, self._task, clip.video), facts, self.max_side)
                if "clusters" in outputs:
                    self._open.write_clusters(*outputs["clusters"].cpu().numpy())
        if self._open is None:
            return
        self._write(self._open, trainer, clip, outputs)
        if clip.is_last:
            self._open.finish(_names(trainer, pl_module))
            self._open = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove what was written of a video that was cut short."""
        self._discard()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove what was written of a video that was cut short."""
        self._discard()

    def _write(self, writer: MediaWriter, trainer: Trainer, clip: Clip, outputs: Any) -> None:
        taxonomy = datamodule(trainer).taxonomy
        num_frames = min(clip.num_final, self.num_frames - writer.num_frames)
        labels = {"coarse": outputs["coarse"], "refined": outputs["refined"], "final": outputs["labels"]}
        arrays = {stage: labels_T[:num_frames].cpu().numpy() for stage, labels_T in labels.items()}
        for t in range(num_frames):
            ground_truth_HW = None
            if taxonomy is not None and clip.labels_THW is not None and clip.labelled_T[t]:
                ground_truth_HW = taxonomy.class_ids(clip.labels_THW[t]).cpu().numpy()
            frame_HW3 = clip.frames_THW3[t].cpu().numpy()
            writer.write(
                clip.frame_names[t], frame_HW3, ground_truth_HW, {stage: array[t] for stage, array in arrays.items()}
            )

    def _discard(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.discard()


def media_store(callbacks: Sequence[Callback]) -> MediaStore | None:
    """The `MediaStore` among the callbacks of a trainer."""
    return next((callback for callback in callbacks if isinstance(callback, MediaStore)), None)


def _facts(trainer: Trainer, pl_module: LightningModule, clip: Clip) -> dict[str, Any]:
    module: Any = pl_module
    data = datamodule(trainer)
    taxonomy = data.taxonomy
    return {
        "video": clip.video,
        "dataset": data.name,
        "video_length": clip.video_length,
        "classes": taxonomy.classes if taxonomy else (),
        "palette": taxonomy.palette if taxonomy else (),
        "labels_are_classes": bool(trainer.testing and module.naming.ground_truth_in_method),
    }


def _names(trainer: Trainer, pl_module: LightningModule) -> dict[int, int]:
    """Class ids of the clusters of the video that has just been scored."""
    module: Any = pl_module
    return dict(module.results[-1].names) if trainer.testing else {}
