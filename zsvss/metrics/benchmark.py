"""Fold the results of all videos into the benchmark's numbers.

Everything is a sum of integers or an exactly rounded mean over videos, so neither the order of the results nor the
process that computed them changes a bit. All scores are in 0..1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from zsvss.gathering import gather, is_distributed
from zsvss.metrics.confusion import SegmentationIoU, SegmentationScores, iou_from_confusion, segmentation_scores
from zsvss.metrics.consistency import is_consistency, mean_consistency, score_name
from zsvss.metrics.consistency_metric import VideoConsistency
from zsvss.metrics.evaluation import VideoResult
from zsvss.metrics.objects import object_scores


def fold_results(results: Iterable[VideoResult]) -> dict[str, float]:
    """The benchmark's numbers by the names under which they are logged; of objects also those of `object_scores`.

    Returns:
        ``test/mIoU``, ``test/fwIoU``, ``test/pixel_accuracy``, ``test/mIoU_video_mean`` (plain mean of the videos'
        own mIoUs, over videos with a scored pixel), ``test/VC8`` ... or ``test/self_consistency8`` ..., and over how
        much they are: ``test/num_videos``, ``test/num_frames``, ``test/num_labelled_frames``. NaN where nothing
        qualifies.

    Raises:
        ValueError: no result, a video twice, or results of different protocols.

    >>> one = VideoResult("a", 3, 3, torch.tensor([[3, 1, 0], [0, 4, 0]]), "official", {2: [(3, 4)]}, "hungarian", {})
    >>> two = VideoResult("b", 4, 4, torch.tensor([[2, 0, 0], [0, 0, 0]]), "official", {2: [(1, 2)]}, "hungarian", {})
    >>> for name, number in fold_results([one, two]).items():
    ...     print(name, round(number, 4))
    test/mIoU 0.8167
    test/fwIoU 0.82
    test/pixel_accuracy 0.9
    test/mIoU_video_mean 0.8875
    test/VC2 0.625
    test/num_videos 2
    test/num_frames 7
    test/num_labelled_frames 7
    """
    results = _checked(results)
    first = results[0]
    # The results are of all processes already.
    iou = SegmentationIoU(len(first.confusion), sync_on_compute=False)
    for result in results:
        iou.add(result.confusion)
    scores: SegmentationScores = iou.compute()
    video_mious = [miou for result in results if not math.isnan(miou := segmentation_scores(result.confusion).miou)]
    numbers: dict[str, float] = {
        "test/mIoU": scores.miou,
        "test/fwIoU": scores.fwiou,
        "test/pixel_accuracy": scores.pixel_accuracy,
        "test/mIoU_video_mean": math.fsum(video_mious) / len(video_mious) if video_mious else math.nan,
    }
    if any(result.objects for result in results):
        objects = [frames for result in results for frames in result.objects.values()]
        scores_of_objects = object_scores(objects, first.object_protocol)
        numbers |= {f"test/{name}": score for name, score in scores_of_objects.items()}
    if first.windows:
        consistency = VideoConsistency(tuple(first.windows), first.protocol, sync_on_compute=False)
        for result in results:
            consistency.add(result.windows)
        numbers |= {f"test/{name}": score for name, score in consistency.compute().items()}
    numbers["test/num_videos"] = len(results)
    numbers["test/num_frames"] = sum(result.num_frames for result in results)
    numbers["test/num_labelled_frames"] = sum(result.num_labelled for result in results)
    return numbers


def headline_scores(names: Iterable[str]) -> list[str]:
    """Of the scores' names those that papers print: of objects J and F, then mean IoU and video consistency.

    >>> headline_scores(["fwIoU", "VC8", "mIoU", "num_windows8", "mIoU_video_mean", "VC16"])
    ['mIoU', 'VC8', 'VC16']
    >>> headline_scores(["mIoU", "J&F", "J", "J_recall", "F", "VC8"])
    ['J&F', 'J', 'F', 'mIoU', 'VC8']
    """
    first = ["J&F", "J", "F", "mIoU"]
    kept = [name for name in names if name in first or is_consistency(name)]
    return sorted(kept, key=lambda name: first.index(name) if name in first else len(first))


def total_confusion(results: Iterable[VideoResult]) -> Tensor:
    """Sum of the videos' confusion matrices, int64 ``[C, C + 1]``."""
    return torch.stack([result.confusion for result in results]).sum(0)


@dataclass(frozen=True)
class ClassRow:
    """One class of the benchmark."""

    class_id: int
    name: str
    iou: float
    """NaN for a class without a ground-truth pixel; it is not part of mIoU."""
    num_ground_truth: int
    """Pixels of this class."""
    num_predicted: int
    """Scored pixels predicted as this class."""
    num_correct: int


def class_table(results: Iterable[VideoResult], classes: Sequence[str]) -> list[ClassRow]:
    """Per-class numbers over all videos.

    Args:
        results: all videos.
        classes: class names in the order of their ids.

    >>> result = VideoResult("a", 3, 3, torch.tensor([[3, 1, 0], [0, 4, 0]]), "official", {}, "hungarian", {})
    >>> class_table([result], ["sky", "road"])[1]
    ClassRow(class_id=1, name='road', iou=0.8, num_ground_truth=4, num_predicted=5, num_correct=4)
    """
    confusion = total_confusion(results)
    if len(classes) != len(confusion):
        raise ValueError(f"{len(classes)} class names for a confusion matrix of {len(confusion)} classes")
    columns = zip(
        classes,
        iou_from_confusion(confusion).tolist(),
        confusion.sum(1).tolist(),
        confusion[:, :-1].sum(0).tolist(),
        confusion.diagonal().tolist(),
        strict=True,
    )
    return [ClassRow(class_id, *row) for class_id, row in enumerate(columns)]


def video_table(results: Iterable[VideoResult]) -> list[dict[str, Any]]:
    """One row a video, in order of their names: its own scores, their basis, and its time."""
    rows: list[dict[str, Any]] = []
    results = sorted(results, key=lambda result: result.name)
    for result in results:
        scores = segmentation_scores(result.confusion)
        row = {
            "video": result.name,
            "num_frames": result.num_frames,
            "num_labelled": result.num_labelled,
            "mIoU": scores.miou,
            "fwIoU": scores.fwiou,
            "pixel_accuracy": scores.pixel_accuracy,
        }
        if any(result.objects for result in results):
            row |= object_scores(result.objects.values(), result.object_protocol)
        for window, pairs in result.windows.items():
            row[score_name(result.protocol, window)] = mean_consistency(pairs)
            row[f"num_windows{window}"] = len(pairs)
        rows.append({**row, "seconds": result.seconds})
    return rows


def gather_results(results: Iterable[VideoResult], group: distributed.ProcessGroup | None = None) -> list[VideoResult]:
    """The results of all processes (of a group), in order of the videos' names; on one process just that order.

    A collective operation where torch.distributed runs: every process must call it, also one without a video.
    """
    results = list(results)
    if is_distributed():
        of_ranks = gather([result.to_dict() for result in results], group)
        results = [VideoResult.from_dict(record) for records in of_ranks for record in records]
    return sorted(results, key=lambda result: result.name)


def _checked(results: Iterable[VideoResult]) -> list[VideoResult]:
    results = sorted(results, key=lambda result: result.name)
    if not results:
        raise ValueError("no finished video: there is nothing to score")
    first = results[0]
    for before, result in itertools.pairwise(results):
        if result.name == before.name:
            raise ValueError(f"video {result.name!r} has two results; every video must be scored once")
        differing = [
            f"{what} {theirs!r} and {ours!r}"
            for what, theirs, ours in [
                ("consistency protocol", result.protocol, first.protocol),
                ("naming protocol", result.naming, first.naming),
                ("windows", tuple(result.windows), tuple(first.windows)),
                ("object protocol", result.object_protocol, first.object_protocol),
                ("number of classes", len(result.confusion), len(first.confusion)),
            ]
            if theirs != ours
        ]
        if differing:
            raise ValueError(
                f"results of {result.name!r} and {first.name!r} cannot be mixed: {'; '.join(differing)}; "
                "score both in the same run"
            )
    return results
