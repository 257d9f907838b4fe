import itertools
import logging
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsvss.metrics.consistency import (
    ConsistencyWindows,
    mean_consistency,
    video_consistency,
)
from zsvss.metrics.consistency_metric import VideoConsistency

PROTOCOLS = ["official", "complete", "correct", "self"]


def random_video(seed, num_frames, num_values=4, shape=(3, 4)):
    """Predictions and raw ground truth that stay the same for a while: most pixels of a frame are those before."""
    rng = np.random.default_rng(seed)

    def sequence():
        frames = [rng.integers(0, num_values, shape)]
        for _ in range(num_frames - 1):
            frames.append(np.where(rng.random(shape) < 0.15, rng.integers(0, num_values, shape), frames[-1]))
        return np.stack(frames)

    return sequence(), sequence()


def windows_by_definition(pred, raw, window, protocol, class_ids=None):
    """The definition, window by window, re-reading every frame of every window."""
    num_frames = len(pred)
    last = {"official": num_frames - window, "correct": num_frames - window}.get(protocol, num_frames - window + 1)
    pairs = []
    for i in range(last):
        same_pred = np.all(pred[i : i + window] == pred[i], axis=0)
        same_truth = np.all(raw[i : i + window] == raw[i], axis=0)
        if protocol == "self":
            same_truth = np.ones_like(same_pred)
        right = np.ones_like(same_pred)
        if protocol == "correct":
            right = np.all(pred[i : i + window] == class_ids[i : i + window], axis=0)
        if same_truth.sum():
            pairs.append((int((same_truth & same_pred & right).sum()), int(same_truth.sum())))
    return pairs


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_frames=st.integers(1, 14),
    window=st.integers(1, 6),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_equals_the_definition(seed, num_frames, window, protocol):
    pred, raw = random_video(seed, num_frames)
    class_ids = np.where(raw == 0, -1, raw - 1)  # raw 0 is void
    expected = windows_by_definition(pred, raw, window, protocol, class_ids)
    found = video_consistency(
        torch.tensor(pred),
        torch.tensor(raw, dtype=torch.uint8),
        windows=(window,),
        protocol=protocol,
        class_THW=torch.tensor(class_ids),
    )
    assert found == {window: expected}


def test_several_windows_at_once_are_those_one_by_one():
    pred, raw = (torch.tensor(ids) for ids in random_video(1, 20))
    together = video_consistency(pred, raw, windows=(8, 3, 16))
    assert together == {c: video_consistency(pred, raw, windows=(c,))[c] for c in (8, 3, 16)}
    assert [len(pairs) for pairs in together.values()] == [12, 17, 4]


@pytest.mark.parametrize(("num_frames", "official", "complete"), [(7, 0, 0), (8, 0, 1), (9, 1, 2), (1, 0, 0)])
def test_short_videos(num_frames, official, complete):
    still = torch.ones(num_frames, 2, 2, dtype=torch.int64)
    assert video_consistency(still, still, (8,)) == {8: [(4, 4)] * official}
    assert video_consistency(still, still, (8,), "complete") == {8: [(4, 4)] * complete}
    assert video_consistency(still, None, (8,), "self") == {8: [(4, 4)] * complete}


def test_window_without_constant_ground_truth_is_dropped():
    flicker = (torch.arange(6) % 2).reshape(6, 1, 1).expand(6, 2, 2)
    still = torch.zeros_like(flicker)
    assert video_consistency(still, flicker, (2,)) == {2: []}
    assert video_consistency(flicker, still, (2,)) == {2: [(0, 4)] * 4}


def test_void_counts_and_a_wrong_constant_scores_unless_it_must_be_correct():
    raw = torch.tensor([255, 3]).reshape(1, 1, 2).expand(4, 1, 2)
    class_ids = torch.where(raw == 255, -1, raw)
    pred = torch.tensor([-1, 3]).reshape(1, 1, 2).expand(4, 1, 2)
    assert video_consistency(pred, raw, (2,)) == {2: [(2, 2)] * 2}
    assert video_consistency(pred + 1, raw, (2,)) == {2: [(2, 2)] * 2}
    # No prediction is right in void, not even one that is no class.
    assert video_consistency(pred, raw, (2,), "correct", class_ids) == {2: [(1, 2)] * 2}
    assert video_consistency(pred + 1, raw, (2,), "correct", class_ids) == {2: [(0, 2)] * 2}


def test_renaming_predicted_ids_changes_nothing():
    pred, raw = (torch.tensor(ids) for ids in random_video(2, 12))
    renamed = torch.tensor([7, 300, 0, 12])[pred]
    for protocol in ("official", "complete", "self"):
        assert video_consistency(pred, raw, (3, 5), protocol) == video_consistency(renamed, raw, (3, 5), protocol)


def test_merging_predicted_ids_never_lowers_a_window():
    pred, raw = (torch.tensor(ids) for ids in random_video(3, 12))
    before, after = video_consistency(pred, raw, (3,))[3], video_consistency(pred // 2, raw, (3,))[3]
    assert all(a[0] >= b[0] and a[1] == b[1] for a, b in zip(after, before, strict=True))
    assert after != before


def test_perfect_prediction_scores_one():
    _, raw = random_video(4, 12)
    for protocol in PROTOCOLS[:3]:
        pairs = video_consistency(torch.tensor(raw), torch.tensor(raw), (3,), protocol)[3]
        assert mean_consistency(pairs) == 1.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gap_in_the_ground_truth_breaks_windows(protocol):
    pred, raw = (torch.tensor(ids) for ids in random_video(5, 9))
    stream = ConsistencyWindows((3,), protocol)
    for t in range(9):
        if t == 4:
            stream.gap()
        else:
            stream.update(pred[t], raw[t])
    whole = "complete" if protocol in ("official", "correct") else protocol
    if protocol == "correct":
        expected = [*windows_by_definition(pred[:4].numpy(), raw[:4].numpy(), 3, "correct", raw[:4].numpy())]
        assert stream.pairs[3][:1] == expected
        assert len(stream.pairs[3]) == 2 + 1
    else:
        parts = [video_consistency(pred[part], raw[part], (3,), whole)[3] for part in (slice(0, 4), slice(5, 9))]
        # Only the last window of the video is left out, not the last one before the gap.
        assert stream.pairs[3] == (parts[0] + parts[1])[: 3 if protocol == "official" else 4]


def test_memory_does_not_grow_with_the_video():
    pred, raw = (torch.tensor(ids) for ids in random_video(6, 60))
    stream, sizes = ConsistencyWindows((100,)), []
    for t in range(60):
        stream.update(pred[t], raw[t])
        sizes.append(len(pickle.dumps(stream)))
    assert max(sizes[5:]) - min(sizes[5:]) < 16


def test_a_reused_buffer_is_harmless():
    pred, raw = (torch.tensor(ids) for ids in random_video(7, 8))
    stream, pred_buffer, raw_buffer = ConsistencyWindows((2,)), torch.empty_like(pred[0]), torch.empty_like(raw[0])
    for t in range(8):
        stream.update(pred_buffer.copy_(pred[t]), raw_buffer.copy_(raw[t]))
    assert stream.pairs == video_consistency(pred, raw, (2,))


def test_mean_is_exactly_rounded_in_any_order():
    rng = np.random.default_rng(0)
    totals = rng.integers(1, 10**6, 400)
    pairs = [(int(rng.integers(0, total + 1)), int(total)) for total in totals]
    exact = sum((Fraction(hits / total) for hits, total in pairs), Fraction(0))
    expected = float(exact) / len(pairs)
    for _ in range(20):
        rng.shuffle(pairs)
        assert mean_consistency([tuple(pair) for pair in pairs]) == expected


def test_metric_pools_windows_of_all_videos_in_any_order():
    videos = [
        tuple(torch.tensor(ids) for ids in random_video(seed, length)) for seed, length in [(1, 9), (2, 5), (3, 2)]
    ]
    pairs = [pair for pred, raw in videos for pair in video_consistency(pred, raw, (2,))[2]]
    for order in itertools.permutations(videos):
        metric = VideoConsistency(windows=(2,))
        for pred, raw in order:
            metric.update(pred, raw)
        assert metric.compute() == {"VC2": mean_consistency(pairs)}
    video_means = [mean_consistency(video_consistency(pred, raw, (2,))[2]) for pred, raw in videos if len(pred) > 2]
    assert metric.compute()["VC2"] != pytest.approx(np.mean(video_means))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metric_takes_a_video_clip_by_clip(protocol):
    pred, raw = (torch.tensor(ids) for ids in random_video(8, 17))
    whole, parts = VideoConsistency((2, 4), protocol), VideoConsistency((2, 4), protocol)
    whole.update(pred, raw)
    for start, stop in itertools.pairwise([0, 1, 6, 6, 14, 17]):
        parts.update(pred[start:stop], raw[start:stop], new_video=start == 0)
    assert whole.compute() == parts.compute()
    assert sorted(whole.compute()) == (
        ["self_consistency2", "self_consistency4"] if protocol == "self" else ["VC2", "VC4"]
    )


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_metric_forward_clone_and_reset():
    pred, raw = (torch.tensor(ids) for ids in random_video(9, 9))
    metric = VideoConsistency((2,))
    one = metric(pred, raw)
    copy = metric.clone()
    metric(pred[:5], raw[:5])
    both = VideoConsistency((2,))
    both.add(video_consistency(pred, raw, (2,)))
    both.add(video_consistency(pred[:5], raw[:5], (2,)))
    assert metric.compute() == both.compute()
    assert copy.compute() == one
    metric.reset()
    assert math.isnan(metric.compute()["VC2"])


def test_no_window_is_nan_and_said_in_the_log(caplog):
    metric = VideoConsistency()
    metric.update(torch.zeros(9, 2, 2), torch.zeros(9, 2, 2))
    with caplog.at_level(logging.WARNING):
        scores = metric.compute()
    assert scores["VC8"] == 1.0
    assert math.isnan(scores["VC16"])
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["VC16 is NaN"]


def test_errors_say_what_to_do():
    frame = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="'offical' is unknown; allowed are official, complete, correct, cffm, self"):
        ConsistencyWindows((8,), "offical")
    with pytest.raises(ValueError, match=r"\(0,\) must be distinct"):
        VideoConsistency((0,))
    with pytest.raises(ValueError, match="needs ground truth; without any, use 'self'"):
        video_consistency(frame[None], None)
    with pytest.raises(ValueError, match="resize"):
        video_consistency(frame[None], torch.zeros(1, 3, 3))
    stream = ConsistencyWindows((2,), "self")
    stream.update(frame)
    with pytest.raises(ValueError, match=r"different sizes: \(2, 2\), then \(3, 2\)"):
        stream.update(torch.zeros(3, 2))
