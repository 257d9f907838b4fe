"""K-means against enumeration and scikit-learn."""

import itertools

import pytest
import torch
from point_clouds import blobs, generator
from sklearn.cluster import KMeans as ReferenceKMeans

from zsvss.stages import neighbors
from zsvss.stages.kmeans import kmeans


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
    monkeypatch.setattr(neighbors, "MEMORY_BOUND", 4096)
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
