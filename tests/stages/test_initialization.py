"""Ward, attention merging and recursive normalised cuts against plain definitions."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.cluster import ward_tree
from sklearn.feature_extraction.image import grid_to_graph
from toy_backbone import ToyBackbone

from zsvss.backbones.base import Conditioning, FeatureKey, Recording
from zsvss.stages.attention_merging import AttentionMerging, divergence, mean_attention, resized
from zsvss.stages.features import AttentionFeatures, FeaturePass
from zsvss.stages.initialization import WardInitialization, by_first_token, cluster_means
from zsvss.stages.normalized_cut import RecursiveNormalizedCut, best_split, normalized_cut

GRID = (6, 8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def three_regions(noise=0.05, seed=0):
    """Features of a frame with two things of one kind, left and right, on a ground, and the region of each token."""
    regions = torch.ones(GRID, dtype=torch.int64)
    regions[:, :2], regions[:, 6:] = 0, 2
    centers = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    features = centers[regions.flatten()] + noise * torch.randn(48, 3, generator=generator(seed))
    return features, regions.flatten()


def test_ward_keeps_unconnected_things_apart():
    features, regions = three_regions()
    assert torch.equal(WardInitialization()(features, GRID, 3), by_first_token(regions))


@pytest.mark.parametrize("num_clusters", [1, 2, 7, 48])
def test_ward_clusters_are_connected_and_as_many_as_asked_for(num_clusters):
    features = torch.randn(48, 4, generator=generator(1))
    clusters = WardInitialization()(features, GRID, num_clusters)
    assert clusters.unique().tolist() == list(range(num_clusters))
    for k in range(num_clusters):
        assert ndimage.label((clusters == k).view(GRID).numpy())[1] == 1


def test_ward_undoes_the_costliest_merges_of_its_tree():
    features = torch.randn(48, 4, generator=generator(2))
    children, _, _, _, heights = ward_tree(
        features.double().numpy(), connectivity=grid_to_graph(*GRID), return_distance=True
    )
    members = [{i} for i in range(48)]
    for left, right in children:
        members.append(members[left] | members[right])
    order = np.argsort(heights)[::-1]
    split = {48 + int(i) for i in order[:4]}  # five clusters: the four last merges are undone
    kept = {int(child) for i in order[:4] for child in children[i] if int(child) not in split}
    plain = torch.empty(48, dtype=torch.int64)
    for number, node in enumerate(kept):
        plain[list(members[node])] = number
    assert torch.equal(WardInitialization()(features, GRID, 5), by_first_token(plain))


def test_ward_stops_where_a_merge_costs_too_much():
    features, regions = three_regions()
    found = [WardInitialization(stop)(features, GRID, 20) for stop in (1e-6, 0.05, 1.0)]
    assert len(found[0].unique()) == 20, "num_clusters is the most there may be"
    assert torch.equal(found[1], by_first_token(regions))
    assert found[2].unique().tolist() == [0]
    # The merge of two regions adds n1 n2 / (n1 + n2) times the squared distance of their means.
    features = features[regions != 2]
    left, right = (features[regions[regions != 2] == k] for k in (0, 1))
    added = len(left) * len(right) / len(features) * float((left.mean(0) - right.mean(0)).square().sum())
    share = added / float((features - features.mean(0)).square().sum())
    assert len(WardInitialization(share * 0.999)(features, (6, 6), 20).unique()) == 2
    assert len(WardInitialization(share * 1.001)(features, (6, 6), 20).unique()) == 1
    with pytest.raises(ValueError, match=r"stop = 0 must be null"):
        WardInitialization(0)


def test_more_clusters_than_tokens_is_refused():
    with pytest.raises(ValueError, match="num_clusters = 99 does not fit 48 tokens"):
        WardInitialization()(torch.zeros(48, 2), GRID, 99)


def test_cluster_means():
    features = torch.tensor([[0.0], [2.0], [7.0]])
    assert cluster_means(features, torch.tensor([0, 0, 1])).tolist() == [[1.0], [7.0]]


# Recursive normalised cuts


def test_cuts_find_the_number_of_kinds():
    features, regions = three_regions()
    kinds = torch.where(regions == 2, 0, regions)  # no grid in the graph: the two things are one
    assert torch.equal(RecursiveNormalizedCut()(features, GRID, 20), by_first_token(kinds))


def test_the_threshold_decides_the_number_of_segments():
    features = torch.randn(48, 3, generator=generator(3))
    counts = [
        len(RecursiveNormalizedCut(threshold, exponent=4)(features, GRID, 20).unique())
        for threshold in (0, 0.3, 0.6, 2)
    ]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] > counts[1]


def test_alike_tokens_are_not_cut():
    assert RecursiveNormalizedCut()(torch.ones(48, 3), GRID, 20).unique().tolist() == [0]


@pytest.mark.parametrize("seed", range(3))
def test_the_normalised_cut_is_its_plain_definition(seed):
    affinity = np.random.default_rng(seed).random((7, 7))
    affinity += affinity.T
    is_upper = np.array([True, False, True, True, False, False, False])
    upper, lower = np.flatnonzero(is_upper), np.flatnonzero(~is_upper)
    between = sum(affinity[i, j] for i in upper for j in lower)
    plain = sum(between / sum(affinity[i, j] for i in side for j in range(7)) for side in (upper, lower))
    assert normalized_cut(affinity, is_upper) == pytest.approx(plain)
    assert normalized_cut(affinity, np.ones(7, dtype=bool)) == np.inf


def test_the_best_split_of_two_loosely_linked_groups_is_between_them():
    affinity = np.full((10, 10), 0.01)
    affinity[:4, :4] = affinity[4:, 4:] = 1
    is_upper, cut = best_split(affinity, 10)
    assert is_upper.tolist() in ([True] * 4 + [False] * 6, [False] * 4 + [True] * 6)
    assert cut == pytest.approx(0.24 / (16 + 0.24) + 0.24 / (36 + 0.24))


def test_cuts_may_go_by_features_of_their_own():
    features, regions = three_regions()
    own = RecursiveNormalizedCut(features=AttentionFeatures(blocks=(8,), normalization="none"))
    keys = own.keys(ToyBackbone())
    assert keys == [FeatureKey(24, 8)]
    recording = Recording(torch.zeros(1, 4, 12, 16), Conditioning(torch.zeros(2, 1, 1)))
    recording.tensors[keys[0]] = features.expand(2, 1, -1, -1)
    seen = FeaturePass(ToyBackbone(), recording, torch.zeros(1, 3, 96, 128))
    others = torch.zeros(48, 2)
    kinds = torch.where(regions == 2, 0, regions)
    assert torch.equal(own(others, GRID, 20, seen), by_first_token(kinds))
    with pytest.raises(ValueError, match="needs the feature pass"):
        own(others, GRID, 20)
    with pytest.raises(ValueError, match=r"grid of \(6, 8\) tokens, features on \(3, 4\)"):
        own(others, (3, 4), 20, seen)


# Merging of attention maps


def attention_pass(query, key, block=7, grid=GRID):
    recording = Recording(torch.zeros(1, 4, 12, 16), Conditioning(torch.zeros(2, 1, 1)), grids={block: grid})
    for projection, tensor in (("query", query), ("key", key)):
        recording.tensors[FeatureKey(24, block, "self", projection)] = torch.stack([torch.zeros_like(tensor), tensor])
    return FeaturePass(ToyBackbone(), recording, torch.zeros(1, 3, 96, 128))


def test_maps_of_one_kind_are_merged_and_their_number_is_found():
    features, regions = three_regions()
    seen = attention_pass(6 * features[None], 6 * features[None])
    kinds = torch.where(regions == 2, 0, regions)
    merging = AttentionMerging(blocks=(7,), head_channels=3)
    assert torch.equal(merging(features, GRID, 20, seen), by_first_token(kinds))
    finest = AttentionMerging(threshold=-1, blocks=(7,), head_channels=3)(features, GRID, 20, seen)
    assert len(finest.unique()) > 2


def test_attention_is_averaged_over_heads():
    query, key = torch.randn(2, 5, 8, generator=generator())
    heads = []
    for head in range(2):
        channels = slice(4 * head, 4 * head + 4)
        scores = np.exp((query[:, channels] @ key[:, channels].T).numpy() / 2)
        heads.append(scores / scores.sum(1, keepdims=True))
    np.testing.assert_allclose(mean_attention(query, key, 4).numpy(), np.mean(heads, 0), atol=1e-6)
    with pytest.raises(ValueError, match=r"head_channels = 3 does not divide 8"):
        mean_attention(query, key, 3)


def test_the_divergence_is_symmetric_kullback_leibler():
    maps = torch.rand(4, 9, generator=generator()) + 0.01
    maps[0, 0] = 0
    maps /= maps.sum(1, keepdim=True)
    result = divergence(maps[1:], maps[1:])
    for i, p in enumerate(maps[1:].double()):
        for j, q in enumerate(maps[1:].double()):
            plain = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
            assert float(result[i, j]) == pytest.approx(float(plain), abs=1e-5)
    assert divergence(maps[:1], maps[:1]).item() == pytest.approx(0, abs=1e-5)
    assert torch.isfinite(divergence(maps, maps)).all()


def test_maps_are_resized_on_both_sides():
    maps = torch.rand(6, 6, generator=generator())
    larger = resized(maps, (2, 3), (4, 6)).view(4, 6, 4, 6)
    once = torch.nn.functional.interpolate(maps.view(1, 6, 2, 3), (4, 6), mode="bilinear")[0]
    for query in [(0, 0), (3, 5)]:  # corners: the looking token is a corner cell of the small grid
        corner = (query[0] // 3) * 3 + (query[1] // 5) * 2
        torch.testing.assert_close(larger[query], once[corner])
    assert resized(maps, (2, 3), (2, 3)) is maps


def test_attention_needs_the_feature_pass():
    with pytest.raises(ValueError, match="AttentionMerging needs the feature pass"):
        AttentionMerging()(torch.zeros(48, 3), GRID, 4)
