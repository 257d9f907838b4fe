"""Corrected frames as a benchmark: how far the method's own predictions are from them, frame by frame.

The predictions that are scored bear the annotation's names and merges, since naming is a person's part of the method;
what was painted, split off, deleted or propagated counts as the method's error.

Shapes: H W pixels.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from zsvss.data.video import UNLABELLED
from zsvss.metrics.confusion import confusion_matrix, iou_from_confusion
from zsvss.metrics.objects import FrameCounts, frame_counts, object_scores
from zsvss.results.id_images import read_ids, write_ids
from zsvss.studio.request_fields import FieldError
from zsvss.studio.session import Session

BENCHMARK = "benchmark"


def score(session: Session, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Score the run's own predictions on the frames that a person has corrected or accepted, and keep these as masks.

    Pixels of no segment are a class in the confusion matrix, so that predicting something there is wrong, but not one
    of those that means are taken over.

    Args:
        session: the annotation, which does not change meanwhile.
        progress: told how many frames are scored.

    Returns:
        ``mIoU`` over all frames together, ``J`` and ``F`` as means over frames, then classes; ``classes`` with the IoU
        of each; ``frames`` with the mean J over the classes of each frame; ``masks``, the folder that ``zsvss test``
        reads, and its ``command``, None where there are more classes than 8 bits hold. Numbers are 0..1, None where
        nothing qualifies.

    Raises:
        FieldError: no frame was corrected or accepted.
    """
    given = session.state.given
    if not given:
        raise FieldError("no frame was corrected or accepted yet, so there is nothing to score against")
    names = list(dict.fromkeys(segment.name for segment in session.segments()))
    nothing = len(names)
    confusion = torch.zeros(nothing + 1, nothing + 2, dtype=torch.int64)
    counts: dict[int, list[FrameCounts]] = {}
    frames = []
    for number in given:
        predicted_HW, truth_HW = (torch.from_numpy(array) for array in _classes(session, names, number))
        confusion += confusion_matrix(predicted_HW, truth_HW, nothing + 1)
        of_frame = {
            index: frame_counts(predicted_HW == index, truth_HW == index)
            for index in truth_HW.unique().tolist()
            if index != nothing
        }
        for index, one in of_frame.items():
            counts.setdefault(index, []).append(one)
        values = [one.region_similarity for one in of_frame.values()]
        frames.append({"frame": number, "J": sum(values) / len(values) if values else None})
        progress(len(frames))
    iou = iou_from_confusion(confusion)[:nothing]
    scores = object_scores(counts.values(), "all_frames")
    return {
        "mIoU": _plain(float(iou.nanmean())),
        "J": _plain(scores["J"]),
        "F": _plain(scores["F"]),
        "classes": [{"name": name, "IoU": _plain(float(value))} for name, value in zip(names, iou, strict=True)],
        "frames": frames,
        **_benchmark(session, names),
    }


def _classes(
    session: Session, names: list[str], number: int
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Class of each pixel of a frame in the run's predictions and in the annotation, int64 ``[H, W]``."""
    original = session.original
    assert original.mask_files is not None
    predicted_HW = read_ids(original.folder / original.mask_files[number])
    state, name_of = session.state, {segment.id: segment.name for segment in session.segments()}
    own = [segment.id for segment in original.segments]
    table = np.full(max([*own, *name_of, 0]) + 1, len(names), np.int64)
    for segment in own:
        root = state.root(segment)
        # What was deleted is of no class that is left, and nothing is there.
        table[segment] = names.index(name_of[root]) if root else -1
    truth = np.full(len(table), len(names), np.int64)
    for segment, name in name_of.items():
        truth[segment] = names.index(name)
    return table[predicted_HW], truth[session.mask(number)]


def _benchmark(session: Session, names: list[str]) -> dict[str, Any]:
    """Write the given frames' masks as ``zsvss test`` reads them; the folder and the command."""
    folder = session.place / BENCHMARK
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if len(names) > UNLABELLED:
        return {"masks": None, "command": None}
    colors = np.zeros((len(names), 3), np.uint8)
    for segment in session.segments():
        colors[names.index(segment.name)] = segment.color
    for number in session.state.given:
        _, truth_HW = _classes(session, names, number)
        values_HW = np.where(truth_HW == len(names), UNLABELLED, truth_HW)
        write_ids(folder / f"{session.original.frame_names[number]}.png", values_HW, colors)
    source = session.original.source.path
    naming = [] if session.state.given[0] == 0 else ["--model.naming", "HungarianNaming"]
    words = [
        *("zsvss", "test", "--config", "predict_embedded.yaml", "--model.context.novelty", "null"),
        *("--data.input", source),
        *("--data.masks", str(folder), "--data.class_names", json.dumps(names, ensure_ascii=False)),
        *("--data.ignore_value", str(UNLABELLED), *naming),
    ]
    return {"masks": str(folder), "command": shlex.join(words)}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
