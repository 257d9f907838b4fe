"""K-nearest-neighbours against plain loops."""

import torch
from point_clouds import blobs, generator

from zsvss.stages import neighbors
from zsvss.stages.neighbors import elect, knn_classify, nearest_neighbors


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
    monkeypatch.setattr(neighbors, "MEMORY_BOUND", 5000)
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
