"""Correspondence-based refinement against a plain reading of its definition."""

from collections import Counter

import pytest
import torch

from zsvss.stages.features import normalize
from zsvss.stages.refinement import CorrespondenceRefinement, track, truncated_start_points, vote_along

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
