"""Running a segmenter on a CPU and on the pretend accelerator, and counting by stage how often the host waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from pretend_device import DEVICE, PRETEND, running
from torch import Tensor

from zsvss.segmenter import VideoSegmenter
from zsvss.stages import kmeans
from zsvss.stages.nearest_resizing import sampled_on


class Segmented(NamedTuple):
    """Labels of each clip, and for each clip the waits by stage; empty of a run on a CPU."""

    labels: list[Tensor]
    stalls: list[dict[str, int]]


@contextmanager
def counting_waits() -> Iterator[None]:
    """Let the segmenter's clock count waits in place of seconds."""
    with patch("zsvss.segmenter.device_clock", lambda _: float(PRETEND.num_stalls)):
        yield


def segment_on_cpu(make: Callable[[], VideoSegmenter], clips: list[Tensor], **options: Any) -> list[Tensor]:
    """Labels of each clip; K-means runs all restarts to the end, as on a device, so that sums have the same order."""
    segmenter = make()
    with patch.object(kmeans, "asking_is_free", lambda _: False):
        return [
            segmenter(clip, generator=torch.Generator().manual_seed(index), **options).labels_THW
            for index, clip in enumerate(clips)
        ]


def segment_on_device(make: Callable[[], VideoSegmenter], clips: list[Tensor], **options: Any) -> Segmented:
    """The same on the device, which must be running."""
    segmenter = make().to(DEVICE)
    result = Segmented([], [])
    sampled_on.cache_clear()  # the device is told once where nearest neighbours lie
    with counting_waits():
        for index, clip in enumerate(clips):
            before = PRETEND.num_stalls
            done = segmenter(clip.to(DEVICE), generator=torch.Generator().manual_seed(index), **options)
            stalls = {stage: int(count) for stage, count in done.seconds.items()}
            assert sum(stalls.values()) == PRETEND.num_stalls - before - 1, "the clip's copy, and every stage"
            result.stalls.append(stalls)
            result.labels.append(done.labels_THW.cpu())
    return result


def compared(make: Callable[[], VideoSegmenter], clips: list[Tensor], **options: Any) -> list[dict[str, int]]:
    """Waits of each clip by stage, of a run whose labels are the CPU's."""
    expected = segment_on_cpu(make, clips, **options)
    with running():
        found = segment_on_device(make, clips, **options)
    assert all(torch.equal(*pair) for pair in zip(found.labels, expected, strict=True))
    return found.stalls
