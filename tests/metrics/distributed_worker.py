"""The processes of test_distributed.py: `python distributed_worker.py WORLD_SIZE FOLDER` writes FOLDER/RANK.json."""

import json
import multiprocessing
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from zsvss.data.taxonomy import Taxonomy
from zsvss.gathering import gather, patient_group
from zsvss.metrics import (
    ContourAccuracy,
    HungarianNaming,
    RegionSimilarity,
    SegmentationIoU,
    VideoConsistency,
    VideoEvaluator,
    fold_results,
    gather_results,
)

TAXONOMY = Taxonomy("test", ("a", "b", "c"), ((0, 0, 0),) * 3, {0: 0, 1: 1, 2: 2}, objects=(1, 2))
LENGTHS = (9, 3, 14, 1, 6, 20, 4)
SPLITS = {
    "uneven": lambda video, world_size: video % world_size if video < 3 else 0,
    "one rank has all": lambda video, world_size: world_size - 1,
    "one rank has only videos too short for a window": lambda video, world_size: 0 if video != 3 else world_size - 1,
}


def video(index):
    generator = torch.Generator().manual_seed(index)
    keep = torch.rand(LENGTHS[index], 5, 6, generator=generator) < 0.9
    pred = torch.randint(0, 5, keep.shape, generator=generator)
    raw = torch.randint(0, 4, keep.shape, generator=generator)
    for t in range(1, LENGTHS[index]):
        pred[t] = torch.where(keep[t], pred[t - 1], pred[t])
        raw[t] = torch.where(keep[t], raw[t - 1], raw[t])
    return pred, raw.byte()


def evaluate(mine):
    """All numbers of a run whose share on this process is `mine`, floats as exact text."""
    iou, consistency, results = SegmentationIoU(3), VideoConsistency((2, 4)), []
    regions, contours = RegionSimilarity(), ContourAccuracy()
    for index in mine:
        pred, raw = video(index)
        iou.update(pred, TAXONOMY.class_ids(raw))
        consistency.update(pred, raw)
        for metric in (regions, contours):
            metric.update(pred, TAXONOMY.class_ids(raw))
        evaluator = VideoEvaluator(f"video {index}", TAXONOMY, HungarianNaming(), windows=(2, 4))
        evaluator.update(pred, raw, torch.ones(len(pred), dtype=torch.bool))
        results.append(evaluator.finish())
    own = len(consistency.rows)
    numbers = {**iou.compute()._asdict(), **consistency.compute(), **fold_results(gather_results(results))}
    for name, metric in (("regions", regions), ("contours", contours)):
        numbers |= {f"{name} {what}": number for what, number in metric.compute()._asdict().items()}
    assert len(consistency.rows) == own, "the metric keeps its own share after synchronising"
    return {name: float(number).hex() for name, number in numbers.items()}


def nothing_anywhere():
    """Scores of metrics that no process ever updated."""
    numbers = {**SegmentationIoU(3).compute()._asdict(), **VideoConsistency((2,)).compute()}
    numbers |= RegionSimilarity().compute()._asdict()
    return {name: float(number).hex() for name, number in numbers.items()}


def patience(rank):
    """What processes have that come to the gather one after another, later than the default group waits."""
    group = patient_group()
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=0.5))
    time.sleep(rank)
    return gather(f"of {rank}", group)


def bereaved(rank, world_size):
    """What the others are told where the last process dies instead of coming to the gather."""
    group = patient_group()
    gather(rank, group)  # who dies earlier may take others along that still connect
    if rank == world_size - 1:
        os._exit(0)
    try:
        gather(rank, group)
    except ConnectionError as error:
        return str(error)


def run(rank, world_size, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    scores = {
        split: evaluate([index for index in range(len(LENGTHS)) if owner(index, world_size) == rank])
        for split, owner in SPLITS.items()
    }
    scores["nothing"] = nothing_anywhere()
    scores["gathered"] = patience(rank)
    scores["world_size"] = distributed.get_world_size()
    (folder / f"{rank}.json").write_text(json.dumps(scores))
    (folder / f"bereaved-{rank}").write_text(bereaved(rank, world_size))


def main():
    world_size, folder = int(sys.argv[1]), Path(sys.argv[2])
    # Forking after the imports and before any computation saves each process the imports, most of the test's time.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(rank, world_size, folder)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main()
