"""Metrics and naming on the pretend accelerator: the CPU's numbers, from labels that lie on a device."""

import pytest
import torch
from every_class import concrete_subclasses
from pretend_device import DEVICE, running

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics import ClusterNaming, FirstFrameNaming, SegmentationIoU, VideoConsistency, VideoEvaluator

TAXONOMY = Taxonomy("pond", ("water", "duck", "reed"), ((0, 0, 9), (9, 9, 0), (0, 9, 0)), {0: 0, 1: 1, 2: 2})
NAMINGS = concrete_subclasses(ClusterNaming, "zsvss.metrics")


def labels(num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(num_classes, (4, 3, 5), generator=generator)
    return small.repeat_interleave(4, 1).repeat_interleave(4, 2)


@pytest.mark.parametrize("kind", NAMINGS, ids=lambda kind: kind.__name__)
def test_a_video_is_scored_as_on_a_cpu(kind):
    pred_THW, raw_THW = labels(3 if kind is FirstFrameNaming else 5, 0), labels(3, 1).to(torch.uint8)
    raw_THW[:, :2] = 255
    labelled_T = torch.tensor([True, True, False, True])

    def score(device):
        evaluator = VideoEvaluator("pond-1", TAXONOMY, kind(), windows=(2,))
        for part in (slice(0, 3), slice(3, 4)):
            evaluator.update(pred_THW[part].to(device), raw_THW[part].to(device), labelled_T[part])
        return evaluator.finish().to_dict()

    expected = score("cpu")
    with running():
        assert score(DEVICE) == expected


def test_there_are_namings_to_test():
    assert len(NAMINGS) >= 5


def test_mean_iou_is_the_cpus():
    pred, target = labels(4, 0), labels(3, 1) - 1

    def score(device):
        metric = SegmentationIoU(num_classes=2).to(device)
        metric.update(pred.to(device), target.to(device))
        return metric.compute()

    expected = score("cpu")
    with running():
        assert score(DEVICE) == expected


@pytest.mark.parametrize("protocol", ["official", "complete", "correct", "self"])
def test_consistency_is_the_cpus(protocol):
    pred, raw = labels(2, 0), labels(2, 1)

    def score(device):
        metric = VideoConsistency(windows=(2,), protocol=protocol).to(device)
        metric.update(pred.to(device), None if protocol == "self" else raw.to(device))
        return metric.compute()

    expected = score("cpu")
    with running():
        assert score(DEVICE) == expected


def test_labels_are_taken_off_the_device_once_a_clip():
    for num_frames in (1, 4):
        with running() as device:
            pred_THW, raw_THW = labels(3, 0)[:num_frames].to(DEVICE), labels(3, 1)[:num_frames].to(DEVICE)
            evaluator = VideoEvaluator("pond-1", TAXONOMY, FirstFrameNaming(), windows=(2,))
            before = device.num_stalls
            evaluator.update(pred_THW, raw_THW, torch.ones(num_frames, dtype=torch.bool))
            assert device.num_stalls - before == 2
