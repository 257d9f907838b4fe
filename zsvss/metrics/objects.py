"""Region similarity J and contour accuracy F of objects in videos, the numbers of DAVIS.

J is the intersection over union of an object's masks in one frame. F is the harmonic mean of the precision and the
recall of its contour: a contour pixel is matched if the other mask's contour comes within a disk of 0.008 of the image
diagonal. Where neither mask has a pixel, J and F are 1. Void pixels belong to no mask. Of an object's values over the
frames, `mean` is their mean, `recall` the share of those above 0.5, and `decay` the mean of their first quarter less
that of their last one; the benchmark's numbers are the means of these over all objects of all videos.

Every value follows from six integers a frame and object, and means are exactly rounded: neither the order of videos nor
the process that computed them changes a bit.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016), in
the definitions of the published davis2017-evaluation.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

ObjectProtocol = Literal["semi_supervised", "all_frames"]
"""Which labelled frames of a video count.

- ``semi_supervised``: all but the first, which is given to the method, and the last, as in the published task.
- ``all_frames``: all of them.
"""
OBJECT_SCORES = ("J&F", "J", "J_recall", "J_decay", "F", "F_recall", "F_decay")
"""Names of the scores of `object_scores`, in their order."""
CONTOUR_TOLERANCE = 0.008
"""Reach of a contour match, as a share of the image diagonal; rounded up to whole pixels."""


class FrameCounts(NamedTuple):
    """Pixels of one object in one frame."""

    intersection: int
    union: int
    matched_pred: int
    """Predicted contour pixels near the true contour."""
    contour_pred: int
    matched_true: int
    """True contour pixels near the predicted contour."""
    contour_true: int

    @property
    def region_similarity(self) -> float:
        """J of the frame, 0..1."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def contour_accuracy(self) -> float:
        """F of the frame, 0..1.

        >>> FrameCounts(0, 0, 3, 4, 6, 6).contour_accuracy
        0.8571428571428571
        """
        if not self.contour_pred or not self.contour_true:
            return float(self.contour_pred == self.contour_true)
        precision, recall = self.matched_pred / self.contour_pred, self.matched_true / self.contour_true
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class ObjectStatistics(NamedTuple):
    """Statistics of an object's values over the frames, or their means over objects; NaN where nothing counts."""

    mean: float
    recall: float
    decay: float


def frame_counts(pred_HW: Tensor, truth_HW: Tensor, void_HW: Tensor | None = None) -> FrameCounts:
    """Count what J and F of one object in one frame follow from.

    Args:
        pred_HW: bool; predicted mask.
        truth_HW: bool; true mask.
        void_HW: bool; pixels that count for nothing.

    Raises:
        ValueError: shapes differ.

    >>> mask = torch.zeros(6, 6, dtype=torch.bool)
    >>> mask[2:4, 2:4] = True
    >>> frame_counts(mask, mask.roll(1, 1))
    FrameCounts(intersection=2, union=6, matched_pred=8, contour_pred=8, matched_true=8, contour_true=8)
    """
    shapes = {tuple(mask.shape) for mask in (pred_HW, truth_HW, void_HW) if mask is not None}
    if len(shapes) > 1:
        raise ValueError(f"masks of one frame have different shapes: {', '.join(map(str, sorted(shapes)))}")
    if void_HW is not None:
        pred_HW, truth_HW = pred_HW & ~void_HW, truth_HW & ~void_HW
    contour_pred, contour_true = contour(pred_HW), contour(truth_HW)
    near_pred, near_true = dilate(contour_pred), dilate(contour_true)
    masks = (
        *(pred_HW & truth_HW, pred_HW | truth_HW),
        *(contour_pred & near_true, contour_pred, contour_true & near_pred, contour_true),
    )
    return FrameCounts(*(int(mask.sum()) for mask in masks))


def contour(mask_HW: Tensor) -> Tensor:
    """Contour of a mask: pixels that differ from their neighbour to the right, below, or diagonally below to the right.

    So the contour lies half a pixel to the upper left of the edge, and a mask that is cut off by the border has no
    contour there.

    >>> contour(torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()).int()
    tensor([[1, 1, 1, 0],
            [1, 0, 1, 0],
            [1, 1, 1, 0],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    # The last row and column are their own neighbours beyond the border.
    padded = torch.cat([mask_HW, mask_HW[-1:]])
    padded = torch.cat([padded, padded[:, -1:]], 1)
    right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask_HW ^ right) | (mask_HW ^ below) | (mask_HW ^ diagonal)


def dilate(mask_HW: Tensor) -> Tensor:
    """Pixels within `CONTOUR_TOLERANCE` of a mask's pixels."""
    radius = math.ceil(CONTOUR_TOLERANCE * math.hypot(*mask_HW.shape))
    steps = np.arange(-radius, radius + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)
    dilated = cv2.dilate(mask_HW.cpu().numpy().astype(np.uint8), disk)
    return torch.from_numpy(dilated).bool().to(mask_HW.device)


def object_statistics(values: Sequence[float]) -> ObjectStatistics:
    """Mean, recall and decay of an object's values over the frames.

    The quarters of the decay share their bounding frames, as the published ones do.

    >>> object_statistics([1.0, 1.0, 0.5, 0.75, 0.25])
    ObjectStatistics(mean=0.7, recall=0.6, decay=0.5)
    """
    if not values:
        return ObjectStatistics(math.nan, math.nan, math.nan)
    last = len(values) - 1
    first_quarter = values[: (last + 2) // 4 + 1]  # bounds are multiples of a quarter, halves rounded up
    last_quarter = values[(3 * last + 2) // 4 :]
    return ObjectStatistics(
        mean=_mean(values),
        recall=sum(value > 0.5 for value in values) / len(values),
        decay=_mean(first_quarter) - _mean(last_quarter),
    )


def mean_statistics(statistics: Iterable[ObjectStatistics]) -> ObjectStatistics:
    """Means over objects, those without a frame that counts left out."""
    counted = [one for one in statistics if not math.isnan(one.mean)]
    return ObjectStatistics(*map(_mean, zip(*counted, strict=True))) if counted else object_statistics([])


def counted_frames(counts: Sequence[FrameCounts], protocol: ObjectProtocol) -> Sequence[FrameCounts]:
    """Of an object's labelled frames those that the protocol counts."""
    return counts[1:-1] if protocol == "semi_supervised" else counts


def object_scores(objects: Iterable[Sequence[FrameCounts]], protocol: ObjectProtocol) -> dict[str, float]:
    """The numbers of objects by the names under which they are logged.

    Args:
        objects: for each object its labelled frames, all of them and in order.
        protocol: which of them count.

    Returns:
        `OBJECT_SCORES`; ``J&F`` is the mean of the two means.
    """
    counted = [counted_frames(counts, protocol) for counts in objects]
    regions = mean_statistics(object_statistics([c.region_similarity for c in counts]) for counts in counted)
    contours = mean_statistics(object_statistics([c.contour_accuracy for c in counts]) for counts in counted)
    scores = {"J&F": (regions.mean + contours.mean) / 2}
    for name, statistics in (("J", regions), ("F", contours)):
        scores |= {name: statistics.mean, f"{name}_recall": statistics.recall, f"{name}_decay": statistics.decay}
    return scores


class ObjectFrames:
    """Counts of one video's objects, collected frame by frame.

    Args:
        candidates: class ids that are objects. The video's objects are those up to the largest in its first frame.

    >>> stream = ObjectFrames(candidates=(1, 2))
    >>> stream.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 0]]))
    >>> {number: [counts[:2] for counts in frames] for number, frames in stream.counts.items()}
    {1: [(1, 2)]}
    """

    def __init__(self, candidates: Iterable[int]) -> None:
        self.candidates = sorted(candidates)
        self.counts: dict[int, list[FrameCounts]] = {}
        self._num_frames = 0

    def update(self, pred_HW: Tensor, class_HW: Tensor) -> None:
        """Add the video's next labelled frame.

        Args:
            pred_HW: predicted class ids.
            class_HW: ground-truth class ids, negative where void.
        """
        if not self.candidates:
            return
        if self._num_frames == 0:
            largest = int(class_HW.max())
            self.counts = {candidate: [] for candidate in self.candidates if candidate <= largest}
        self._num_frames += 1
        void_HW = class_HW < 0
        for number, frames in self.counts.items():
            frames.append(frame_counts(pred_HW == number, class_HW == number, void_HW))


class _ObjectMetric(Metric):
    """Integer rows ``(frame, *counts)``, an object after the other; a row of frame 0 begins the next object.

    Args:
        protocol: see `ObjectProtocol`.
        candidates: class ids that are objects; by default all but 0.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: list[Tensor] | Tensor

    def __init__(self, protocol: ObjectProtocol = "semi_supervised", candidates: Iterable[int] = range(1, 255)) -> None:
        super().__init__()
        check_protocol(protocol)
        self.protocol: ObjectProtocol = protocol
        self.candidates = tuple(candidates)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.update_counts([])

    def update(self, pred_THW: Tensor, class_THW: Tensor) -> None:
        """Add a video.

        Args:
            pred_THW: predicted class ids of all its labelled frames, in order.
            class_THW: their ground-truth class ids, negative where void.
        """
        stream = ObjectFrames(self.candidates)
        for pred_HW, class_HW in zip(pred_THW, class_THW, strict=True):
            stream.update(pred_HW, class_HW)
        self.update_counts(stream.counts.values())

    def update_counts(self, objects: Iterable[Sequence[FrameCounts]]) -> None:
        """Add objects counted elsewhere, for instance those of a stored result."""
        assert isinstance(self.rows, list), "the metric is still synchronised"
        rows = [(frame, *counts) for frames in objects for frame, counts in enumerate(frames)]
        # An empty list would be gathered as a float vector; a rank without objects must send integers of this width.
        width = 1 + len(FrameCounts._fields)
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(-1, width))

    def reset(self) -> None:
        """Forget all objects."""
        super().reset()
        self.update_counts([])

    def _objects(self) -> list[list[FrameCounts]]:
        objects: list[list[FrameCounts]] = []
        for frame, *counts in dim_zero_cat(self.rows).tolist():
            if frame == 0:
                objects.append([])
            objects[-1].append(FrameCounts(*counts))
        return objects


class RegionSimilarity(_ObjectMetric):
    """J over everything counted so far, on all processes.

    Args:
        protocol: see `ObjectProtocol`.
        candidates: class ids that are objects; by default all but 0.

    >>> metric = RegionSimilarity(protocol="all_frames")
    >>> metric.update(torch.tensor([[[0, 1, 1]], [[0, 0, 1]]]), torch.tensor([[[0, 1, 0]], [[0, 0, 1]]]))
    >>> metric.compute()
    ObjectStatistics(mean=0.75, recall=0.5, decay=-0.5)
    """

    def compute(self) -> ObjectStatistics:
        """Mean over objects."""
        counted = [counted_frames(frames, self.protocol) for frames in self._objects()]
        return mean_statistics(object_statistics([c.region_similarity for c in frames]) for frames in counted)


class ContourAccuracy(_ObjectMetric):
    """F over everything counted so far, on all processes.

    Args:
        protocol: see `ObjectProtocol`.
        candidates: class ids that are objects; by default all but 0.

    >>> metric = ContourAccuracy(protocol="all_frames")
    >>> metric.update(torch.tensor([[[0, 1, 1]], [[0, 0, 1]]]), torch.tensor([[[0, 1, 1]], [[0, 0, 0]]]))
    >>> metric.compute()
    ObjectStatistics(mean=0.5, recall=0.5, decay=1.0)
    """

    def compute(self) -> ObjectStatistics:
        """Mean over objects."""
        counted = [counted_frames(frames, self.protocol) for frames in self._objects()]
        return mean_statistics(object_statistics([c.contour_accuracy for c in frames]) for frames in counted)


def check_protocol(protocol: str) -> None:
    """Refuse an unknown protocol."""
    if protocol not in get_args(ObjectProtocol):
        raise ValueError(f"object protocol {protocol!r} is unknown; allowed are {', '.join(get_args(ObjectProtocol))}")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
