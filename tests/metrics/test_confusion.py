import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics.confusion import SegmentationIoU, confusion_matrix, iou_from_confusion, segmentation_scores

seeds = st.integers(0, 2**31)


def random_ids(seed, num_classes, shape=(3, 6, 7), lowest=-1, beyond=2):
    """Predictions from lowest to beyond the last class, ground truth with void, some classes left out of either."""
    rng = np.random.default_rng(seed)
    pred = rng.integers(lowest, num_classes + beyond, shape)
    target = rng.integers(-1, num_classes, shape)
    target[target == rng.integers(0, num_classes)] = -1
    return pred, target


def scores_by_sets(pred, target, num_classes):
    """mIoU, fwIoU and pixel accuracy from sets of pixels, one class at a time, without a confusion matrix."""
    scored = target >= 0
    ious, weights = [], []
    for class_id in range(num_classes):
        truth = (target == class_id) & scored
        if not truth.any():
            continue
        guess = (pred == class_id) & scored
        ious.append((truth & guess).sum() / (truth | guess).sum())
        weights.append(truth.sum() / scored.sum())
    return np.mean(ious), np.dot(ious, weights), (pred == target)[scored].mean()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, num_classes=st.integers(2, 6))
def test_scores_equal_set_arithmetic(seed, num_classes):
    pred, target = random_ids(seed, num_classes)
    if (target < 0).all():
        return
    scores = segmentation_scores(confusion_matrix(torch.tensor(pred), torch.tensor(target), num_classes))
    np.testing.assert_allclose(scores, scores_by_sets(pred, target, num_classes), rtol=1e-12)


def test_cells_equal_a_loop_over_pixels():
    pred, target = random_ids(3, num_classes=4, lowest=-3)
    expected = np.zeros((4, 5), dtype=np.int64)
    for p, t in zip(pred.ravel(), target.ravel(), strict=True):
        if t >= 0:
            expected[t, p if 0 <= p < 4 else 4] += 1
    counted = confusion_matrix(torch.tensor(pred), torch.tensor(target), 4)
    assert counted.dtype == torch.int64
    np.testing.assert_array_equal(counted, expected)


def test_agrees_with_torchmetrics_where_predictions_are_classes():
    pred, target = (torch.tensor(ids) for ids in random_ids(5, num_classes=6, lowest=0, beyond=0))
    expected = multiclass_confusion_matrix(pred, target, num_classes=6, ignore_index=-1)
    counted = confusion_matrix(pred, target, 6)
    torch.testing.assert_close(counted[:, :6], expected, rtol=0, atol=0)
    assert counted[:, 6].sum() == 0


def test_deterministic_mode_counts_a_full_size_frame():
    pred = torch.arange(480 * 854).reshape(480, 854) % 124
    torch.use_deterministic_algorithms(True)
    try:
        counted = confusion_matrix(pred, pred, 124)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(counted[:, :124], torch.diag(torch.bincount(pred.flatten())))


def test_renaming_classes_permutes_the_ious_and_keeps_the_means():
    pred, target = (torch.tensor(ids) for ids in random_ids(7, num_classes=5))
    order = torch.tensor([3, 0, 4, 1, 2])

    def rename(ids):
        return torch.where((ids >= 0) & (ids < 5), order[ids.clamp(0, 4)], ids)

    plain, renamed = confusion_matrix(pred, target, 5), confusion_matrix(rename(pred), rename(target), 5)
    assert torch.equal(iou_from_confusion(plain).nan_to_num(-1), iou_from_confusion(renamed)[order].nan_to_num(-1))
    assert segmentation_scores(plain) == pytest.approx(segmentation_scores(renamed), rel=1e-15)


def test_class_that_is_only_predicted_costs_the_right_class_and_is_not_in_the_mean():
    target = torch.tensor([0, 0, 0, 0])
    pred = torch.tensor([0, 0, 1, 9])
    confusion = confusion_matrix(pred, target, 2)
    assert confusion.tolist() == [[2, 1, 1], [0, 0, 0]]
    assert iou_from_confusion(confusion)[0] == 0.5
    assert torch.isnan(iou_from_confusion(confusion)[1])
    assert segmentation_scores(confusion).miou == 0.5


def test_prediction_in_void_costs_nothing():
    scores = segmentation_scores(confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, -1, 1]), 2))
    assert scores == (1.0, 1.0, 1.0)


def test_all_void_is_nan():
    scores = segmentation_scores(confusion_matrix(torch.zeros(2, 2), torch.full((2, 2), -1), 3))
    assert np.isnan(scores).all()


def test_vspw_protocols_differ_only_by_their_taxonomy():
    classes, palette = tuple(f"class {i}" for i in range(124)), ((0, 0, 0),) * 124
    shifted = Taxonomy("shifted", classes, palette, {value: value - 1 for value in range(1, 125)})
    raw = Taxonomy("raw", classes, palette, {value: value for value in range(124)})
    values = torch.tensor([0, 1, 1, 123, 124, 254, 255], dtype=torch.uint8)
    as_predicted_raw = torch.tensor([0, 1, 2, 123, 124, 0, 0])
    # Void (0) is scored, 124 has no row and 255 is ignored; the one mistake is 2 for 1.
    counted = confusion_matrix(as_predicted_raw, raw.class_ids(values), 124)
    assert (counted.sum().item(), counted[0, 0].item(), counted[1, 2].item(), counted[123, 123].item()) == (4, 1, 1, 1)
    # Void is ignored and 124 is the last class.
    counted = confusion_matrix(as_predicted_raw - 1, shifted.class_ids(values), 124)
    assert (counted.sum().item(), counted[0, 0].item(), counted[0, 1].item(), counted[123, 123].item()) == (4, 1, 1, 1)
    assert counted[122, 122] == 1


def test_metric_sums_over_updates_and_resets():
    pred, target = (torch.tensor(ids) for ids in random_ids(11, num_classes=4))
    metric = SegmentationIoU(num_classes=4)
    for t in (2, 0, 1):
        metric.update(pred[t], target[t])
    assert metric.compute() == segmentation_scores(confusion_matrix(pred, target, 4))
    metric.reset()
    assert metric.confusion.sum() == 0
    assert metric.confusion.dtype == torch.int64


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\).*resize"):
        confusion_matrix(torch.zeros(2, 3), torch.zeros(2, 2), 2)
    with pytest.raises(ValueError, match=r"0\.\.255, allowed are 0\.\.1 and -1.*taxonomy"):
        confusion_matrix(torch.zeros(2), torch.tensor([0, 255]), 2)
    with pytest.raises(ValueError, match=r"class ids -2\.\.1, allowed"):
        confusion_matrix(torch.zeros(2), torch.tensor([-2, 1]), 2)
    with pytest.raises(ValueError, match=r"shape \(3, 3\), expected \[C, C \+ 1\]"):
        iou_from_confusion(torch.zeros(3, 3))
