import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsvss.metrics.naming import (
    FirstFrameNaming,
    HungarianNaming,
    LabelledFrameNaming,
    PosthocMajorityNaming,
    PosthocVideoNaming,
    add_votes,
    cluster_votes,
    rename_clusters,
)

MAJORITY = [PosthocMajorityNaming, LabelledFrameNaming, PosthocVideoNaming]


def random_votes(seed, num_clusters, num_classes):
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 6, (num_clusters, num_classes))
    votes[rng.random(num_clusters) < 0.2] = 0
    return votes


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), num_clusters=st.integers(1, 6), num_classes=st.integers(1, 6))
def test_majority_is_a_vote_count_with_ties_to_the_smallest(seed, num_clusters, num_classes):
    votes = random_votes(seed, num_clusters, num_classes)
    expected = {}
    for cluster in range(num_clusters):
        for class_id in reversed(range(num_classes)):
            if votes[cluster, class_id] and votes[cluster, class_id] == votes[cluster].max():
                expected[cluster] = class_id
    for naming in MAJORITY:
        assert naming().assign(torch.tensor(votes)) == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), num_clusters=st.integers(1, 5), num_classes=st.integers(1, 5))
def test_hungarian_is_the_best_of_all_assignments(seed, num_clusters, num_classes):
    votes = random_votes(seed, num_clusters, num_classes)
    names = HungarianNaming().assign(torch.tensor(votes))
    assert len(set(names.values())) == len(names)
    assert all(votes[cluster, class_id] for cluster, class_id in names.items())
    padded = np.zeros((5, 5), dtype=int)
    padded[:num_clusters, :num_classes] = votes
    best = max(sum(padded[k, c] for k, c in enumerate(order)) for order in itertools.permutations(range(5)))
    assert sum(votes[cluster, class_id] for cluster, class_id in names.items()) == best


@pytest.mark.parametrize("naming", [*MAJORITY, HungarianNaming])
def test_renumbering_clusters_renumbers_their_names(naming):
    votes = torch.tensor([[9, 1, 0], [4, 8, 1], [0, 2, 7], [5, 0, 0]])
    order = [2, 0, 3, 1]
    names = naming().assign(votes)
    assert naming().assign(votes[order]) == {new: names[old] for new, old in enumerate(order) if old in names}


def test_more_clusters_than_classes_leaves_some_without_a_class():
    names = HungarianNaming().assign(torch.tensor([[9, 1], [8, 7], [7, 0]]))
    assert names == {0: 0, 1: 1}
    named = rename_clusters(torch.tensor([0, 1, 2, 3]), names, num_classes=2)
    assert named.tolist() == [0, 1, 4, 5]


def test_votes_equal_a_loop_and_grow_with_new_clusters():
    rng = np.random.default_rng(0)
    clusters, classes = rng.integers(-1, 5, (2, 4, 5)), rng.integers(-1, 3, (2, 4, 5))
    expected = np.zeros((5, 3), dtype=int)
    for cluster, class_id in zip(clusters.ravel(), classes.ravel(), strict=True):
        if cluster >= 0 and class_id >= 0:
            expected[cluster, class_id] += 1
    votes = torch.zeros(0, 3, dtype=torch.int64)
    for t in (0, 1):
        votes = add_votes(votes, cluster_votes(torch.tensor(clusters[t]), torch.tensor(classes[t]), 3))
    np.testing.assert_array_equal(votes, expected)
    few, many = torch.ones(1, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.int64)
    assert add_votes(few, many).tolist() == add_votes(many, few).tolist() == [[2, 2], [1, 1], [1, 1]]
    assert few.sum() == 2


def test_frames_without_votes():
    void = torch.full((2, 2), -1)
    assert cluster_votes(void, void, 3).shape == (0, 3)
    assert HungarianNaming().assign(torch.zeros(0, 3, dtype=torch.int64)) == {}
    assert PosthocVideoNaming().assign(torch.zeros(4, 3, dtype=torch.int64)) == {}


def test_names_of_absent_clusters_do_no_harm():
    assert rename_clusters(torch.tensor([[0]], dtype=torch.uint8), {9: 1}, num_classes=2).tolist() == [[2]]


@pytest.mark.parametrize(
    ("naming", "first_frame", "whole_video", "inside"),
    [
        (FirstFrameNaming, True, False, True),
        (PosthocMajorityNaming, True, False, False),
        (LabelledFrameNaming, False, False, False),
        (PosthocVideoNaming, False, True, False),
        (HungarianNaming, False, True, False),
    ],
)
def test_what_each_protocol_needs(naming, first_frame, whole_video, inside):
    assert naming().needs_first_frame_labels is first_frame
    assert naming().needs_whole_video is whole_video
    assert naming().ground_truth_in_method is inside
    assert naming.note


def test_first_frame_naming_has_nothing_to_assign():
    with pytest.raises(RuntimeError, match="inside the method"):
        FirstFrameNaming().assign(torch.ones(2, 2, dtype=torch.int64))
