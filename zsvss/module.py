"""The method as a LightningModule: no optimizer, only test and predict steps around the segmenter.

Shapes: T frames, H W pixels, h w tokens.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule
from torch import Tensor, distributed

from zsvss.backbones.base import Backbone
from zsvss.backbones.embedded import Embedded
from zsvss.data.clip import Clip
from zsvss.data.datamodule import VideoDataModule, datamodule
from zsvss.data.taxonomy import IGNORE_INDEX
from zsvss.gathering import patient_group
from zsvss.metrics import (
    ClusterNaming,
    ConsistencyProtocol,
    FirstFrameNaming,
    GivenFirstFrameNaming,
    ObjectProtocol,
    VideoConsistency,
    VideoEvaluator,
    VideoResult,
    fold_results,
    gather_results,
    headline_scores,
    video_table,
)
from zsvss.metrics.consistency import ground_truth, tell_scored_zero
from zsvss.metrics.objects import check_protocol
from zsvss.results.summary import percent
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import SceneContext
from zsvss.stages.features import AttentionFeatures, Features
from zsvss.stages.finiteness import NotFiniteError
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.modulation import Modulation
from zsvss.stages.nearest_resizing import nearest
from zsvss.stages.newcomers import Newcomers
from zsvss.stages.refinement import Refinement
from zsvss.stages.trace import SegmentedClip

_log = logging.getLogger(__name__)

_FIRST_FRAME_VOID = (
    "its first frame is void wherever it is sampled, so that no cluster has a class: every pixel is wrong in mIoU, and "
    "the clusters stay apart in video consistency"
)


class VideoSegmentation(LightningModule):
    """Segments videos clip by clip and, in ``test``, scores them.

    Args:
        backbone: the frozen diffusion model.
        context: scene context model (stage 1); ``None`` clusters every frame on its own.
        refinement: correspondence-based refinement (stage 2); ``None`` leaves the coarse labels as they are.
        modulation: masked modulation (stage 3); ``None`` enlarges the refined labels to the frames' size.
        features: what is clustered; ``None`` takes the paper's.
        input_size: height and width at which the backbone sees the frames; ``frames`` is the frames' own; ``None`` is
            about as many pixels as the backbone is made for, in the frames' shape, or their own where any will do.
        padding: pixels by which the backbone's input is mirrored beyond each border.
        min_region: connected regions below this share of the frame's pixels take the labels of what surrounds them.
        naming: naming protocol, how clusters get their class names in ``test``; ``predict`` needs none.
        seed: all randomness is drawn from (seed, data set, video, clip).
        windows: lengths C of the windows of video consistency.
        consistency: protocol of video consistency.
        objects: protocol of region similarity and contour accuracy, where the data set has objects.
    """

    def __init__(
        self,
        backbone: Backbone,
        context: SceneContext | None,
        refinement: Refinement | None,
        modulation: Modulation | None,
        features: Features | None = None,
        input_size: tuple[int, int] | Literal["frames"] | None = None,
        padding: int = 0,
        min_region: float = 0.0,
        naming: ClusterNaming | None = None,
        seed: int = 0,
        windows: Sequence[int] = (8, 16),
        consistency: ConsistencyProtocol = "official",
        objects: ObjectProtocol = "semi_supervised",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.segmenter = VideoSegmenter(
            backbone,
            context,
            refinement,
            modulation,
            features=features,
            input_size=input_size,
            padding=padding,
            min_region=min_region,
        )
        self.naming = naming or FirstFrameNaming()
        self.seed = seed
        VideoConsistency(windows, consistency)  # refuses what cannot be counted, before anything is read
        self.windows = tuple(windows)
        self.consistency: ConsistencyProtocol = consistency
        check_protocol(objects)
        self.objects: ObjectProtocol = objects
        self.results: list[VideoResult] = []
        self.failures: dict[str, str] = {}
        self.numbers: dict[str, float] = {}
        self.left: dict[str, Any] = {}
        """State of the segmenter for videos that an earlier start left in their midst, by name."""
        self._evaluator: VideoEvaluator | None = None
        self._video_start = 0.0
        self._patient_group: distributed.ProcessGroup | None = None

    @property
    def backbone_name(self) -> str:
        """What to write beside a result: the backbone's class and, unless they ship with it, its weights."""
        package = Path(__file__).parent
        weights = [name for name in self.backbone.weights_names if not Path(name).is_relative_to(package)]
        return type(self.backbone).__name__ + (f" ({', '.join(weights)})" if weights else "")

    @property
    def data(self) -> VideoDataModule:
        """The run's datamodule."""
        data = datamodule(self.trainer)
        if not isinstance(data, VideoDataModule):
            raise TypeError(f"{type(self).__name__} needs a VideoDataModule, got {type(data).__name__}")
        return data

    def setup(self, stage: str) -> None:
        """Read the weights; Lightning has set up and checked the data before."""
        if stage == "test" and self.naming.needs_first_frame_labels:
            for video in self.data.videos():
                if not video.begins_labelled:
                    raise ValueError(self._first_frame_missing(video.name))
        if stage == "test":
            tell_scored_zero(self.consistency, self.data.taxonomy)
        self._check_given_labels(stage)
        self._tell_unknown_features()
        self.backbone.check()
        self.segmenter.check_places()
        wanted = self.segmenter.network_size.wanted
        if wanted is not None:
            self.segmenter.check(wanted, self.data.clip_length)
        if self.segmenter.network_size.native is not None:
            _log.info(
                "%s: frames are reduced or enlarged to about %d x %d pixels (model.input_size: frames keeps them)",
                type(self.backbone).__name__,
                *self.segmenter.network_size.native,
            )
        self.backbone.load()
        self._patient_group = patient_group(self.trainer.num_nodes)
        self.data.network_size = self.segmenter.network_size

    def on_test_start(self) -> None:
        """Forget an earlier run."""
        self.results, self.numbers, self._evaluator = [], {}, None

    def test_step(self, clip: Clip, batch_idx: int) -> dict[str, Any]:
        """Segment a clip and score its final frames.

        Returns:
            what :meth:`predict_step` returns; labels are class ids or cluster ids as the naming protocol has it.
        """
        if clip.is_first or self._evaluator is None:
            self._video_start = time.perf_counter()
            taxonomy = self.data.taxonomy
            assert taxonomy is not None
            self._evaluator = VideoEvaluator(
                clip.video, taxonomy, self.naming, self.windows, self.consistency, self.objects
            )
        segmented = self._segment(clip, self._first_labels(clip))
        if segmented is None:
            return {}

        final = slice(clip.num_final)
        raw_THW = None if clip.labels_THW is None else clip.labels_THW[final]
        self._evaluator.update(segmented.labels_THW, raw_THW, clip.labelled_T[final].cpu())
        if clip.is_first and self.naming.ground_truth_in_method and bool((segmented.labels_THW < 0).all()):
            self._evaluator.note(_FIRST_FRAME_VOID)
        if clip.is_last:
            self._finish_video(self._evaluator.finish(time.perf_counter() - self._video_start))
        return _step_output(segmented)

    def on_test_epoch_end(self) -> None:
        """Gather the videos of all processes and log the benchmark's numbers."""
        self.results = gather_results(self.results, self._patient_group)
        self.failures = self.data.gather_failures(self._patient_group)
        if self.trainer.is_global_zero and (self.results or not self.failures):
            self.numbers = fold_results(self.results)
        self.log_dict(self.numbers, rank_zero_only=True)

    def on_test_end(self) -> None:
        """Refuse to end as if there were numbers.

        Raises:
            ValueError: no video has a result; callbacks, which come first, have recorded why.
        """
        if self.trainer.is_global_zero and self.failures and not self.results:
            raise ValueError(
                f"no video has a result, so there is nothing to score; the first of {len(self.failures)}: "
                f"{next(iter(self.failures.values()))}"
            )

    def predict_step(self, clip: Clip, batch_idx: int) -> dict[str, Any]:
        """Segment a clip.

        Returns:
            int64 cluster ids of the final frames: ``labels`` [num_final, H, W], and ``coarse`` and ``refined``
            [num_final, h, w] on the token grid; and ``seconds``, a mapping by stage. With the clip in which clusters
            take classes, ``clusters`` [2, h, w]: cluster and class of the first frame. Empty if the video failed.
        """
        segmented = self._segment(clip, None)
        return {} if segmented is None else _step_output(segmented)

    def on_predict_epoch_end(self) -> None:
        """Gather the failures of all processes."""
        self.failures = self.data.gather_failures(self._patient_group)

    def _segment(self, clip: Clip, first_labels_HW: Tensor | None) -> SegmentedClip | None:
        """Segment a clip; ``None`` if its video has failed, now or before."""
        if clip.video in self.data.failures:  # the loader had read this clip when an earlier one failed
            return None
        if clip.is_first:
            self.segmenter.reset()
        elif clip.video in self.left:
            self.segmenter.restore(move_data_to_device(self.left.pop(clip.video), self.device))
        generator = clip_generator(self.seed, self.data.name, clip.video, clip.index)
        try:
            segmented: SegmentedClip = self.segmenter(
                clip.frames_THW3,
                resized_THW3=clip.resized_THW3,
                generator=generator,
                first_labels_HW=first_labels_HW,
                given_THW=self._given_labels(clip),
                num_wanted=clip.num_final,
                shot=clip.shot,
            )
        except NotFiniteError as error:
            reason = f"{error} (clip {clip.index}, trainer.precision {self.trainer.precision})"
        else:
            return segmented
        self._evaluator = None
        self.data.fail(clip.video, reason)
        return None

    def _first_labels(self, clip: Clip) -> Tensor | None:
        """First frame's class ids, for the protocol that puts them into the method."""
        if not (clip.is_first and isinstance(self.naming, FirstFrameNaming)):
            return None
        if clip.labels_THW is None or not clip.labelled_T[0]:
            raise ValueError(self._first_frame_missing(clip.video))
        taxonomy = self.data.taxonomy
        assert taxonomy is not None
        raw_HW = ground_truth(clip.labels_THW[0], self.consistency)
        return self.naming.first_labels(taxonomy.class_ids(raw_HW), taxonomy.num_classes)

    def _given_labels(self, clip: Clip) -> Tensor | None:
        """Labels that are given to the method for pixels of the clip, -1 elsewhere; ``None`` if there are none."""
        if not self.segmenter.context.takes_given_labels or clip.labels_THW is None:
            return None
        num_given = len(clip.labels_THW)
        if (
            isinstance(self.naming, GivenFirstFrameNaming)
            if self.trainer.testing
            else self.data.given_frames == "first"
        ):
            num_given = int(clip.is_first)
        elif self.trainer.testing or self.data.given_frames == "none":
            num_given = 0
        if not clip.labelled_T[:num_given].any():
            return None
        taxonomy = self.data.taxonomy
        assert taxonomy is not None
        height, width = clip.frames_THW3.shape[1:3]
        labels_THW = nearest(taxonomy.class_ids(clip.labels_THW), (height, width))
        is_given_T = clip.labelled_T & (torch.arange(len(labels_THW), device=clip.labelled_T.device) < num_given)
        return labels_THW.where(is_given_T[:, None, None], IGNORE_INDEX)

    def _check_given_labels(self, stage: str) -> None:
        """Refuse a naming protocol that says something else than happens; let masks of ``predict`` be propagated."""
        takes, gives = self.segmenter.context.takes_given_labels, isinstance(self.naming, GivenFirstFrameNaming)
        context = type(self.segmenter.context).__name__
        if stage == "test" and takes != gives:
            raise ValueError(
                f"model.context {context} is given the first frame's ground truth: say so by --model.naming "
                "GivenFirstFrameNaming"
                if takes
                else f"naming protocol {self.naming.name!r} gives labels to the method, which {context} does not take: "
                "choose --model.context GivenLabels"
            )
        if stage == "predict" and self.data.given_frames == "all":
            if not takes:
                _log.info("masks are given: GivenLabels propagates them, in place of %s and of refinement", context)
                self.segmenter.context, self.segmenter.refinement = GivenLabels(), None
            for video in self.data.videos():
                if not video.begins_labelled:
                    _log.warning("%s: frames before the first one with a mask get no label", video.name)

    def _tell_unknown_features(self) -> None:
        """Say so where `Newcomers` reads other features than those that its networks were trained on."""
        features, context = self.segmenter.features, self.segmenter.context
        if not isinstance(getattr(context, "novelty", None), Newcomers):
            return
        parts = [type(part) for part in features.parts] if isinstance(features, JointFeatures) else [type(features)]
        if not isinstance(self.backbone, Embedded) or parts != [AttentionFeatures, LabFeatures, PositionFeatures]:
            _log.warning(
                "model.context.novelty Newcomers was trained on the features of predict_embedded.yaml; with %s of %s "
                "it may open too many labels or none (--model.context.novelty null opens none)",
                " and ".join(part.__name__ for part in parts),
                type(self.backbone).__name__,
            )

    def _first_frame_missing(self, video: str) -> str:
        return (
            f"{video}: its first frame has no ground truth, which naming protocol {self.naming.name!r} needs; "
            "choose another, such as --model.naming LabelledFrameNaming"
        )

    def _finish_video(self, result: VideoResult) -> None:
        self.results.append(result)
        self._evaluator = None
        (row,) = video_table([result])
        scores = ", ".join(f"{name} {percent(row[name])}" for name in headline_scores(row))
        _log.info("%s: %d frames in %.1f s, %s", result.name, result.num_frames, result.seconds or 0.0, scores)
        for note in result.notes:
            _log.warning("%s: %s", result.name, note)


def _step_output(segmented: SegmentedClip) -> dict[str, Any]:
    output = {
        "labels": segmented.labels_THW,
        "coarse": segmented.coarse_Thw,
        "refined": segmented.refined_Thw,
        "seconds": segmented.seconds,
    }
    return output if segmented.clusters_2hw is None else {**output, "clusters": segmented.clusters_2hw}


def clip_generator(seed: int, dataset: str, video: str, clip: int) -> torch.Generator:
    """Random numbers of one clip, the same whatever was computed before, on whichever process.

    >>> first, again = (torch.rand(2, generator=clip_generator(0, "vspw", "bear", 3)) for _ in range(2))
    >>> bool((first == again).all())
    True
    """
    digest = hashlib.sha256("\0".join([str(seed), dataset, video, str(clip)]).encode()).digest()
    # On the CPU, so that the numbers do not depend on the device.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
