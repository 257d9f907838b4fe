"""Mean intersection over union from one integer confusion matrix over the whole benchmark.

Shapes: C classes; ``...`` any shape of pixels.

`torchmetrics.classification.MulticlassJaccardIndex` counts a class that is only ever predicted as 0, and
`torchmetrics.segmentation.MeanIoU` averages per frame and cannot ignore pixels: neither is the benchmark's
definition, so the mean is taken here, over a confusion matrix that torchmetrics sums over processes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from zsvss.data.taxonomy import IGNORE_INDEX


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by ground-truth class (row) and predicted class (column).

    Args:
        pred: predicted class ids, any integer type and shape. Ids outside ``0..num_classes-1`` are counted in the
            last column: they are wrong, whatever the ground truth.
        target: ground-truth class ids of the same shape, ``0..num_classes-1`` or `IGNORE_INDEX`, which is not scored.
        num_classes: C.

    Returns:
        int64 ``[C, C + 1]``.

    Raises:
        ValueError: shapes differ, or `target` holds an id that is neither a class nor `IGNORE_INDEX`.

    >>> pred, target = torch.tensor([[0, 1, 1], [7, 2, 0]]), torch.tensor([[0, 1, 0], [2, 2, -1]])
    >>> confusion_matrix(pred, target, num_classes=3)
    tensor([[1, 1, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 1]])
    """
    if pred.shape != target.shape:
        raise ValueError(
            f"predictions have shape {tuple(pred.shape)} and the ground truth {tuple(target.shape)}; resize the "
            "predictions to the ground truth's size before scoring"
        )
    # Ids just outside the allowed range get rows and columns of their own, so that no pixel has to be picked out first.
    cells = target.long().clamp(IGNORE_INDEX - 1, num_classes).add_(1 - IGNORE_INDEX).mul_(num_classes + 2)
    cells += pred.long().clamp(-1, num_classes).add_(1)
    # Not torchmetrics' multiclass_confusion_matrix: in deterministic mode it compares every pixel with every cell
    # of the matrix, which at 124 classes and one 480p frame is terabytes.
    counts = torch.bincount(cells.flatten(), minlength=(num_classes + 3) * (num_classes + 2))
    counts = counts.reshape(num_classes + 3, num_classes + 2)
    if counts[0].any() or counts[-1].any():
        raise ValueError(
            f"ground truth holds class ids {int(target.min())}..{int(target.max())}, allowed are "
            f"0..{num_classes - 1} and {IGNORE_INDEX} (ignored); map raw values to class ids with the taxonomy first"
        )
    confusion = counts[2:-1, 1:].clone()
    confusion[:, -1] += counts[2:-1, 0]
    return confusion


def iou_from_confusion(confusion: Tensor) -> Tensor:
    """Intersection over union of each class: ``diag / (row + column - diag)``.

    Args:
        confusion: int64 ``[C, C + 1]`` from `confusion_matrix`.

    Returns:
        float64 ``[C]``; NaN for a class without a ground-truth pixel, which no mean counts.

    >>> iou_from_confusion(torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]))
    tensor([0.5000,    nan, 0.5000], dtype=torch.float64)
    """
    correct, ground_truth, predicted = _counts(confusion)
    iou = correct.double() / (ground_truth + predicted - correct)
    return torch.where(ground_truth > 0, iou, torch.nan)


class SegmentationScores(NamedTuple):
    """Numbers of one confusion matrix, all in 0..1; NaN where no pixel was scored."""

    miou: float
    """Mean IoU over the classes that have at least one ground-truth pixel."""
    fwiou: float
    """Mean IoU weighted by the classes' ground-truth pixels."""
    pixel_accuracy: float
    """Share of scored pixels that are right."""


def segmentation_scores(confusion: Tensor) -> SegmentationScores:
    """Summarise a confusion matrix.

    Args:
        confusion: int64 ``[C, C + 1]`` from `confusion_matrix`.

    >>> scores = segmentation_scores(torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]))
    >>> scores.miou, scores.fwiou, scores.pixel_accuracy
    (0.5, 0.5, 0.5)
    """
    correct, ground_truth, _ = _counts(confusion)
    total = int(ground_truth.sum())
    if total == 0:
        return SegmentationScores(math.nan, math.nan, math.nan)
    present = (ground_truth > 0).tolist()
    ious = [iou for iou, here in zip(iou_from_confusion(confusion).tolist(), present, strict=True) if here]
    weights = ground_truth[ground_truth > 0].tolist()
    return SegmentationScores(
        miou=math.fsum(ious) / len(ious),
        fwiou=math.fsum(weight * iou for weight, iou in zip(weights, ious, strict=True)) / total,
        pixel_accuracy=int(correct.sum()) / total,
    )


def _counts(confusion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    num_classes = confusion.shape[0]
    if confusion.shape != (num_classes, num_classes + 1):
        raise ValueError(
            f"confusion matrix has shape {tuple(confusion.shape)}, expected [C, C + 1]: rows are ground-truth "
            "classes, the last column counts predictions that are no class"
        )
    return confusion.diagonal(), confusion.sum(1), confusion[:, :num_classes].sum(0)


class SegmentationIoU(Metric):
    """`confusion_matrix` summed over updates and processes; `compute` gives `segmentation_scores`.

    A run counts each video by one of these, and its numbers are those of one to which the videos' counts are added.

    Args:
        num_classes: C.
        settings: of :class:`torchmetrics.Metric`.

    >>> metric = SegmentationIoU(num_classes=3)
    >>> metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]))
    >>> metric.update(torch.tensor([7, 2, 0]), torch.tensor([2, 2, -1]))
    >>> metric.compute().miou
    0.5
    >>> metric.add(torch.tensor([[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]))
    >>> metric.compute().miou
    0.5833333333333334
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    confusion: Tensor

    def __init__(self, num_classes: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.num_classes = num_classes
        empty = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Count pixels; arguments as in `confusion_matrix`."""
        self.confusion = self.confusion + confusion_matrix(pred, target, self.num_classes)

    def add(self, confusion: Tensor) -> None:
        """Add a matrix that was counted elsewhere, for instance that of a stored result."""
        self.confusion = self.confusion + confusion.to(self.confusion)
        self._update_count += 1  # or `compute` would warn that nothing was counted
        self._computed = None

    def compute(self) -> SegmentationScores:
        """Summarise everything counted so far, on all processes."""
        return segmentation_scores(self.confusion)
