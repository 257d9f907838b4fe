"""The resume rule: records each finished video, and finds at the next start which videos are already done."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from zsvss.backbones.base import Backbone
from zsvss.callbacks.clip_callback import ClipCallback, callbacks
from zsvss.callbacks.media import media_store
from zsvss.callbacks.prediction_writer import PredictionWriter
from zsvss.callbacks.result_writer import run_facts
from zsvss.callbacks.unfinished_videos import MidwayFolder
from zsvss.data.clip import Clip
from zsvss.data.datamodule import datamodule
from zsvss.data.video import UNKNOWN_LENGTH, Video
from zsvss.metrics import VideoResult
from zsvss.results.atomic_files import safe_folder
from zsvss.results.fingerprint import device_facts, digest, is_source, run_fingerprint, video_source
from zsvss.results.predictions import FILE, VERSION, PredictionsError, read_json
from zsvss.results.records import RecordFolder

_log = logging.getLogger(__name__)


class ResultStore(ClipCallback):
    """Records every finished video in ``<run folder>/records/<task>``, and leaves out those recorded already.

    A video that cannot be read does not stop the run: it is recorded with its error, and tried again by the next
    start. Must come after `PredictionWriter` and `MediaStore` in the list of callbacks, so that a record means that
    predictions and media are on disk as well, and before whatever else writes into the run folder, so that a folder of
    another run stays as it is.

    Args:
        settings: the resolved config.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._records: RecordFolder | None = None
        self._digest = ""
        self._stored: list[VideoResult] = []
        self._source = self._current = ""
        self._midway: MidwayFolder | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the run folder, check that its records are of this run, and leave out the videos they cover.

        Raises:
            ValueError: the folder is in use, or holds results of another run.
        """
        data = datamodule(trainer)
        data.skip_unreadable = True
        task = "test" if stage == "test" else "predict"  # Lightning's is an enum of strings
        if (writer := _prediction_writer(trainer, task)) is not None:
            parts = {key: self.settings[key] for key in ("model", "data") if key in self.settings}
            writer.settings = {**parts, "precision": str(trainer.precision)}
            writer.keeps_lines = task == "predict"
        self._records = RecordFolder(Path(trainer.default_root_dir) / "records" / task)
        devices = device_facts(trainer.strategy.root_device)
        self._midway = MidwayFolder(self._records.folder / "midway") if task == "predict" else None
        opened: tuple[str, list[str], list[str]] | Exception | None = None
        if trainer.is_global_zero:
            try:
                opened = self._open(self._records, trainer, pl_module, task, devices)
            except (ValueError, OSError) as error:
                opened = error
        # All processes go on with the same list, or none of them does.
        opened = trainer.strategy.broadcast(opened)
        assert opened is not None
        if isinstance(opened, Exception):
            raise opened if trainer.is_global_zero else SystemExit(1)
        if not trainer.is_global_zero:
            self._records.join(trainer.global_rank)
        self._digest, data.finished, left = opened
        self._go_on(left, trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the videos of earlier starts in."""
        module: Any = pl_module
        module.results += self._stored

    def on_clip_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Tensor], clip: Clip
    ) -> None:
        """Record the video if this was its last clip."""
        if clip.video != self._current:  # not before: hashing the masks of a whole benchmark would delay the start
            self._current, self._source = clip.video, self._source_of(trainer, clip.video)
        if not clip.is_last:
            self._keep_midway(trainer, pl_module, clip)
            return
        content: dict[str, Any] = {"num_frames": clip.video_length}
        if trainer.testing:
            module: Any = pl_module
            result: VideoResult = module.results[-1]
            assert result.name == clip.video
            content = {"result": result.to_dict()}
        self._write(clip, content)
        if self._midway is not None:
            self._midway.forget(clip.video)
            if (writer := _prediction_writer(trainer, "predict")) is not None:
                writer.forget_lines(clip.video)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the failures."""
        if trainer.is_global_zero and self._records is not None:
            module: Any = pl_module
            self._records.write_failures(module.failures)

    on_predict_end = on_test_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other processes have the run folder."""
        if self._records is not None:
            self._records.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let other processes have the run folder."""
        self.teardown(trainer, pl_module, "")

    def _open(
        self,
        records: RecordFolder,
        trainer: Trainer,
        pl_module: LightningModule,
        task: str,
        devices: Mapping[str, Any],
    ) -> tuple[str, list[str], list[str]]:
        """Digest of the fingerprint, names of the finished videos, and of those that were left in their midst."""
        module: Any = pl_module
        data = datamodule(trainer)
        backbone: Backbone = module.backbone
        if type(backbone).fingerprint is Backbone.fingerprint:
            backbone.load()  # hashes what is in memory
        backbone.check()
        fingerprint = run_fingerprint(task, self.settings, data, backbone, str(trainer.precision), devices)
        records.open(fingerprint, run_facts(trainer, module))
        found, damaged = records.read()
        for name, reason in damaged.items():
            _log.warning("record %s: %s; the video is computed again", records.videos / name, reason)
        writer = _prediction_writer(trainer, task)
        media = media_store(callbacks(trainer))
        finished = []
        for video in data.videos():
            if video.name in found and not is_source(found[video.name]["source"], video):
                _log.warning("%s has changed since it was recorded; it is computed again", video.name)
                records.path(video.name).unlink()
            elif (
                video.name in found
                and _has_predictions(writer, trainer, video)
                and (media is None or media.holds(video))
            ):
                finished.append(video.name)
        if task == "test":
            self._stored = [VideoResult.from_dict(found[name]["result"]) for name in finished]
        if finished:
            _log.info("%d of %d videos were finished by an earlier start", len(finished), len(data.videos()))
        return digest(fingerprint), finished, self._left(digest(fingerprint), finished, trainer)

    def _left(self, run: str, finished: Sequence[str], trainer: Trainer) -> list[str]:
        """Videos that can be gone on with in their midst."""
        writer = _prediction_writer(trainer, "predict")
        if self._midway is None or writer is None:
            return []
        media = media_store(callbacks(trainer))
        left = []
        for video in datamodule(trainer).videos():
            state = None if video.name in finished or video.is_live else self._midway.read(video.name)
            if state is None or state["run"] != run or not is_source(state["source"], video):
                continue
            # Media of a video that was cut short are not there any more.
            if writer.can_go_on(video.name, state["written"]) and (media is None or media.holds(video)):
                left.append(video.name)
        return left

    def _go_on(self, left: Sequence[str], trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand out what it takes to go on with videos in their midst."""
        module: Any = pl_module
        writer = _prediction_writer(trainer, "predict")
        places = {}
        for name in left:
            assert self._midway is not None
            state = self._midway.read(name)
            if state is None or writer is None:
                continue
            places[name], module.left[name], writer.left[name] = state["place"], state["segmenter"], state["written"]
            _log.info("%s goes on at frame %d", name, state["written"]["num_frames"])
        datamodule(trainer).places = places

    def _keep_midway(self, trainer: Trainer, pl_module: LightningModule, clip: Clip) -> None:
        """Let a later start go on after a clip, once it is written."""
        module: Any = pl_module
        writer = _prediction_writer(trainer, "predict")
        if self._midway is None or clip.place is None or writer is None:
            return
        state = {
            "run": self._digest,
            "source": self._source,
            "place": clip.place,
            "segmenter": _on_cpu(module.segmenter.state()),
        }
        midway = self._midway
        writer.afterwards(lambda written: midway.save(clip.video, {**state, "written": written}))

    @staticmethod
    def _source_of(trainer: Trainer, name: str) -> str:
        return video_source(next(video for video in datamodule(trainer).videos() if video.name == name))

    def _write(self, clip: Clip, content: Mapping[str, Any]) -> None:
        assert self._records is not None
        self._records.write(clip.video, self._digest, {"source": self._source, **content})


def _on_cpu(state: Any) -> Any:
    """Named tuples with their tensors on the CPU; what is there twice is copied once, and saved once."""
    copies: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.cpu()
        return copies[id(tensor)]

    return apply_to_collection(state, Tensor, copied)


def _prediction_writer(trainer: Trainer, task: str) -> PredictionWriter | None:
    """What writes this run's predictions; ``None`` if nothing does."""
    writers = [callback for callback in callbacks(trainer) if isinstance(callback, PredictionWriter)]
    return None if not writers or (task == "test" and not writers[0].in_test) else writers[0]


def _has_predictions(writer: PredictionWriter | None, trainer: Trainer, video: Video) -> bool:
    """Whether everything that is wanted of a video is there, of all its frames."""
    if writer is None:
        return True
    folder = (writer.folder or Path(trainer.default_root_dir) / "predictions") / safe_folder(video.name)
    try:
        segments = read_json(folder / FILE)
    except PredictionsError:
        return False
    if segments.get("version") != VERSION:
        _log.warning("predictions of %s are of another version of zsvss; the video is computed again", video.name)
        return False
    num_frames = segments["num_frames"] if video.num_frames == UNKNOWN_LENGTH else video.num_frames
    masks = len(list((folder / "masks").glob("*.png"))) if writer.masks else num_frames
    overlay = not writer.video or (folder / "overlay.mp4").is_file()
    alpha = segments.get("overlay_alpha")
    if writer.video and overlay and alpha not in (None, writer.alpha):
        _log.warning(
            "predictions.alpha is %g, but the overlay of %s, finished by an earlier start, was drawn with %g and stays "
            "as it is; to compute the video anew, delete %s",
            writer.alpha, video.name, alpha, folder,
        )  # fmt: skip
    return bool(segments["complete"] and segments["num_frames"] == num_frames == masks and overlay)
