"""From the predictions of one video to its result, and from the results of all videos to the benchmark's numbers.

`VideoEvaluator` is fed clip by clip and gives a `VideoResult`: integers only, so that results can be stored, resumed
and folded in any order on any number of processes without a bit of difference.

Shapes: T frames, H W pixels, C classes, K clusters.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics.confusion import confusion_matrix
from zsvss.metrics.consistency import DEFAULT_WINDOWS, ConsistencyProtocol, ConsistencyWindows, WindowPair
from zsvss.metrics.naming import ClusterNaming, add_votes, cluster_votes, rename_clusters
from zsvss.metrics.objects import FrameCounts, ObjectFrames, ObjectProtocol, check_protocol


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
        self._confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self._stream = ConsistencyWindows(windows, protocol)
        self._objects = ObjectFrames(taxonomy.objects)
        self._votes_KC = torch.zeros(0, num_classes, dtype=torch.int64)
        self._names: dict[int, int] | None = {} if naming.voting_frames == "none" else None
        self._kept: list[tuple[_Packed, _Packed | None]] = []

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
        pred_THW = pred_THW.cpu()
        for t, labelled in enumerate(labelled_T.tolist()):
            raw_HW = raw_THW[t].cpu() if labelled and raw_THW is not None else None
            self._add_frame(pred_THW[t], raw_HW)

    def finish(self, seconds: float | None = None) -> VideoResult:
        """Name what is not yet named and give the video's result.

        Args:
            seconds: wall time, to be stored beside the numbers.
        """
        if self._names is None:
            self._settle()
        assert self._names is not None
        return VideoResult(
            name=self.name,
            num_frames=self.num_frames,
            num_labelled=self.num_labelled,
            confusion=self._confusion,
            protocol=self.protocol,
            windows=self._stream.pairs,
            naming=self.naming.name,
            names=self._names,
            seconds=seconds,
            object_protocol=self.object_protocol,
            objects=self._objects.counts,
        )

    def _add_frame(self, pred_HW: Tensor, raw_HW: Tensor | None) -> None:
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
        self._kept.append((_Packed.of(pred_HW), None if raw_HW is None else _Packed.of(raw_HW)))
        if raw_HW is not None:
            class_HW = self.taxonomy.class_ids(raw_HW)
            votes_KC = cluster_votes(resize_labels(pred_HW, *raw_HW.shape), class_HW, self.taxonomy.num_classes)
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
        class_HW = None
        if self.protocol == "self":
            self._stream.update(pred_HW)
        if raw_HW is not None:
            pred_HW = resize_labels(pred_HW, *raw_HW.shape)
            class_HW = self.taxonomy.class_ids(raw_HW)
            self._confusion += confusion_matrix(pred_HW, class_HW, num_classes)
            self._objects.update(pred_HW, class_HW)
        if self.protocol != "self":
            if raw_HW is None:
                self._stream.gap()
            else:
                self._stream.update(pred_HW, raw_HW, class_HW)


def resize_labels(label_HW: Tensor, height: int, width: int) -> Tensor:
    """Nearest-neighbour resize about pixel centres, in integer arithmetic.

    >>> resize_labels(torch.tensor([[1, 2], [3, 4]]), 3, 4)
    tensor([[1, 1, 2, 2],
            [3, 3, 4, 4],
            [3, 3, 4, 4]])
    """
    if label_HW.shape == (height, width):
        return label_HW
    rows = (2 * torch.arange(height, device=label_HW.device) + 1) * label_HW.shape[0] // (2 * height)
    columns = (2 * torch.arange(width, device=label_HW.device) + 1) * label_HW.shape[1] // (2 * width)
    return label_HW[rows[:, None], columns]


@dataclass(frozen=True)
class _Packed:
    """A compressed map of ids; label maps shrink to a few per cent."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, values_HW: Tensor) -> _Packed:
        values = values_HW.numpy()
        if values.size and values.min() >= 0 and values.max() <= 255:
            values = values.astype(np.uint8)
        return cls(zlib.compress(values.tobytes(), level=1), values.dtype.str, values.shape)

    def unpack(self) -> Tensor:
        values = np.frombuffer(bytearray(zlib.decompress(self.data)), dtype=self.dtype)
        return torch.from_numpy(values.reshape(self.shape))
