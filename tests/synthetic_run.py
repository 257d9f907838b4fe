"""Run folders made by hand: what a test run leaves behind, without running a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics import FirstFrameNaming, VideoEvaluator
from zsvss.results.fingerprint import digest
from zsvss.results.media import MediaWriter, media_folder
from zsvss.results.records import RecordFolder

TAXONOMY = Taxonomy(
    "pond", ("water", "duck", "reed"), ((40, 90, 200), (250, 210, 60), (90, 160, 70)), {0: 0, 1: 1, 2: 2}
)
VIDEOS = ("north/01", "south")
NUM_FRAMES, HEIGHT, WIDTH, CELL = 8, 48, 64, 8
SETTINGS = {
    "task": "test",
    "model.context.class_path": "zsvss.KNNSceneContext",
    "model.context.init_args.num_clusters": 20,
    "model.refinement.class_path": "zsvss.CorrespondenceRefinement",
    "model.modulation.class_path": "zsvss.MaskedModulation",
    "model.modulation.init_args.blend": True,
    "model.modulation.init_args.inject": True,
    "data.class_path": "zsvss.data.folder.VideoFolder",
    "precision": "32-true",
    "weights": "0" * 64,
}


def ground_truth(frame: int) -> np.ndarray:
    """Reed below, a duck that swims from left to right on water; the last row is void."""
    truth_HW = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    truth_HW[32:] = 2
    truth_HW[8:24, 6 * frame : 6 * frame + 16] = 1
    truth_HW[-1] = 255
    return truth_HW


def prediction(frame: int, lag: int) -> np.ndarray:
    """The ground truth of an earlier frame."""
    return np.where(ground_truth(max(frame - lag, 0)) == 255, 2, ground_truth(max(frame - lag, 0))).astype(np.int64)


def write_run(
    folder: Path,
    lag: int = 0,
    settings: Mapping[str, Any] | None = None,
    *,
    media: bool = True,
    unfinished: bool = False,
    num_frames: int = NUM_FRAMES,
    windows: Sequence[int] = (2, 4),
    **facts: Any,
) -> Path:
    """A run whose predictions lag so many frames behind the ground truth; returns its folder."""
    fingerprint = {key: value for key, value in (SETTINGS | dict(settings or {})).items() if value != "absent"}
    described = {
        "dataset": "pond",
        "taxonomy": TAXONOMY.name,
        "classes": list(TAXONOMY.classes),
        "naming": {"name": FirstFrameNaming.name, "note": FirstFrameNaming.note},
        "consistency": "official",
        "backbone": "Handmade <b>",
        "videos": list(VIDEOS),
        "run": {
            "date": "2026-11-22T20:00:00+00:00",
            "command": ["zsvss", "test", "--config", "pond.yaml"],
            "device": "abacus",
            "num_processes": 1,
            "commit": "0123456789ab",
            "precision": "32-true",
            "zsvss": "0.1.0",
        },
    }
    records = RecordFolder(folder / "records" / "test")
    records.open(fingerprint, described | facts)
    for video in VIDEOS[:1] if unfinished else VIDEOS:
        evaluator = VideoEvaluator(video, TAXONOMY, FirstFrameNaming(), windows=windows)
        frames = range(num_frames)
        final_THW = np.stack([prediction(frame, lag) for frame in frames])
        truth_THW = np.stack([ground_truth(frame) for frame in frames])
        evaluator.update(torch.from_numpy(final_THW), torch.from_numpy(truth_THW), torch.ones(num_frames).bool())
        result = evaluator.finish(seconds=4.0)
        records.write(video, digest(fingerprint), {"source": "", "result": result.to_dict()})
        if media:
            _write_media(folder, video, final_THW, truth_THW)
    records.close()
    seconds = {
        "encode": 0.1,
        "record": 0.2,
        "kmeans": 0.02,
        "knn": 0.03,
        "context": 0.01,
        "refinement": 0.002,
        "modulation": 0.5,
    }
    (folder / "timing.json").write_text(json.dumps({"seconds_per_frame": seconds}))
    return folder


def _write_media(folder: Path, video: str, final_THW: np.ndarray, truth_THW: np.ndarray) -> None:
    """Media with two clusters a class in the first frame: 0 and 1 are water, left and right, and so on."""
    facts = {
        "video": video,
        "dataset": "pond",
        "video_length": len(final_THW),
        "classes": TAXONOMY.classes,
        "palette": TAXONOMY.palette,
        "labels_are_classes": True,
    }
    writer = MediaWriter(media_folder(folder, "test", video), facts, max_side=960)
    for number, (final_HW, truth_HW) in enumerate(zip(final_THW, truth_THW, strict=True)):
        frame_HW3 = np.asarray(TAXONOMY.palette, np.uint8)[truth_HW % 3] // 2 + 10 * number
        cells_hw = final_HW[::CELL, ::CELL]
        labels = {"coarse": cells_hw, "refined": cells_hw, "final": final_HW}
        writer.write(f"{number:03d}", frame_HW3.astype(np.uint8), np.where(truth_HW == 255, -1, truth_HW), labels)
    cells_hw = final_THW[0, ::CELL, ::CELL]
    columns_hw = np.broadcast_to(np.arange(cells_hw.shape[1]), cells_hw.shape)
    writer.write_clusters(2 * cells_hw + (columns_hw >= 4), cells_hw)
    writer.finish({})
