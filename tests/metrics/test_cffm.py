"""Consistency protocol `cffm` against a plain transcription of the rule, over whole videos."""

import math

import numpy as np
import pytest
import torch

from zsvss.data.camvid import CAMVID_11
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.vspw import VSPW_RAW, VSPW_SHIFTED
from zsvss.metrics.benchmark import fold_results
from zsvss.metrics.consistency import tell_scored_zero, video_consistency
from zsvss.metrics.evaluation import VideoEvaluator
from zsvss.metrics.naming import FirstFrameNaming

LENGTHS = (9, 16, 17, 24, 30)


def slow_video(seed, num_frames, values, shape=(6, 7)):
    rng = np.random.default_rng(seed)
    frames = [rng.choice(values, shape)]
    for _ in range(num_frames - 1):
        frames.append(np.where(rng.random(shape) < 0.05, rng.choice(values, shape), frames[-1]))
    return np.stack(frames)


@pytest.fixture(scope="module")
def videos():
    """Class ids predicted and raw values, void of both kinds among them, 0 and 255 next to each other in time."""
    return [
        (slow_video(seed, length, range(5)), slow_video(100 + seed, length, [0, 1, 2, 3, 4, 254, 255]))
        for seed, length in enumerate(LENGTHS)
    ]


def plain_rule(videos, windows, class_of_raw):
    """What the script does, video by video: short ones are skipped, 0 becomes 255, then mean IoU and windows."""
    intersection, union, of_window = np.zeros(124), np.zeros(124), {c: [] for c in windows}
    has_truth = np.zeros(124, bool)
    for pred, raw in videos:
        if len(raw) <= 16:
            continue
        raw = raw.copy()
        raw[raw == 0] = 255
        truth = np.array([class_of_raw.get(int(value), -1) for value in raw.ravel()]).reshape(raw.shape)
        for c in range(124):
            scored = truth >= 0
            intersection[c] += ((pred == c) & (truth == c)).sum()
            union[c] += (((pred == c) | (truth == c)) & scored).sum()
            has_truth[c] |= bool((truth == c).any())
        for window in windows:
            for i in range(len(raw) - window):
                same_truth = (raw[i : i + window] == raw[i]).all(0)
                same_pred = (pred[i : i + window] == pred[i]).all(0)
                if same_truth.sum():
                    of_window[window].append((same_truth & same_pred).sum() / same_truth.sum())
    return (intersection[has_truth] / union[has_truth]).mean(), {c: np.mean(of_window[c]) for c in windows}


def evaluate(videos, taxonomy, protocol="cffm"):
    results = []
    for number, (pred, raw) in enumerate(videos):
        evaluator = VideoEvaluator(f"video {number}", taxonomy, FirstFrameNaming(), (8, 16), protocol)
        for start in range(0, len(pred), 7):
            part = slice(start, start + 7)
            labelled_T = torch.ones(len(pred[part]), dtype=torch.bool)
            evaluator.update(torch.tensor(pred[part]), torch.tensor(raw[part], dtype=torch.uint8), labelled_T)
        results.append(evaluator.finish())
    return results


@pytest.mark.parametrize("taxonomy", [VSPW_SHIFTED, VSPW_RAW], ids=lambda taxonomy: taxonomy.name)
def test_equals_the_plain_rule(videos, taxonomy):
    results = evaluate(videos, taxonomy)
    numbers = fold_results(results)
    miou, consistency = plain_rule(videos, (8, 16), taxonomy.class_of_raw)
    assert numbers["test/mIoU"] == pytest.approx(miou, rel=1e-12)
    assert numbers["test/VC8"] == pytest.approx(consistency[8], rel=1e-12)
    assert numbers["test/VC16"] == pytest.approx(consistency[16], rel=1e-12)
    official = fold_results(evaluate(videos, taxonomy, "official"))
    assert all(official[name] != numbers[name] for name in ("test/mIoU", "test/VC8", "test/VC16"))


def test_short_videos_are_left_out_everywhere_and_it_is_said(videos):
    results = evaluate(videos, VSPW_SHIFTED)
    assert [bool(result.confusion.sum()) for result in results] == [length > 16 for length in LENGTHS]
    assert [result.num_labelled for result in results] == [0, 0, 17, 24, 30]
    assert [len(result.windows[8]) for result in results] == [0, 0, 9, 16, 22]
    for length, result in zip(LENGTHS, results, strict=True):
        assert any("left out of every score" in note for note in result.notes) == (length <= 16)
    assert math.isnan(fold_results(results[:2])["test/mIoU"])


def test_short_videos_are_left_out_of_j_and_f():
    rng = np.random.default_rng(0)
    taxonomy = Taxonomy("lake", ("sky", "swan"), ((0, 0, 255), (255, 255, 255)), {1: 0, 2: 1}, objects=(1,))
    videos = [(rng.integers(0, 2, (length, 6, 7)), rng.integers(1, 3, (length, 6, 7))) for length in (16, 17)]
    short, long = evaluate(videos, taxonomy)
    assert short.objects == {}
    assert [len(frames) for frames in long.objects.values()] == [17]
    both, alone = fold_results([short, long]), fold_results([long])
    scores = both.keys() - {"test/num_videos", "test/num_frames"}
    assert scores >= {"test/J", "test/F", "test/J&F"}
    for name in scores:
        assert both[name] == pytest.approx(alone[name], rel=0, abs=0, nan_ok=True), name
    assert (both["test/num_videos"], both["test/num_frames"], both["test/num_labelled_frames"]) == (2, 33, 17)
    official = fold_results(evaluate(videos, taxonomy, "official"))
    assert official["test/J"] != alone["test/J"]


def test_whole_videos_at_once(videos):
    pred, raw = (torch.tensor(ids) for ids in videos[-1])
    merged = torch.where(raw == 0, 255, raw)
    assert video_consistency(pred, raw, (8,), "cffm") == video_consistency(pred, merged, (8,))
    assert video_consistency(pred[:16], raw[:16], (8,), "cffm") == {8: []}


def test_a_class_that_is_not_scored_is_told(caplog):
    tell_scored_zero("cffm", CAMVID_11)
    assert "raw value 0 void, which is class 'Sky' of camvid-11" in caplog.text
    caplog.clear()
    tell_scored_zero("cffm", VSPW_SHIFTED)
    tell_scored_zero("official", CAMVID_11)
    assert not caplog.text


def test_a_class_of_value_255_is_refused():
    binary = Taxonomy(
        "swan-masks", ("background", "object"), ((0, 0, 0), (128, 0, 0)), {0: 0, 255: 1}, void=frozenset()
    )
    with pytest.raises(
        ValueError, match=r"cffm makes raw value 0 the void value 255, which is class 'object' of swan-m"
    ):
        tell_scored_zero("cffm", binary)
