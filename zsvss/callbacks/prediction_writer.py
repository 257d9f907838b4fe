"""What a run predicts, on disk: index PNGs, an overlay video and the list of segments, written clip by clip.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from zsvss.callbacks.clips import ClipCallback
from zsvss.data.clip import Clip
from zsvss.data.datamodule import datamodule
from zsvss.data.facts import VideoFacts
from zsvss.results.files import check_folder, write_atomically
from zsvss.results.palette import VOID_ID, UInt8, class_colors, palette, write_id_png
from zsvss.viz.browser_video import BrowserVideo
from zsvss.viz.overlay import overlay

Labels = npt.NDArray[np.integer[Any]]
_CLIPS_AHEAD = 2


class PredictionWriter(ClipCallback):
    """Writes the final frames of every clip below ``<folder>/<video>/``; memory does not grow with the pixels.

    A thread writes while the next clips are computed; at the end of a video everything of it is on disk.

    ``masks/<frame>.png`` holds the ids in palette mode (255: no label), ``overlay.mp4`` plays in a browser, and
    ``segments.json`` lists each segment's id, colour, first and last frame and its area in every frame, and says with
    ``complete`` whether it is of the whole video, or of the first frames of one that was interrupted. A frame with an
    id above 254, as novelty opens them beside class ids, is a 16-bit grey PNG (65535: no label).

    Args:
        folder: where to write; ``None`` means ``predictions`` in the run folder.
        in_test: write predictions in ``test`` as well, not only in ``predict``.
        masks: write the index PNGs.
        video: write the overlay video.
        fps: frames per second of the overlay; ``None`` shows every frame when the source does, or 15 a second where
            the source has no times.
        alpha: weight of the segments' colours in the overlay, 0..1.
    """

    def __init__(
        self,
        folder: str | None = None,
        in_test: bool = False,
        masks: bool = True,
        video: bool = True,
        fps: float | None = None,
        alpha: float = 0.5,
    ) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"fps is {fps}; it must be above 0")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; allowed is 0 (frame alone) to 1 (segments alone)")
        self.folder = Path(folder) if folder is not None else None
        self.in_test = in_test
        self.masks, self.video, self.fps, self.alpha = masks, video, fps, alpha
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
            assert self.folder is not None
            self._open = VideoPredictions(
                self.folder / safe_folder(clip.video),
                clip.video,
                video_length=clip.video_length,
                masks=self.masks,
                video=self.video,
                fps=self.fps,
                source=source_facts(trainer, clip.video),
                alpha=self.alpha,
                colors=_colors(trainer),
            )
        labels_THW: Tensor = outputs["labels"]
        frames_THW3 = clip.frames_THW3[: clip.num_final]
        arrays = frames_THW3.cpu().numpy(), labels_THW.cpu().numpy()
        self._wait(leave=_CLIPS_AHEAD)
        self._pending.append(self._thread.submit(self._open.write, *arrays, clip.frame_names[: clip.num_final]))
        if clip.is_last:
            self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finish a video that was cut short."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish the video that was being written, so that what is there can be looked at."""
        with suppress(Exception):  # the exception that stops the run is the one to be told
            self._close()

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            try:
                self._wait()
            finally:
                opened.close()

    def _wait(self, leave: int = 0) -> None:
        """Wait until at most so many clips are still to be written; raises what went wrong in the thread."""
        while len(self._pending) > leave:
            self._pending.popleft().result()


class VideoPredictions:
    """The predictions of one video, written frame by frame.

    Args:
        folder: where to write.
        name: the video's name.
        video_length: how many frames it has; ``None`` if as many as are written.
        masks: write the index PNGs.
        video: write the overlay video.
        fps: frames per second of the overlay; ``None`` takes the times of ``source``, or 15 where it has none.
        source: what is known of the video file whose frames these are.
        alpha: weight of the segments' colours in the overlay.
        colors: uint8 RGB of each id, ``[any, 3]``; by default `palette`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        video_length: int | None = None,
        masks: bool = True,
        video: bool = True,
        fps: float | None = None,
        source: VideoFacts | None = None,
        alpha: float = 0.5,
        colors: UInt8 | None = None,
    ) -> None:
        self.folder, self.name, self.video_length, self.alpha = folder, name, video_length, alpha
        self.colors: UInt8 = palette(VOID_ID) if colors is None else colors
        self.masks = masks
        (folder / "masks" if masks else folder).mkdir(parents=True, exist_ok=True)
        (folder / "segments.json").unlink(missing_ok=True)  # written last, it says that the others are whole
        self._movie = BrowserVideo(folder / "overlay.mp4", fps, source) if video else None
        self._frame_names: list[str] = []
        self._areas: dict[int, dict[int, int]] = {}
        self._size: tuple[int, int] | None = None

    def write(self, frames_THW3: UInt8, labels_THW: Labels, names: Sequence[str]) -> None:
        """Write the video's next frames.

        Args:
            frames_THW3: uint8 RGB.
            labels_THW: ids, negative where there is none, at the frames' size.
            names: the frames' names.
        """
        for frame_HW3, labels_HW, name in zip(frames_THW3, labels_THW, names, strict=True):
            self._size = (labels_HW.shape[0], labels_HW.shape[1])
            if self.masks:
                write_id_png(self.folder / "masks" / f"{name}.png", labels_HW, self.colors)
            if self._movie is not None:
                self._movie.write(overlay(frame_HW3, labels_HW, self.colors, self.alpha))
            for segment, area in zip(*np.unique(labels_HW, return_counts=True), strict=True):
                if segment >= 0:
                    self._areas.setdefault(int(segment), {})[len(self._frame_names)] = int(area)
            self._frame_names.append(name)

    def close(self) -> None:
        """Finish the overlay and write the list of segments."""
        if self._movie is not None:
            self._movie.close()
        write_atomically(self.folder / "segments.json", json.dumps(self.segments()) + "\n")

    def segments(self) -> dict[str, Any]:
        """The content of ``segments.json``; frames are counted from 0, areas are pixels.

        ``overlay_alpha`` is the weight of the colours in the overlay video, null without one.
        """
        num_frames = len(self._frame_names)
        height, width = self._size or (0, 0)
        return {
            "video": self.name,
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "complete": self.video_length in (None, num_frames),
            "video_length": self.video_length or num_frames,
            "overlay_alpha": None if self._movie is None else self.alpha,
            "frame_names": self._frame_names,
            "segments": [
                {
                    "id": segment,
                    "color": self.colors[segment % len(self.colors)].tolist(),
                    "first_frame": min(areas),
                    "last_frame": max(areas),
                    "num_frames": len(areas),
                    "area": [areas.get(frame, 0) for frame in range(num_frames)],
                }
                for segment, areas in sorted(self._areas.items())
            ],
        }


def safe_folder(video: str) -> PurePosixPath:
    """Relative folder for a video's name, which may hold slashes but cannot lead out of the run folder.

    >>> str(safe_folder("frankfurt/000001")), str(safe_folder("../../etc")), str(safe_folder("/a"))
    ('frankfurt/000001', 'etc', 'a')
    """
    parts = [part for part in PurePosixPath(video).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts or ["video"])


def source_facts(trainer: Trainer, video: str) -> VideoFacts | None:
    """What is known of a video file of the run; ``None`` for images and generated videos."""
    return next((entry.source for entry in datamodule(trainer).videos() if entry.name == video), None)


def _colors(trainer: Trainer) -> UInt8 | None:
    """The benchmark's colours in ``test`` where predictions are class ids; ids of clusters have none."""
    module: Any = trainer.lightning_module
    taxonomy = getattr(getattr(trainer, "datamodule", None), "taxonomy", None)
    if trainer.testing and taxonomy is not None and module.naming.ground_truth_in_method:
        return class_colors(taxonomy.palette)
    return None
