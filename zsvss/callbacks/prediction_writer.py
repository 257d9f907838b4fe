"""What a run predicts, on disk: index PNGs, an overlay video and the list of segments, written clip by clip.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zsvss.callbacks.clip_callback import ClipCallback
from zsvss.callbacks.video_predictions import Meaning, Origin, VideoPredictions, kind_of
from zsvss.data.clip import Clip
from zsvss.data.datamodule import datamodule
from zsvss.data.video import FileVideo
from zsvss.data.video_facts import VideoFacts
from zsvss.results.atomic_files import check_folder, safe_folder
from zsvss.results.predictions import LINES, PredictedClass
from zsvss.results.segment_colors import class_colors
from zsvss.viz.browser_video import num_whole_frames

_CLIPS_AHEAD = 2


class PredictionWriter(ClipCallback):
    """Writes the final frames of every clip below ``<folder>/<video>/``; memory does not grow with the pixels.

    A thread writes while the next clips are computed; at the end of a video everything of it is on disk.

    ``masks/<frame>.png`` holds the ids in palette mode, from 1; 0 is no segment. ``overlay.mp4`` plays in a browser.
    ``segments.json`` lists frames, times and segments, and says with ``complete`` whether it is of the whole video, or
    of the first frames of one that was interrupted; `zsvss.results.predictions` reads it back. A frame with an id above
    255, as novelty opens them beside class ids, is a 16-bit grey PNG.

    Args:
        folder: where to write; ``None`` means ``predictions`` in the run folder.
        in_test: write predictions in ``test`` as well, not only in ``predict``.
        masks: write the index PNGs.
        video: write the overlay video.
        captions: write the segments' ids into the overlay, and a legend below its frames.
        fps: frames per second of the overlay; ``None`` shows every frame when the source does, or 15 a second where
            the source has no times. Of a stream too, whose own times are shown otherwise.
        alpha: weight of the segments' colours in the overlay, 0..1.
    """

    def __init__(
        self,
        folder: str | None = None,
        in_test: bool = False,
        masks: bool = True,
        video: bool = True,
        captions: bool = True,
        fps: float | None = None,
        alpha: float = 0.5,
    ) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"fps is {fps}; it must be above 0")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; allowed is 0 (frame alone) to 1 (segments alone)")
        self.folder = Path(folder) if folder is not None else None
        self.in_test = in_test
        self.masks, self.video, self.captions, self.fps, self.alpha = masks, video, captions, fps, alpha
        self.settings: Mapping[str, Any] = {}
        """The run's settings, which ``segments.json`` repeats; whoever knows them sets them before the first clip."""
        self.left: dict[str, Mapping[str, Any]] = {}
        """What was written of videos that an earlier start left in their midst, by name."""
        self.keeps_lines = False
        """Whether somebody else calls `forget_lines` when it is sure that a video is finished."""
        self._open: VideoPredictions | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predictions")
        self._pending: deque[Future[None]] = deque()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder."""
        self.folder = self.folder or Path(trainer.default_root_dir) / "predictions"
        check_folder(self.folder, "predictions.folder")

    def on_clip_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Tensor], clip: Clip
    ) -> None:
        """Write the clip's final frames, in ``test`` if wanted."""
        if trainer.testing and not self.in_test:
            return
        if self._open is None or clip.is_first:
            self._close()
            self._open = self._begin(trainer, clip)
        labels_THW: Tensor = outputs["labels"]
        frames_THW3 = clip.frames_THW3[: clip.num_final]
        arrays = frames_THW3.cpu().numpy(), labels_THW.cpu().numpy()
        self._wait(leave=2 * _CLIPS_AHEAD)  # each with what is to be done after it
        names, times = clip.frame_names[: clip.num_final], clip.times and clip.times[: clip.num_final]
        self._pending.append(self._thread.submit(self._open.write, *arrays, names, clip.shot, times))
        if clip.is_last:
            self._close(_names(trainer, clip))

    def can_go_on(self, video: str, written: Mapping[str, Any]) -> bool:
        """Whether what an earlier start has written of a video is there, and as this one would write it."""
        assert self.folder is not None
        folder = self.folder / safe_folder(video)
        num_frames = int(written["num_frames"])
        if written["settings"] != kind_of(self.masks, self.video, self.captions, self.alpha):
            return False
        if self.video and num_whole_frames(folder / "overlay.mp4") < num_frames - 1:
            return False
        if self.masks and sum(1 for _ in (folder / "masks").glob("*.png")) < num_frames:
            return False
        try:
            with (folder / LINES).open("rb") as file:
                return sum(1 for _ in file) >= num_frames
        except OSError:
            return False

    def forget_lines(self, video: str) -> None:
        """Remove what only a start that goes on in the midst of a video needs."""
        assert self.folder is not None
        (self.folder / safe_folder(video) / LINES).unlink(missing_ok=True)

    def afterwards(self, function: Callable[[Mapping[str, Any]], None]) -> None:
        """Call a function with the state of the open video when the clips so far are written."""
        opened = self._open
        assert opened is not None
        self._pending.append(self._thread.submit(lambda: function(opened.state())))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finish a video that was cut short."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the video that was being written, so that what is there can be looked at."""
        with suppress(Exception):  # the exception that stops the run is the one to be told
            self._close()

    def _begin(self, trainer: Trainer, clip: Clip) -> VideoPredictions:
        assert self.folder is not None
        predictions = VideoPredictions(
            self.folder / safe_folder(clip.video),
            clip.video,
            origin=_origin(trainer, clip),
            meaning=_meaning(trainer),
            settings=self.settings,
            masks=self.masks,
            video=self.video,
            captions=self.captions,
            fps=self.fps,
            alpha=self.alpha,
        )
        if not clip.is_first and clip.video in self.left:
            predictions.resume(self.left.pop(clip.video))
        return predictions

    def _close(self, names: Mapping[int, int] | None = None) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            try:
                self._wait()
            finally:
                opened.close(names, keep_lines=self.keeps_lines)

    def _wait(self, leave: int = 0) -> None:
        """Wait until at most so many clips are still to be written; raises what went wrong in the thread."""
        while len(self._pending) > leave:
            self._pending.popleft().result()


def source_facts(trainer: Trainer, video: str) -> VideoFacts | None:
    """What is known of a video file of the run; ``None`` for images and generated videos."""
    return next((entry.source for entry in datamodule(trainer).videos() if entry.name == video), None)


def _origin(trainer: Trainer, clip: Clip) -> Origin:
    """Where the frames of a clip's video come from."""
    video = next((entry for entry in datamodule(trainer).videos() if entry.name == clip.video), None)
    if video is not None and video.is_live:
        return Origin(None, video.path)
    if not isinstance(video, FileVideo):
        return Origin(clip.video_length)
    files = None if isinstance(video.frames, Path) else tuple(path.name for path in video.frames)
    return Origin(clip.video_length, os.path.abspath(video.path), files, video.source)


def _meaning(trainer: Trainer) -> Meaning:
    """What the labels of the run are: classes in ``test`` where the method is given them, otherwise clusters."""
    module: Any = trainer.lightning_module
    taxonomy = getattr(getattr(trainer, "datamodule", None), "taxonomy", None)
    if not trainer.testing or taxonomy is None:
        return Meaning()
    raw = {class_id: value for value, class_id in sorted(taxonomy.class_of_raw.items(), reverse=True)}
    classes = tuple(
        PredictedClass(class_id, name, color, raw.get(class_id, class_id))
        for class_id, (name, color) in enumerate(zip(taxonomy.classes, taxonomy.palette, strict=True))
    )
    if module.naming.ground_truth_in_method:
        return Meaning(taxonomy.name, classes, are_classes=True, colors=class_colors(taxonomy.palette))
    return Meaning(taxonomy.name, classes)


def _names(trainer: Trainer, clip: Clip) -> dict[int, int]:
    """Class ids of the clusters of the video that has just been scored, where they were named after the run."""
    module: Any = trainer.lightning_module
    results = module.results if trainer.testing else []
    return dict(results[-1].names) if results and results[-1].name == clip.video else {}
