"""Region similarity and contour accuracy against a plain oracle, their protocols, and exactness over processes."""

import json
import math

import pytest
import torch

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics import GivenFirstFrameNaming, VideoEvaluator, VideoResult, fold_results, video_table
from zsvss.metrics.objects import (
    ContourAccuracy,
    FrameCounts,
    ObjectFrames,
    RegionSimilarity,
    contour,
    dilate,
    frame_counts,
    object_scores,
    object_statistics,
)


def blob_masks(seed, num=1, height=37, width=53):
    """Random smooth masks [num, H, W]; some are empty, some cut off by the border."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, 1, height // 6, width // 6, generator=random)
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")[:, 0]
    return smooth > torch.rand(num, 1, 1, generator=random) * 1.5


def plain_contour(mask):
    """Set of (y, x) that differ from the pixel to the right, below or diagonally below, within the frame."""
    height, width = len(mask), len(mask[0])
    found = set()
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(v < height and u < width and mask[v][u] != mask[y][x] for v, u in neighbours):
                found.add((y, x))
    return found


def plain_values(pred, truth, void):
    """J and F of one frame from their definitions, pixel by pixel."""
    height, width = pred.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if not void[y, x]]
    inside_pred = {p for p in pixels if pred[p]}
    inside_truth = {p for p in pixels if truth[p]}
    union = inside_pred | inside_truth
    j = len(inside_pred & inside_truth) / len(union) if union else 1.0

    def drawn(inside):
        return [[(y, x) in inside for x in range(width)] for y in range(height)]

    found, wanted = plain_contour(drawn(inside_pred)), plain_contour(drawn(inside_truth))
    reach = math.ceil(0.008 * math.sqrt(height**2 + width**2))

    def share_near(some, others):
        near = [any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in others) for y, x in some]
        return sum(near) / len(near)

    if not found and not wanted:
        return j, 1.0
    if not found or not wanted:
        return j, 0.0
    precision, recall = share_near(found, wanted), share_near(wanted, found)
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(12))
def test_j_and_f_are_those_of_a_plain_count(seed):
    pred, truth, void = blob_masks(seed, num=3)
    void &= seed % 3 == 0
    if seed % 4 == 1:
        truth = pred.roll((seed, -1), (0, 1))  # contours that are near each other in part
    counts = frame_counts(pred, truth, void)
    assert (counts.region_similarity, counts.contour_accuracy) == pytest.approx(plain_values(pred, truth, void), abs=0)


@pytest.mark.parametrize(
    ("pred", "truth", "expected"), [(0, 0, (1, 1)), (0, 1, (0, 0)), (1, 0, (0, 0)), (1, 1, (1, 1))]
)
def test_empty_masks(pred, truth, expected):
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[5:9, 5:9] = True
    counts = frame_counts(mask & bool(pred), mask & bool(truth))
    assert (counts.region_similarity, counts.contour_accuracy) == expected


def test_a_mask_of_the_whole_frame_has_no_contour():
    assert not contour(torch.ones(5, 7, dtype=torch.bool)).any()


def test_the_tolerance_is_the_published_one_at_480p():
    """0.008 of the diagonal of 854x480 is 7.84 pixels: 8, as a disk."""
    point = torch.zeros(480, 854, dtype=torch.bool)
    point[100, 100] = True
    rows, columns = dilate(point).nonzero().T
    assert ((rows - 100) ** 2 + (columns - 100) ** 2).max() == 64
    assert len(rows) == sum(y * y + x * x <= 64 for y in range(-8, 9) for x in range(-8, 9))


@pytest.mark.parametrize("num_frames", range(1, 40))
def test_the_decay_compares_the_published_quarters(num_frames):
    """Bounds after the published rule: four bins between rounded, evenly spaced frame numbers from 1 to T."""
    values = torch.rand(num_frames, generator=torch.Generator().manual_seed(num_frames), dtype=torch.float64).tolist()
    step = (num_frames - 1) / 4
    bounds = [math.floor(1 + step * i + 1e-10 + 0.5) - 1 for i in range(5)]
    first, last = values[bounds[0] : bounds[1] + 1], values[bounds[3] : bounds[4] + 1]
    assert object_statistics(values).decay == pytest.approx(sum(first) / len(first) - sum(last) / len(last), abs=1e-12)


def test_the_semi_supervised_protocol_leaves_out_the_first_and_the_last_frame():
    frames = [FrameCounts(hits, 4, 0, 0, 0, 0) for hits in (0, 4, 3, 0)]
    assert object_scores([frames], "semi_supervised")["J"] == 0.875
    assert object_scores([frames], "all_frames")["J"] == 0.4375


def test_every_object_weighs_the_same_and_one_without_frames_nothing():
    right, wrong = FrameCounts(1, 1, 1, 1, 1, 1), FrameCounts(0, 1, 0, 1, 0, 1)
    scores = object_scores([[right] * 9, [wrong] * 3, [right] * 2], "semi_supervised")
    assert scores == {
        **{"J&F": 0.5, "J": 0.5, "J_recall": 0.5, "J_decay": 0.0, "F": 0.5, "F_recall": 0.5, "F_decay": 0.0}
    }
    assert all(math.isnan(score) for score in object_scores([], "semi_supervised").values())


def test_the_objects_of_a_video_are_those_of_its_first_frame():
    stream = ObjectFrames(range(1, 20))
    stream.update(torch.tensor([[0, 5, 1]]), torch.tensor([[0, -1, 2]]))
    stream.update(torch.tensor([[1, 5, 2]]), torch.tensor([[1, 3, 2]]))
    assert {number: [c.intersection for c in frames] for number, frames in stream.counts.items()} == {
        1: [0, 1],
        2: [0, 1],
    }


def test_void_pixels_count_for_nothing():
    pred, truth = torch.tensor([[1, 1, 0, 0]]), torch.tensor([[1, -1, -1, 0]])
    stream = ObjectFrames([1])
    stream.update(pred, truth)
    assert stream.counts[1][0][:2] == (1, 1)


def test_metrics_give_the_benchmark_s_numbers_whatever_the_order():
    videos = []
    for seed in range(3):
        pred, truth = (sum(blob_masks(10 * seed + k, num=5 + seed).long() for k in ks) for ks in ((0, 1), (0, 2)))
        videos.append((pred, truth))
    objects = []
    for pred, truth in videos:
        stream = ObjectFrames(range(1, 20))
        for pred_HW, truth_HW in zip(pred, truth, strict=True):
            stream.update(pred_HW, truth_HW)
        objects += stream.counts.values()
    expected = object_scores(objects, "semi_supervised")
    for kind, name in ((RegionSimilarity, "J"), (ContourAccuracy, "F")):
        for order in (videos, videos[::-1]):
            metric = kind()
            for pred, truth in order:
                metric.update(pred, truth)
            assert metric.compute() == (expected[name], expected[f"{name}_recall"], expected[f"{name}_decay"])


def test_a_result_carries_its_objects_through_a_record_into_the_benchmark_s_numbers():
    taxonomy = Taxonomy("pond", ("water", "duck", "swan"), ((0, 0, 0),) * 3, {0: 0, 1: 1, 2: 2}, objects=(1, 2))
    results, objects = [], []
    for seed in range(2):
        pred, truth = (blob_masks(7 + 3 * seed + k, num=6).long() for k in range(2))
        truth[:, 0] = 255
        evaluator = VideoEvaluator(f"pond-{seed}", taxonomy, GivenFirstFrameNaming(), windows=(2,))
        for part in (slice(0, 4), slice(4, 6)):
            evaluator.update(pred[part], truth[part], torch.ones(len(pred[part]), dtype=torch.bool))
        result = evaluator.finish()
        results.append(VideoResult.from_dict(json.loads(json.dumps(result.to_dict()))))
        assert results[-1].objects == result.objects
        assert list(result.objects) == [1]  # no swan in the first frame
        void = truth == 255
        objects.append([frame_counts(p == 1, t == 1, v) for p, t, v in zip(pred, truth, void, strict=True)])
        assert result.objects[1] == objects[-1]
    expected = object_scores(objects, "semi_supervised")
    numbers = fold_results(results)
    assert {name: numbers[f"test/{name}"] for name in expected} == expected
    assert [row["J"] for row in video_table(results)] == [object_scores([o], "semi_supervised")["J"] for o in objects]


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="'unsupervised' is unknown; allowed are semi_supervised, all_frames"):
        RegionSimilarity(protocol="unsupervised")
