"""Correspondence-based refinement against a plain reading of its definition."""

import math
from collections import Counter

import pytest
import torch

from zsvss.stages.features import AttentionFeatures, normalize
from zsvss.stages.refinement import Compared, CorrespondenceRefinement, track, truncated_start_points, vote_along

GRID = (4, 6)


def random_clip(num_frames=5, seed=0, drift=0.3):
    """Unit features that change slowly, so that trajectories of every kind occur, and random labels."""
    generator = torch.Generator().manual_seed(seed)
    tokens = GRID[0] * GRID[1]
    base = torch.randn(tokens, 8, generator=generator)
    frames = [base + drift * t * torch.randn(tokens, 8, generator=generator) for t in range(num_frames)]
    labels = torch.randint(10, 14, (num_frames, tokens), generator=generator)
    return normalize(torch.stack(frames), "euclidean"), labels


def plain_refinement(features, labels, *, skip_first_hop, one_sided, starts):
    """The definition, hop by hop and cell by cell."""
    num_frames, num_tokens, _ = features.shape
    width = GRID[1]
    refined = labels.clone()
    for start in starts:
        path = [start]
        kept = True
        for t in range(num_frames - 1):
            here = features[t, path[-1]].double()
            weight = t if skip_first_hop else t + 1
            similarities = [
                weight / (weight + 1) * float(here @ features[t + 1, s].double())
                + 1 / (weight + 1) * float(here @ features[0, s].double())
                for s in range(num_tokens)
            ]
            there = max(range(num_tokens), key=similarities.__getitem__)
            moves = (there // width - path[-1] // width, there % width - path[-1] % width)
            kept &= all((move if one_sided else abs(move)) <= 1 for move in moves)
            path.append(there)
        if kept:
            met = [int(labels[t, p]) for t, p in enumerate(path)]
            label = Counter(met).most_common(1)[0][0]  # Counter keeps the order of first meeting among ties
            for t, p in enumerate(path):
                refined[t, p] = label
    return refined


@pytest.mark.parametrize("skip_first_hop", [False, True])
@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_refinement_is_its_plain_definition(skip_first_hop, one_sided, seed):
    features, labels = random_clip(seed=seed)
    refine = CorrespondenceRefinement(skip_first_hop=skip_first_hop, one_sided_displacement=one_sided)
    refined, trajectories = refine(features, labels, GRID)
    plain = plain_refinement(
        features, labels, skip_first_hop=skip_first_hop, one_sided=one_sided, starts=range(features.shape[1])
    )
    assert torch.equal(refined, plain)
    assert not torch.equal(refined, labels)  # the case is not trivial
    assert trajectories.shape == labels.shape


def test_the_skipped_first_hop_stays_in_place():
    features, _ = random_clip(drift=2.0)
    trajectories = track(features, skip_first_hop=True)
    assert torch.equal(trajectories[1], trajectories[0])
    assert not torch.equal(track(features)[1], trajectories[0])


def test_the_quirks_change_the_result():
    features, labels = random_clip(num_frames=6, seed=1, drift=0.5)
    own = CorrespondenceRefinement()(features, labels, GRID)[0]
    assert not torch.equal(CorrespondenceRefinement(skip_first_hop=True)(features, labels, GRID)[0], own)
    assert not torch.equal(CorrespondenceRefinement(one_sided_displacement=True)(features, labels, GRID)[0], own)


def test_truncated_start_points_lose_a_column_at_some_widths():
    points = truncated_start_points((2, 56), torch.device("cpu"))
    assert sorted(set(range(112)) - set(points.tolist())) == [31, 56 + 31]
    assert truncated_start_points((28, 52), torch.device("cpu")).tolist() == list(range(28 * 52))


def test_renaming_labels_renames_the_result():
    features, labels = random_clip(seed=2)
    names = torch.tensor([40, 3, 77, 5])
    refine = CorrespondenceRefinement()
    renamed = refine(features, names[labels - 10], GRID)[0]
    assert torch.equal(renamed, names[refine(features, labels, GRID)[0] - 10])


def test_one_frame_keeps_its_labels_and_inputs_stay():
    features, labels = random_clip(num_frames=1)
    before = features.clone(), labels.clone()
    assert torch.equal(CorrespondenceRefinement()(features, labels, GRID)[0], labels)
    assert torch.equal(features, before[0])
    assert torch.equal(labels, before[1])


def test_no_surviving_trajectory_changes_nothing():
    labels = torch.tensor([[1, 2], [2, 1]])
    assert torch.equal(vote_along(labels, torch.empty(2, 0, dtype=torch.int64)), labels)


def test_later_trajectories_overwrite():
    labels = torch.tensor([[1, 2, 3], [9, 9, 9], [9, 3, 9]])
    paths = torch.tensor([[0, 2], [1, 1], [0, 1]])  # they meet in frame 1
    assert vote_along(labels, paths).tolist() == [[9, 2, 3], [9, 3, 9], [9, 3, 9]]


def plain_attention(query, keys, head_channels):
    """Attention of one query to a frame's tokens, number by number, in float64."""
    num_heads = len(query) // head_channels
    shares = [0.0] * len(keys)
    for head in range(num_heads):
        channels = range(head * head_channels, (head + 1) * head_channels)
        products = [sum(float(query[c]) * float(key[c]) for c in channels) / head_channels**0.5 for key in keys]
        weights = [math.exp(product) for product in products]
        shares = [share + weight / sum(weights) / num_heads for share, weight in zip(shares, weights, strict=True)]
    return shares


@pytest.mark.parametrize("head_channels", [2, None])
def test_hops_by_attention_are_its_plain_definition(head_channels):
    generator = torch.Generator().manual_seed(5)
    queries, keys = torch.randn(2, 4, 12, 6, generator=generator)
    paths = []
    for start in range(12):
        path = [start]
        for t in range(3):
            to_next, to_first = (plain_attention(queries[t, path[-1]], keys[s], head_channels or 6) for s in (t + 1, 0))
            share = (t + 1) / (t + 2)
            shares = [share * a + (1 - share) * b for a, b in zip(to_next, to_first, strict=True)]
            path.append(max(range(12), key=shares.__getitem__))
        paths.append(path)
    found = track(queries, keys_Tnc=keys, head_channels=head_channels)
    assert found.T.tolist() == paths
    other = track(queries, keys_Tnc=keys, head_channels=3)
    assert not torch.equal(found, other), "heads matter"


def test_labels_follow_latent_frames_and_are_given_to_all_their_frames():
    """A picture with a square moves by a cell from latent frame to latent frame; coarse labels are wrong in places."""
    latent_T = torch.tensor([0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3])  # a clip that does not fill its last latent frame
    generator = torch.Generator().manual_seed(0)
    picture = normalize(torch.randn(6, 8, 64, generator=generator), "euclidean")
    labels = torch.zeros(6, 8, dtype=torch.int64)
    labels[2:4, 2:4] = 1
    moves = (0, 0, 1, 2)  # what moves in the first hop is as near to its own place in the first frame
    features_Lnc, truth_Ln = (
        torch.stack([of_cells.roll(move, 1).flatten(0, 1) for move in moves]) for of_cells in (picture, labels)
    )
    truth_Tn = truth_Ln[latent_T]
    coarse_Tn = truth_Tn.clone()
    coarse_Tn[2, 2 * 8 + 3] = 5  # in the square
    coarse_Tn[10, 3 * 8 + 5] = 0
    coarse_Tn[6, 5 * 8 + 4] = 1  # beside it
    refined_Tn, trajectories_TP = CorrespondenceRefinement().refine(
        Compared(features_Lnc, latent_T=latent_T), coarse_Tn, (6, 8)
    )
    assert torch.equal(refined_Tn, truth_Tn)
    assert trajectories_TP[:, 18].tolist() == [18, 18, 18, 18, 18, 19, 19, 19, 19, 20, 20]


def test_keys_need_queries_and_heads_need_keys():
    keys = AttentionFeatures(places=["block.0:image.key"])
    with pytest.raises(ValueError, match=r"refinement\.key_features need queries"):
        CorrespondenceRefinement(key_features=keys)
    with pytest.raises(ValueError, match=r"refinement\.head_channels = 8 must be"):
        CorrespondenceRefinement(features=keys, head_channels=8)
