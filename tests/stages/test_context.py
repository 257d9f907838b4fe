"""Scene context models: naming, carrying over from clip to clip, invariants over every class."""

import inspect
from collections import Counter

import pytest
import torch

from zsvss.stages import context as context_module
from zsvss.stages.context import KNNSceneContext, Memory, SceneContext, name_clusters
from zsvss.stages.neighbors import knn_classify
from zsvss.stages.per_frame import PerFrameClustering

CONTEXTS = [
    cls
    for _, cls in inspect.getmembers(context_module, inspect.isclass)
    if issubclass(cls, SceneContext) and not inspect.isabstract(cls)
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def moving_blobs(num_frames=4, tokens=40, seed=0):
    """Tokens of four well separated kinds; kinds move between frames. Returns features and the kind of each token."""
    random = generator(seed)
    centers = torch.eye(4, 6) * 10
    kinds = torch.stack([torch.randperm(tokens, generator=random) % 4 for _ in range(num_frames)])
    return centers[kinds] + 0.1 * torch.randn(num_frames, tokens, 6, generator=random), kinds


@pytest.mark.parametrize("cls", CONTEXTS)
class TestEveryContext:
    def test_labels_follow_the_content_through_two_clips(self, cls):
        features, kinds = moving_blobs(num_frames=6)
        context = cls(num_clusters=4)
        first, memory = context.start(features[:3], generator())
        memory = context.update(features[:3], first, memory)
        second, _ = context.resume(features[3:], memory, generator(1))
        labels = torch.cat([first, second])
        label_of_kind = {kind: set(labels[kinds == kind].tolist()) for kind in range(4)}
        assert all(len(found) == 1 for found in label_of_kind.values())
        assert set.union(*label_of_kind.values()) == set(range(4))

    def test_ground_truth_names_merge_clusters(self, cls):
        features, kinds = moving_blobs()
        names = torch.tensor([200, 7, 7, 31])  # kinds 1 and 2 are one class
        labels, memory = cls(num_clusters=4).start(features, generator(), names[kinds[0]])
        assert torch.equal(labels, names[kinds])
        assert memory.label_set_L.tolist() == [7, 31, 200]
        clusters_n, classes_n = memory.clusters_2n
        assert torch.equal(classes_n, names[kinds[0]])
        assert {len(set(clusters_n[kinds[0] == kind].tolist())) for kind in range(4)} == {1}, (
            "clusters before they merge"
        )
        assert sorted(set(clusters_n.tolist())) == [0, 1, 2, 3]

    def test_one_frame_works_and_inputs_stay(self, cls):
        features, _ = moving_blobs(num_frames=1)
        before = features.clone()
        labels, memory = cls(num_clusters=4).start(features, generator())
        assert labels.shape == (1, 40)
        assert memory.clusters_2n is None, "nothing has a class"
        assert torch.equal(features, before)
        context = cls(num_clusters=4)
        assert context.resume(features, memory, generator())[0].shape == (1, 40)

    def test_the_label_set_never_changes_after_the_first_clip(self, cls):
        features, _ = moving_blobs()
        context = cls(num_clusters=4)
        labels, memory = context.start(features, generator())
        updated = context.update(features, torch.zeros_like(labels), memory)
        _, after = context.resume(features, updated, generator())
        assert torch.equal(after.label_set_L, memory.label_set_L)

    def test_more_clusters_than_tokens_is_refused(self, cls):
        features, _ = moving_blobs(tokens=8)
        with pytest.raises(ValueError, match="num_clusters = 99"):
            cls(num_clusters=99).start(features, generator())


def test_knn_is_fitted_on_the_first_frame_and_then_on_the_whole_last_clip():
    features, _ = moving_blobs(seed=3)
    context = KNNSceneContext(num_clusters=4)
    labels, memory = context.start(features, generator())
    assert torch.equal(memory.points_Nc, features[0])
    refined = (labels + 1) % 4
    updated = context.update(features, refined, memory)
    assert torch.equal(updated.points_Nc, features.flatten(0, 1))
    expected = knn_classify(features[1], features.flatten(0, 1), refined.flatten(), 4)
    assert torch.equal(context.resume(features[1:2], updated, generator())[0][0], expected)


def test_the_memory_may_be_of_the_last_frames():
    features = torch.randn(3, 6, 2, generator=generator())
    labels = torch.arange(18).view(3, 6) % 4
    context = KNNSceneContext(4, memory_frames=2)
    memory = context.update(features, labels, Memory(features[0], labels[0], labels.unique()))
    assert torch.equal(memory.points_Nc, features[1:].flatten(0, 1))
    assert torch.equal(memory.labels_N, labels[1:].flatten())
    assert memory.label_set_L.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"memory_frames = 0 must be at least 1"):
        KNNSceneContext(memory_frames=0)


def test_fitting_the_first_frame_alone_ignores_the_others():
    features, _ = moving_blobs()
    other = features.clone()
    other[1:] = 0
    first = KNNSceneContext(num_clusters=4, fit_frames="first")
    assert torch.equal(first.start(features, generator())[1].labels_N, first.start(other, generator())[1].labels_N)


def plain_names(clusters, classes, centers):
    """Majority class of each cluster, void apart; a cluster without votes asks its nearest named neighbour."""
    names = {}
    for k in range(len(centers)):
        votes = Counter(
            c for cluster, c in zip(clusters.tolist(), classes.tolist(), strict=True) if cluster == k and c >= 0
        )
        if votes:
            most = max(votes.values())
            names[k] = min(c for c, count in votes.items() if count == most)
    for k in set(range(len(centers))) - set(names):
        nearest = min(set(names) & set(range(len(centers))), key=lambda j: float((centers[k] - centers[j]).norm()))
        names[k] = names[nearest]
    return [names[k] for k in range(len(centers))]


@pytest.mark.parametrize("seed", range(5))
def test_names_are_the_plain_majority(seed):
    random = generator(seed)
    clusters = torch.randint(5, (30,), generator=random)  # cluster 5 stays empty
    classes = torch.randint(-1, 3, (30,), generator=random)
    centers = torch.randn(6, 3, generator=random)
    result = name_clusters(clusters, classes, centers)
    named = [k for k in range(6) if ((clusters == k) & (classes >= 0)).any()]
    expected = plain_names(clusters, classes, centers)
    assert [int(result[k]) for k in named] == [expected[k] for k in named]
    unnamed = sorted(set(range(6)) - set(named))
    for k in unnamed:
        nearest = min(named, key=lambda j: float((centers[k] - centers[j]).norm()))
        assert int(result[k]) == int(result[nearest])


def test_a_frame_of_void_names_every_cluster_void_and_keeps_them_apart():
    clusters = torch.tensor([0, 1, 1])
    result = name_clusters(clusters, torch.full((3,), -1), torch.zeros(2, 2))
    assert result.tolist() == [-1, -2]


def test_per_frame_clusters_are_matched_one_to_one():
    features, kinds = moving_blobs(num_frames=5, seed=7)
    drifting = features + torch.arange(5)[:, None, None] * 1.5  # centres move, their order of distance does not
    labels, _ = PerFrameClustering(num_clusters=4).start(drifting, generator())
    for kind in range(4):
        assert len(set(labels[kinds == kind].tolist())) == 1
