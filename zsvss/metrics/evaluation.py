"""From the predictions of one video to its result, and from the results of all videos to the benchmark's numbers.

`VideoEvaluator` is fed clip by clip and gives a `VideoResult`: integers only, so that results can be stored, resumed
and folded in any order on any number of processes without a bit of difference.

Shapes: T frames, H W pixels, C classes, K clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zsvss.data.taxonomy import Taxonomy, in_words
from zsvss.metrics.confusion import SegmentationIoU
from zsvss.metrics.consistency import (
    CFFM_LONGEST_LEFT_OUT,
    DEFAULT_WINDOWS,
    ConsistencyProtocol,
    WindowPair,
    ground_truth,
)
from zsvss.metrics.consistency_metric import VideoConsistency
from zsvss.metrics.naming import ClusterNaming, add_votes, cluster_votes, rename_clusters
from zsvss.metrics.objects import FrameCounts, ObjectFrames, ObjectProtocol, check_protocol
from zsvss.metrics.packed_labels import Packed
from zsvss.stages.nearest_resizing import nearest


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What one video adds to the benchmark's numbers."""

    name: str
    num_frames: int
    num_labelled: int
    """Frames with ground truth, all of which are scored."""
    confusion: Tensor
    """int64 ``[C, C + 1]`` as in `confusion_matrix`."""
    protocol: ConsistencyProtocol
    """How `windows` were counted."""
    windows: dict[int, list[WindowPair]]
    """For each C the pairs ``(|G and P|, |G|)``."""
    naming: str
    """Name of the naming protocol."""
    names: dict[int, int]
    """Class id of each cluster named after the run; empty where predictions are class ids already."""
    seconds: float | None = None
    """Wall time of the video, if measured; never part of a number that is compared."""
    object_protocol: ObjectProtocol = "semi_supervised"
    """Which of the frames in `objects` count."""
    objects: dict[int, list[FrameCounts]] = field(default_factory=dict)
    """For each object, by its class id, all labelled frames; empty where the benchmark has no objects."""
    notes: tuple[str, ...] = ()
    """What makes this video's numbers mean less than they seem to, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that survive JSON exactly; the confusion matrix as ``[row, column, count]`` of its counts."""
        cells = self.confusion.nonzero()
        counts = self.confusion[cells[:, 0], cells[:, 1]]
        return {
            "name": self.name,
            "num_frames": self.num_frames,
            "num_labelled": self.num_labelled,
            "num_classes": self.confusion.shape[0],
            "confusion": torch.cat([cells, counts[:, None]], 1).tolist(),
            "protocol": self.protocol,
            "windows": {str(window): [list(pair) for pair in pairs] for window, pairs in self.windows.items()},
            "naming": self.naming,
            "names": {str(cluster): class_id for cluster, class_id in self.names.items()},
            "seconds": self.seconds,
            "object_protocol": self.object_protocol,
            "objects": {str(number): [list(counts) for counts in frames] for number, frames in self.objects.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> VideoResult:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a key is missing.
        """
        missing = [key for key in _KEYS if key not in record]
        if missing:
            raise ValueError(f"record of a video lacks {', '.join(missing)}; it was not written by VideoResult.to_dict")
        num_classes = int(record["num_classes"])
        confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        for row, column, count in record["confusion"]:
            confusion[row, column] = count
        return cls(
            name=record["name"],
            num_frames=record["num_frames"],
            num_labelled=record["num_labelled"],
            confusion=confusion,
            protocol=record["protocol"],
            windows={
                int(window): [(hits, total) for hits, total in pairs] for window, pairs in record["windows"].items()
            },
            naming=record["naming"],
            names={int(cluster): class_id for cluster, class_id in record["names"].items()},
            seconds=record["seconds"],
            object_protocol=record["object_protocol"],
            objects={
                int(number): [FrameCounts(*counts) for counts in frames] for number, frames in record["objects"].items()
            },
            notes=tuple(record.get("notes", ())),
        )


_KEYS = (
    *("name", "num_frames", "num_labelled", "num_classes", "confusion"),
    *("protocol", "windows", "naming", "names", "seconds", "object_protocol", "objects"),
)


class VideoEvaluator:
    """Scores one video while it is predicted.

    Frames must come once each and in order: of a clip that is predicted again by an overlapping one, pass only the
    frames that are final. Frames without ground truth count for nothing but ``self`` consistency. Predictions are
    scored at the ground truth's own size (nearest resize where the sizes differ). Until the clusters have names the
    predictions and ground truth are kept zlib-compressed; the frames themselves never are.

    Args:
        name: the video's unique name.
        taxonomy: number of classes and meaning of raw values.
        naming: the naming protocol.
        windows: the C's of video consistency.
        protocol: see `ConsistencyProtocol`; ``self`` for a benchmark without dense labels.
        object_protocol: see `ObjectProtocol`; for a benchmark whose taxonomy has objects.

    >>> from zsvss.metrics.naming import PosthocMajorityNaming
    >>> taxonomy = Taxonomy("pond", ("water", "duck"), ((0, 0, 255), (255, 255, 0)), {0: 0, 1: 1})
    >>> evaluator = VideoEvaluator("pond-1", taxonomy, PosthocMajorityNaming(), windows=(2,))
    >>> truth = torch.tensor([[[0, 1, 255]], [[0, 1, 1]], [[0, 0, 1]]], dtype=torch.uint8)
    >>> evaluator.update(torch.tensor([[[7, 4, 4]], [[7, 4, 4]], [[7, 4, 3]]]), truth, torch.ones(3, dtype=torch.bool))
    >>> result = evaluator.finish()
    >>> result.names, result.windows
    ({4: 1, 7: 0}, {2: [(2, 2)]})
    >>> result.confusion
    tensor([[3, 1, 0],
            [0, 3, 1]])
    """

    def __init__(
        self,
        name: str,
        taxonomy: Taxonomy,
        naming: ClusterNaming,
        windows: Sequence[int] = DEFAULT_WINDOWS,
        protocol: ConsistencyProtocol = "official",
        object_protocol: ObjectProtocol = "semi_supervised",
    ) -> None:
        check_protocol(object_protocol)
        self.name = name
        self.taxonomy = taxonomy
        self.naming = naming
        self.protocol: ConsistencyProtocol = protocol
        self.object_protocol: ObjectProtocol = object_protocol
        self.num_frames = 0
        self.num_labelled = 0
        num_classes = taxonomy.num_classes
        self._iou = SegmentationIoU(num_classes)
        self._consistency = VideoConsistency(windows, protocol)
        self._objects = ObjectFrames(taxonomy.objects)
        self._votes_KC = torch.zeros(0, num_classes, dtype=torch.int64)
        self._names: dict[int, int] | None = {} if naming.voting_frames == "none" else None
        self._kept: list[tuple[Packed, Packed | None]] = []
        self._notes: list[str] = []
        self._strangers: Counter[int] = Counter()
        self._predicted: tuple[int, int] | None = None  # smallest and largest id

    def note(self, sentence: str) -> None:
        """Add to the result's notes."""
        self._notes.append(sentence)

    def update(self, pred_THW: Tensor, raw_THW: Tensor | None, labelled_T: Tensor) -> None:
        """Add the video's next frames.

        Args:
            pred_THW: predicted ids, integer, at the frames' own size: cluster ids, or class ids where the naming
                protocol puts ground truth into the method.
            raw_THW: raw ground-truth values, integer, at the ground truth's own size; None where there is none.
            labelled_T: bool; which frames have ground truth.

        Raises:
            ValueError: the protocol needs the first frame's ground truth and there is none, or lengths differ.
        """
        if len(labelled_T) != len(pred_THW) or (raw_THW is not None and len(raw_THW) != len(pred_THW)):
            raise ValueError(
                f"{self.name}: {len(pred_THW)} predicted frames, {len(labelled_T)} flags and "
                f"{'no' if raw_THW is None else len(raw_THW)} ground-truth frames; pass one of each for every frame"
            )
        pred_THW, raw_THW = pred_THW.cpu(), None if raw_THW is None else raw_THW.cpu()
        for t, labelled in enumerate(labelled_T.tolist()):
            raw_HW = raw_THW[t] if labelled and raw_THW is not None else None
            self._add_frame(pred_THW[t], raw_HW)

    def finish(self, seconds: float | None = None) -> VideoResult:
        """Name what is not yet named and give the video's result.

        Args:
            seconds: wall time, to be stored beside the numbers.
        """
        if self._names is None:
            self._settle()
        assert self._names is not None
        notes = [*self._notes, *self._found()]
        if self.protocol == "cffm" and self.num_labelled <= CFFM_LONGEST_LEFT_OUT:
            notes.append(
                f"left out of every score: {self.num_labelled} labelled frames, and protocol cffm leaves out videos "
                f"of {CFFM_LONGEST_LEFT_OUT} and fewer"
            )
            self._iou.reset()
            self._objects = ObjectFrames(())
            self.num_labelled = 0
        return VideoResult(
            name=self.name,
            num_frames=self.num_frames,
            num_labelled=self.num_labelled,
            confusion=self._iou.confusion,
            protocol=self.protocol,
            windows=self._consistency.pairs,
            naming=self.naming.name,
            names=self._names,
            seconds=seconds,
            object_protocol=self.object_protocol,
            objects=self._objects.counts,
            notes=tuple(notes),
        )

    def _found(self) -> list[str]:
        """What the whole video shows."""
        found = []
        if self._strangers:
            found.append(
                f"its ground truth holds values that are neither a class nor void of {self.taxonomy.name} and are not "
                f"scored: {in_words(dict(sorted(self._strangers.items())))}"
            )
        if self._predicted is not None and self._predicted[0] == self._predicted[1]:
            class_id, classes = self._predicted[0], self.taxonomy.classes
            name = f"class {classes[class_id]!r}" if 0 <= class_id < len(classes) else "cluster without a class"
            found.append(f"every pixel is predicted as one {name}, so that its consistency over time says nothing")
        return found

    def _add_frame(self, pred_HW: Tensor, raw_HW: Tensor | None) -> None:
        raw_HW = None if raw_HW is None else ground_truth(raw_HW, self.protocol)
        if self.num_frames == 0 and raw_HW is None and self.naming.needs_first_frame_labels:
            raise ValueError(
                f"{self.name}: its first frame has no ground truth, which naming protocol {self.naming.name!r} needs; "
                "use labelled_frame, posthoc_video or hungarian naming"
            )
        self.num_frames += 1
        self.num_labelled += raw_HW is not None
        if self._names is not None:
            self._score(pred_HW, raw_HW)
            return
        self._kept.append((Packed.of(pred_HW), None if raw_HW is None else Packed.of(raw_HW)))
        if raw_HW is not None:
            class_HW = self.taxonomy.class_ids(raw_HW)
            pred_at_truth_HW = nearest(pred_HW, (raw_HW.shape[0], raw_HW.shape[1]))
            votes_KC = cluster_votes(pred_at_truth_HW, class_HW, self.taxonomy.num_classes)
            self._votes_KC = add_votes(self._votes_KC, votes_KC)
            if not self.naming.needs_whole_video:
                self._settle()

    def _settle(self) -> None:
        """Name the clusters and score the frames that waited for it."""
        self._names = self.naming.assign(self._votes_KC)
        kept, self._kept = self._kept, []
        for pred, raw in kept:
            self._score(pred.unpack(), None if raw is None else raw.unpack())

    def _score(self, pred_HW: Tensor, raw_HW: Tensor | None) -> None:
        num_classes = self.taxonomy.num_classes
        if self.naming.voting_frames != "none":
            assert self._names is not None
            pred_HW = rename_clusters(pred_HW, self._names, num_classes)
        smallest, largest = (int(bound) for bound in pred_HW.aminmax())
        before = self._predicted or (smallest, largest)
        self._predicted = min(smallest, before[0]), max(largest, before[1])
        class_HW = None
        if self.protocol == "self":
            self._consistency.update(pred_HW[None], new_video=False)
        if raw_HW is not None:
            pred_HW = nearest(pred_HW, (raw_HW.shape[0], raw_HW.shape[1]))
            class_HW = self.taxonomy.class_ids(raw_HW)
            self._strangers.update(self.taxonomy.strangers(raw_HW[class_HW < 0]))
            self._iou.update(pred_HW, class_HW)
            self._objects.update(pred_HW, class_HW)
        if self.protocol != "self":
            if raw_HW is None:
                self._consistency.gap()
            else:
                assert class_HW is not None
                self._consistency.update(pred_HW[None], raw_HW[None], class_HW[None], new_video=False)
