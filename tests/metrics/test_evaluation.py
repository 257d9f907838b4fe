import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics.evaluation import VideoEvaluator, VideoResult
from zsvss.metrics.naming import (
    FirstFrameNaming,
    HungarianNaming,
    LabelledFrameNaming,
    PosthocMajorityNaming,
    PosthocVideoNaming,
)

NUM_CLASSES = 4
# Raw 0 is void, 1..4 are the classes, everything else is ignored.
TAXONOMY = Taxonomy("test", ("a", "b", "c", "d"), ((0, 0, 0),) * NUM_CLASSES, {raw: raw - 1 for raw in range(1, 5)})
NAMINGS = [FirstFrameNaming, PosthocMajorityNaming, LabelledFrameNaming, PosthocVideoNaming, HungarianNaming]


def random_video(seed, num_frames, num_clusters=6, shape=(5, 6)):
    rng = np.random.default_rng(seed)
    raw = rng.choice([0, 1, 2, 3, 4, 255], shape)
    frames_pred, frames_raw = [], []
    for t in range(num_frames):
        raw = np.where(rng.random(shape) < 0.1, rng.choice([0, 1, 2, 3, 4, 255], shape), raw)
        noise = rng.random(shape) < 0.2
        frames_raw.append(raw)
        frames_pred.append(np.where(noise, rng.integers(0, num_clusters - (t == 0), shape), (raw * 3) % num_clusters))
    return np.stack(frames_pred), np.stack(frames_raw).astype(np.uint8)


def evaluate(pred, raw, naming, labelled=None, clips=None, **options):
    pred, raw = torch.tensor(pred), torch.tensor(raw)
    labelled = torch.ones(len(pred), dtype=torch.bool) if labelled is None else torch.tensor(labelled)
    evaluator = VideoEvaluator("video", TAXONOMY, naming, **options)
    for start, stop in itertools.pairwise(clips or [0, len(pred)]):
        evaluator.update(pred[start:stop], raw[start:stop], labelled[start:stop])
    return evaluator.finish()


def names_by_definition(pred, classes, naming, labelled):
    """Cluster names from whole arrays, one cluster at a time."""
    frames = {
        "posthoc_majority": [0],
        "labelled_frame": np.flatnonzero(labelled)[:1],
        "posthoc_video": np.flatnonzero(labelled),
    }[naming.name]
    names = {}
    for cluster in np.unique(pred[frames]):
        votes = [((pred[frames] == cluster) & (classes[frames] == c)).sum() for c in range(NUM_CLASSES)]
        if max(votes):
            names[int(cluster)] = int(np.argmax(votes))
    return names


def score_by_definition(named, raw, classes, labelled, window):
    """Confusion cells and official windows from whole arrays."""
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES + 1), dtype=int)
    for t in np.flatnonzero(labelled):
        for p, c in zip(named[t].ravel(), classes[t].ravel(), strict=True):
            if c >= 0:
                confusion[c, p if 0 <= p < NUM_CLASSES else NUM_CLASSES] += 1
    pairs = []
    last_labelled = np.flatnonzero(labelled)[-1]
    for i in range(len(raw) - window + 1):
        part = slice(i, i + window)
        if not labelled[part].all() or i + window - 1 == last_labelled:
            continue
        truth = (raw[part] == raw[i]).all(0)
        if truth.any():
            pairs.append((int((truth & (named[part] == named[i]).all(0)).sum()), int(truth.sum())))
    return confusion, pairs


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_frames=st.integers(1, 9),
    naming=st.sampled_from(NAMINGS),
    cuts=st.lists(st.integers(0, 9), max_size=3),
    gaps=st.sets(st.integers(1, 8), max_size=2),
)
def test_equals_whole_arrays_for_any_split_into_clips(seed, num_frames, naming, cuts, gaps):
    naming = naming()
    pred, raw = random_video(seed, num_frames)
    labelled = np.array([t not in gaps for t in range(num_frames)])
    classes = np.where((raw >= 1) & (raw <= 4), raw.astype(int) - 1, -1)
    clips = [0, *sorted(min(cut, num_frames) for cut in cuts), num_frames]
    result = evaluate(pred, raw, naming, labelled, clips, windows=(3,))

    names = result.names
    if naming.ground_truth_in_method:
        assert names == {}
        named = pred
    else:
        if naming.name != "hungarian":
            assert names == names_by_definition(pred, classes, naming, labelled)
        named = np.array([names.get(int(k), 100 + int(k)) for k in pred.ravel()]).reshape(pred.shape)
    confusion, pairs = score_by_definition(named, raw, classes, labelled, window=3)
    np.testing.assert_array_equal(result.confusion, confusion)
    assert result.windows == {3: pairs}
    assert (result.num_frames, result.num_labelled) == (num_frames, labelled.sum())


def test_hungarian_over_the_video_makes_the_most_pixels_right():
    pred, raw = random_video(1, 6)
    best = evaluate(pred, raw, HungarianNaming()).confusion.diagonal().sum()
    for classes in itertools.permutations([0, 1, 2, 3, 9, 9], 6):
        named = np.array(classes)[pred]
        assert (named == raw.astype(int) - 1).sum() <= best
    oracle = evaluate(pred, raw, PosthocVideoNaming()).confusion.diagonal().sum()
    first = evaluate(pred, raw, PosthocMajorityNaming()).confusion.diagonal().sum()
    assert oracle >= max(best, first)


def test_cluster_that_appears_later_is_wrong_but_consistent():
    raw = np.ones((5, 1, 2), dtype=np.uint8)
    pred = np.array([[[0, 0]], [[0, 7]], [[0, 7]], [[0, 7]], [[0, 7]]])
    result = evaluate(pred, raw, PosthocMajorityNaming(), windows=(2,))
    assert result.names == {0: 0}
    assert result.confusion[0].tolist() == [6, 0, 0, 0, 4]
    assert result.windows[2] == [(1, 2), (2, 2), (2, 2)]


def test_clusters_without_a_class_stay_apart():
    raw = np.zeros((4, 1, 2), dtype=np.uint8)  # all void: nothing votes
    pred = np.array([[[0, 1]], [[1, 1]], [[0, 1]], [[0, 1]]])
    result = evaluate(pred, raw, PosthocVideoNaming(), windows=(2,))
    assert result.names == {}
    assert result.confusion.sum() == 0
    assert result.windows[2] == [(1, 2), (1, 2)]


def test_clusters_that_share_a_class_merge():
    raw = np.ones((4, 1, 2), dtype=np.uint8)
    pred = np.array([[[0, 1]], [[1, 0]], [[0, 1]], [[1, 0]]])
    assert evaluate(pred, raw, PosthocMajorityNaming(), windows=(2,)).windows[2] == [(2, 2), (2, 2)]
    assert evaluate(pred, raw, HungarianNaming(), windows=(2,)).windows[2] == [(0, 2), (0, 2)]


def test_void_predicted_inside_the_method_is_wrong():
    naming = FirstFrameNaming(void_as_label=True)
    raw = np.array([[[0, 1, 2]]], dtype=np.uint8)
    labels = naming.first_labels(TAXONOMY.class_ids(torch.tensor(raw[0])), NUM_CLASSES)
    assert labels.tolist() == [[4, 0, 1]]
    result = evaluate(np.array([[[4, 4, 1]]]), raw, naming)
    assert result.confusion[:2].tolist() == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]


def test_single_labelled_frame_in_the_middle():
    pred, raw = random_video(2, 30)
    labelled = np.arange(30) == 19
    result = evaluate(pred, raw, LabelledFrameNaming(), labelled, [0, 14, 28, 30], windows=(8,), protocol="self")
    classes = np.where((raw >= 1) & (raw <= 4), raw.astype(int) - 1, -1)
    assert result.names == names_by_definition(pred, classes, LabelledFrameNaming(), labelled)
    assert result.confusion.sum() == (classes[19] >= 0).sum()
    assert result.num_labelled == 1
    named = np.array([result.names.get(int(k), 100 + int(k)) for k in pred.ravel()]).reshape(pred.shape)
    constant = [int((named[i : i + 8] == named[i]).all(0).sum()) for i in range(23)]
    assert result.windows == {8: [(count, 30) for count in constant]}
    # As video consistency, one labelled frame has no window.
    assert evaluate(pred, raw, LabelledFrameNaming(), labelled, windows=(8,)).windows == {8: []}


def test_no_ground_truth_at_all():
    evaluator = VideoEvaluator("video", TAXONOMY, HungarianNaming(), windows=(2,), protocol="self")
    evaluator.update(torch.zeros(3, 2, 2, dtype=torch.int64), None, torch.zeros(3, dtype=torch.bool))
    result = evaluator.finish()
    assert result.confusion.sum() == 0
    assert result.windows == {2: [(4, 4), (4, 4)]}


def test_scored_at_the_ground_truths_own_size():
    raw = np.array([[[1, 1, 2, 2], [1, 1, 2, 2]]], dtype=np.uint8)
    assert evaluate(np.array([[[0, 1]]]), raw, FirstFrameNaming()).confusion.diagonal().tolist() == [4, 4, 0, 0]
    assert evaluate(np.array([[[5, 3]]]), raw, HungarianNaming()).names == {3: 1, 5: 0}


def test_predictions_wait_compressed_and_are_let_go():
    evaluator = VideoEvaluator("video", TAXONOMY, HungarianNaming())
    still = torch.zeros(20, 128, 128, dtype=torch.int64)
    evaluator.update(still, still.byte() + 1, torch.ones(20, dtype=torch.bool))
    assert len(evaluator._kept) == 20
    assert sum(len(packed.data) for kept in evaluator._kept for packed in kept) < still.numel() // 50
    assert evaluator.finish().confusion.sum() == still.numel()
    assert evaluator._kept == []


def test_inputs_are_left_alone():
    pred, raw = (torch.tensor(ids) for ids in random_video(3, 4))
    before = pred.clone(), raw.clone()
    for naming in NAMINGS:
        evaluator = VideoEvaluator("video", TAXONOMY, naming())
        evaluator.update(pred, raw, torch.ones(4, dtype=torch.bool))
        evaluator.finish()
    assert torch.equal(pred, before[0])
    assert torch.equal(raw, before[1])


@pytest.mark.parametrize("naming", NAMINGS)
def test_result_survives_json_exactly(naming):
    pred, raw = random_video(4, 7)
    result = evaluate(pred, raw, naming(), windows=(2, 3))
    result = dataclasses.replace(result, seconds=0.1 + 0.2)
    record = result.to_dict()
    back = VideoResult.from_dict(json.loads(json.dumps(record)))
    assert back.to_dict() == record
    assert torch.equal(back.confusion, result.confusion)
    assert back.confusion.dtype == torch.int64
    for field in dataclasses.fields(VideoResult):
        if field.name != "confusion":
            assert getattr(back, field.name) == getattr(result, field.name), field.name


def test_errors_say_what_to_do():
    pred, raw = random_video(5, 3)
    for naming in (FirstFrameNaming, PosthocMajorityNaming):
        with pytest.raises(ValueError, match=r"video: its first frame has no ground truth.*use labelled_frame"):
            evaluate(pred, raw, naming(), [False, True, True])
    evaluator = VideoEvaluator("video", TAXONOMY, HungarianNaming())
    with pytest.raises(ValueError, match="video: 3 predicted frames, 2 flags and 3 ground-truth frames"):
        evaluator.update(torch.tensor(pred), torch.tensor(raw), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="lacks num_frames, num_labelled"):
        VideoResult.from_dict({"name": "a"})


def test_values_that_mean_nothing_are_told_with_their_pixels():
    taxonomy = dataclasses.replace(TAXONOMY, void=frozenset({0}))
    raw = np.array([[[0, 1, 2, 9]], [[9, 9, 2, 200]]], dtype=np.uint8)
    evaluator = VideoEvaluator("video", taxonomy, HungarianNaming())
    evaluator.update(torch.tensor([[[0, 1, 2, 3]]] * 2), torch.tensor(raw), torch.tensor([True, True]))
    (note,) = evaluator.finish().notes
    assert "neither a class nor void of test" in note
    assert note.endswith("9 (3 pixels), 200 (1 pixel)")
    assert evaluate(np.array([[[0, 1, 2]]]), raw[:1, :, :3], HungarianNaming()).notes == (
        "its ground truth holds values that are neither a class nor void of test and are not scored: 0 (1 pixel)",
    )  # by default, void is 255 alone


@pytest.mark.parametrize(("pred", "told"), [([[[2, 2]]] * 3, "class 'c'"), ([[[2, 2]], [[2, 1]]], None)])
def test_a_single_predicted_class_is_told(pred, told):
    raw = np.array([[[1, 3]]] * len(pred), dtype=np.uint8)
    result = evaluate(np.array(pred), raw, FirstFrameNaming(), clips=[0, 1, len(pred)])
    assert [note for note in result.notes if "its consistency over time says nothing" in note] == list(result.notes)
    assert (told in result.notes[0]) if told else not result.notes


def test_a_single_cluster_without_a_class_is_told():
    result = evaluate(np.full((2, 1, 2), 7), np.zeros((2, 1, 2), np.uint8), HungarianNaming())
    assert any("one cluster without a class" in note for note in result.notes)
