"""K-means and KNN against brute force and scikit-learn."""

import itertools

import pytest
import torch
from sklearn.cluster import KMeans as ReferenceKMeans

from zsvss.stages import clustering
from zsvss.stages.clustering import elect, kmeans, knn_classify, nearest_neighbors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(num_points=300, num_channels=8, num_blobs=6, seed=0):
    centers = torch.randn(num_blobs, num_channels, generator=generator(seed)) * 3
    which = torch.randint(num_blobs, (num_points,), generator=generator(seed + 1))
    return centers[which] + torch.randn(num_points, num_channels, generator=generator(seed + 2))


def objective(points, labels, num_clusters):
    """Sum of squared distances to the mean of each cluster, in plain loops."""
    total = 0.0
    for k in range(num_clusters):
        members = points[labels == k].double()
        if len(members):
            total += float(((members - members.mean(0)) ** 2).sum())
    return total


def test_kmeans_finds_the_optimum_that_enumeration_finds():
    points = torch.randn(9, 2, generator=generator(3))
    best = min(objective(points, torch.tensor(labels), 3) for labels in itertools.product(range(3), repeat=9))
    assert kmeans(points, 3, generator=generator(), num_restarts=30).inertia == pytest.approx(best, rel=1e-6)


def test_kmeans_objective_is_not_above_scikit_learn():
    points = blobs()
    reference = ReferenceKMeans(8, n_init=10, random_state=0).fit(points.numpy()).inertia_
    result = kmeans(points, 8, generator=generator())
    assert result.inertia <= reference * 1.001  # restarts are random: 0.1 %
    assert result.inertia == pytest.approx(objective(points, result.labels_N, 8), rel=1e-5)


def test_kmeans_from_given_centers_agrees_with_scikit_learn():
    points = blobs(seed=5)
    start = points[:7]
    reference = ReferenceKMeans(7, init=start.numpy(), n_init=1).fit(points.numpy())
    result = kmeans(points, 7, initial_centers_Kc=start)
    assert result.labels_N.tolist() == reference.labels_.tolist()
    torch.testing.assert_close(result.centers_Kc, torch.from_numpy(reference.cluster_centers_), atol=1e-4, rtol=0)


def test_kmeans_assigns_every_point_to_its_nearest_center():
    points = blobs(seed=8)
    result = kmeans(points, 5, generator=generator())
    assert result.labels_N.tolist() == torch.cdist(points, result.centers_Kc).argmin(1).tolist()


def test_kmeans_depends_on_its_generator_alone():
    points = blobs(seed=1)
    before = points.clone()
    torch.manual_seed(1)
    first = kmeans(points, 6, generator=generator(4))
    torch.manual_seed(2)
    second = kmeans(points, 6, generator=generator(4))
    assert torch.equal(first.centers_Kc, second.centers_Kc)
    assert torch.equal(points, before)


def test_kmeans_in_small_chunks_finds_the_same_clusters(monkeypatch):
    points = blobs(seed=2)
    whole = kmeans(points, 6, generator=generator())
    monkeypatch.setattr(clustering, "MEMORY_BOUND", 4096)
    chunked = kmeans(points, 6, generator=generator())
    assert torch.equal(whole.labels_N, chunked.labels_N)
    assert chunked.inertia == pytest.approx(whole.inertia, rel=1e-6)


def test_kmeans_survives_fewer_distinct_points_than_clusters():
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0]])
    result = kmeans(points, 4, generator=generator())
    assert result.inertia == 0
    assert torch.isfinite(result.centers_Kc).all()


@pytest.mark.parametrize("num_clusters", [0, 6])
def test_kmeans_refuses_an_impossible_number_of_clusters(num_clusters):
    with pytest.raises(ValueError, match=rf"num_clusters = {num_clusters} does not fit 5 points.*between 1 and 5"):
        kmeans(torch.zeros(5, 2), num_clusters, generator=generator())


def test_kmeans_wants_a_source_of_randomness():
    with pytest.raises(ValueError, match="generator"):
        kmeans(torch.zeros(5, 2), 2)


def plain_neighbors(query, points, num_neighbors):
    distances = [(float(((query.double() - point.double()) ** 2).sum()), i) for i, point in enumerate(points)]
    return [i for _, i in sorted(distances)[:num_neighbors]]


def test_neighbors_are_those_of_a_plain_loop():
    points, queries = blobs(seed=3)[:60], blobs(seed=4)[:40]
    found = nearest_neighbors(queries, points, 4)
    assert found.tolist() == [plain_neighbors(query, points, 4) for query in queries]


def test_neighbors_far_from_the_origin_are_ordered_exactly():
    """Distances by expansion in float32 alone would lose every digit here."""
    points = 1000 + torch.randn(50, 4, generator=generator()) * 1e-2
    found = nearest_neighbors(points[:20], points, 4)
    assert found.tolist() == [plain_neighbors(query, points, 4) for query in points[:20]]


def test_equal_distances_go_to_the_smaller_index():
    points = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [5.0]])
    assert nearest_neighbors(torch.zeros(1, 1), points, 3).tolist() == [[0, 1, 2]]


def test_neighbors_do_not_depend_on_chunks(monkeypatch):
    points, queries = blobs(seed=6), blobs(seed=7)
    whole = nearest_neighbors(queries, points, 5)
    monkeypatch.setattr(clustering, "MEMORY_BOUND", 5000)
    assert torch.equal(nearest_neighbors(queries, points, 5), whole)


def test_classification_is_a_uniform_vote_with_ties_to_the_smallest_label():
    points = torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]])
    labels = torch.tensor([200, 7, 7, 200, 1])
    assert knn_classify(torch.tensor([[0.15]]), points, labels, 4).tolist() == [7]


def test_classification_with_fewer_points_than_neighbors_lets_all_vote():
    assert knn_classify(torch.zeros(2, 1), torch.zeros(1, 1), torch.tensor([3]), 4).tolist() == [3, 3]


def test_classification_permutes_with_its_labels():
    points, queries = blobs(seed=9), blobs(seed=10)
    labels = torch.randint(5, (len(points),), generator=generator())
    shift = labels + 100  # keeps the order that decides ties
    assert torch.equal(knn_classify(queries, points, shift), knn_classify(queries, points, labels) + 100)


def test_elect_is_the_plain_majority():
    votes = torch.randint(4, (50, 6), generator=generator())
    label_set = torch.tensor([2, 3, 5, 8, 13, 21])
    plain = [
        min(label for label, vote in zip(label_set.tolist(), row, strict=True) if vote == max(row))
        for row in votes.tolist()
    ]
    assert elect(votes, label_set).tolist() == plain
