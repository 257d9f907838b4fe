import logging
import math
import random

import numpy as np
import pytest
import torch

from zsvss.metrics.benchmark import class_table, fold_results, gather_results, total_confusion, video_table
from zsvss.metrics.evaluation import VideoResult


def random_result(seed, num_classes=5, protocol="official", **changes):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 1000, (num_classes, num_classes + 1))
    confusion[rng.random(num_classes) < 0.4] = 0
    totals = rng.integers(1, 900, rng.integers(0, 30))
    fields = {
        "name": f"video {seed}",
        "num_frames": 20,
        "num_labelled": 18,
        "confusion": torch.tensor(confusion),
        "protocol": protocol,
        "windows": {8: [(int(rng.integers(0, total + 1)), int(total)) for total in totals], 16: []},
        "naming": "hungarian",
        "names": {},
    }
    return VideoResult(**{**fields, **changes})


def miou(confusion):
    ious = []
    for class_id in range(len(confusion)):
        if confusion[class_id].sum():
            union = confusion[class_id].sum() + confusion[:, class_id].sum() - confusion[class_id, class_id]
            ious.append(confusion[class_id, class_id] / union)
    return np.mean(ious)


def test_numbers_by_hand():
    results = [random_result(seed) for seed in range(12)]
    confusions = [result.confusion.numpy() for result in results]
    total = sum(confusions)
    ratios = [hits / size for result in results for hits, size in result.windows[8]]
    numbers = fold_results(results)
    assert numbers["test/mIoU"] == pytest.approx(miou(total), rel=1e-12)
    assert numbers["test/mIoU_video_mean"] == pytest.approx(
        np.mean([miou(c) for c in confusions if c.sum()]), rel=1e-12
    )
    assert numbers["test/pixel_accuracy"] == pytest.approx(np.trace(total) / total.sum(), rel=1e-12)
    assert numbers["test/VC8"] == pytest.approx(np.mean(ratios), rel=1e-12)
    assert math.isnan(numbers["test/VC16"])
    assert (numbers["test/num_videos"], numbers["test/num_frames"], numbers["test/num_labelled_frames"]) == (
        12,
        240,
        216,
    )
    np.testing.assert_array_equal(total_confusion(results), total)


def test_order_changes_no_bit():
    results = [random_result(seed) for seed in range(40)]
    expected = {name: number.hex() for name, number in fold_results(results).items() if isinstance(number, float)}
    for seed in range(10):
        random.Random(seed).shuffle(results)
        numbers = fold_results(iter(results))
        assert {name: numbers[name].hex() for name in expected} == expected


def test_without_dense_labels_nothing_is_called_vc(caplog):
    with caplog.at_level(logging.WARNING):
        numbers = fold_results([random_result(seed, protocol="self") for seed in range(3)])
    assert [name for name in numbers if "VC" in name] == []
    assert 0 < numbers["test/self_consistency8"] < 1
    assert "self_consistency16 is NaN: no window of 16 frames qualifies" in caplog.text


def test_nothing_scored_is_nan():
    numbers = fold_results([random_result(1, confusion=torch.zeros(5, 6, dtype=torch.int64))])
    assert all(math.isnan(numbers[f"test/{name}"]) for name in ("mIoU", "fwIoU", "pixel_accuracy", "mIoU_video_mean"))


def test_class_table_adds_up():
    results = [random_result(seed) for seed in range(3)]
    rows = class_table(results, list("abcde"))
    assert [row.name for row in rows] == list("abcde")
    total = total_confusion(results)
    assert sum(row.num_ground_truth for row in rows) == total.sum()
    assert sum(row.num_predicted for row in rows) == total[:, :5].sum()
    ious = [row.iou for row in rows if row.num_ground_truth]
    assert fold_results(results)["test/mIoU"] == math.fsum(ious) / len(ious)
    with pytest.raises(ValueError, match="2 class names for a confusion matrix of 5 classes"):
        class_table(results, ["a", "b"])


def test_video_table_is_the_fold_of_each_video_alone():
    results = [random_result(seed, seconds=1.5) for seed in (3, 1, 2)]
    rows = video_table(results)
    assert [row["video"] for row in rows] == ["video 1", "video 2", "video 3"]
    for row, result in zip(rows, sorted(results, key=lambda result: result.name), strict=True):
        alone = fold_results([result])
        for name in ("mIoU", "fwIoU", "pixel_accuracy", "VC8"):
            assert row[name] == pytest.approx(alone[f"test/{name}"], nan_ok=True)
        assert row["num_windows8"] == len(result.windows[8])
        assert row["seconds"] == 1.5


def test_gather_on_one_process_sorts():
    results = [random_result(seed) for seed in (3, 1, 2)]
    assert [result.name for result in gather_results(results)] == ["video 1", "video 2", "video 3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "complete"}, "consistency protocol 'complete' and 'official'"),
        ({"naming": "first_frame"}, "naming protocol 'first_frame' and 'hungarian'"),
        ({"windows": {8: []}}, r"windows \(8,\) and \(8, 16\)"),
        ({"confusion": torch.zeros(3, 4, dtype=torch.int64)}, "number of classes 3 and 5"),
    ],
)
def test_results_of_different_protocols_do_not_mix(changes, message):
    with pytest.raises(ValueError, match=message):
        fold_results([random_result(1), random_result(2, **changes)])


def test_bad_lists_of_results():
    with pytest.raises(ValueError, match="no finished video"):
        fold_results([])
    with pytest.raises(ValueError, match="'video 1' has two results"):
        fold_results([random_result(1), random_result(2), random_result(1)])
