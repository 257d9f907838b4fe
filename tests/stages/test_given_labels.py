"""Propagation of given labels against a brute-force oracle, and what a user may give."""

import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import ColorPositionFeatures
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.local_neighbors import local_neighbors
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.soft_labels import area_shares, overlaps, to_maps, to_tokens
from zsvss.stages.upsampling import GuidedUpsampling, SoftUpsampling

GRID = (9, 11)  # more than a tile a side


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_features(num_frames, seed=0, grid=GRID, channels=3):
    return torch.randn(num_frames, grid[0] * grid[1], channels, generator=generator(seed))


def plain_neighbors(query, points, grid, radius):
    """All (squared distance, place) within the window of each token, nearest first, in float64."""
    found = []
    for token in range(grid[0] * grid[1]):
        y, x = divmod(token, grid[1])
        near = []
        for frame in range(len(points)):
            for other in range(grid[0] * grid[1]):
                v, u = divmod(other, grid[1])
                if abs(y - v) <= radius and abs(x - u) <= radius:
                    squared = float((query[token].double() - points[frame, other].double()).square().sum())
                    near.append((squared, frame * grid[0] * grid[1] + other))
        found.append(sorted(near))
    return found


def plain_shares(labels_HW, labels, grid, subcells):
    """Share of every sub-cell by a count of pixels, each divided into as many parts as the sides need."""
    height, width = grid[0] * subcells, grid[1] * subcells
    fine = labels_HW.repeat_interleave(height, 0).repeat_interleave(width, 1)
    blocks = fine.view(height, labels_HW.shape[0], width, labels_HW.shape[1])
    maps = [(blocks == label).double().mean((1, 3)) for label in labels]
    return torch.stack([to_tokens(uv, grid, subcells) for uv in maps], 1)


def plain_propagation(features, given, labels, grid, context):
    """Shares [T, n, L, S] of a video whose first frame is given, frame by frame and token by token."""
    radius = max(1, round(context.reach * max(grid)))
    scale = float((features[0] - features[0].mean(0)).double().square().sum(1).mean())
    shares = [plain_shares(given, labels, grid, context.subcells)]
    for t in range(1, len(features)):
        earlier = [0, *range(max(1, t - context.num_frames), t)]
        bank = torch.stack([features[u] for u in earlier])
        known = torch.cat([shares[u] for u in earlier])
        rows = []
        for near in plain_neighbors(features[t], bank, grid, radius):
            best = near[: context.num_neighbors]
            weights = (
                torch.tensor([-squared / (context.temperature * scale) for squared, _ in best]).double().softmax(0)
            )
            rows.append(sum(weight * known[place] for weight, (_, place) in zip(weights, best, strict=True)))
        shares.append(torch.stack(rows))
    return torch.stack(shares)


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_local_neighbors_are_those_of_a_plain_search(radius):
    query, points = random_features(1)[0], random_features(3, seed=1)
    squared, places = local_neighbors(query, points, GRID, 12, radius)
    for token, near in enumerate(plain_neighbors(query, points, GRID, radius)):
        assert places[token].tolist() == [place for _, place in near[:12]]
        assert squared[token].tolist() == pytest.approx([distance for distance, _ in near[:12]], abs=1e-4)


def test_missing_neighbors_are_infinitely_far():
    squared, _ = local_neighbors(torch.zeros(6, 1), torch.zeros(1, 6, 1), (1, 6), 5, 1)
    assert squared.isinf().sum(1).tolist() == [3, 2, 2, 2, 2, 3]


@pytest.mark.parametrize(("size", "grid", "subcells"), [((5, 7), (2, 3), 1), ((6, 5), (3, 2), 2), ((2, 3), (2, 2), 3)])
def test_shares_are_areas(size, grid, subcells):
    labels = torch.randint(-1, 3, size, generator=generator())
    shares = area_shares(labels, torch.tensor([0, 2]), grid, subcells)
    torch.testing.assert_close(shares.double(), plain_shares(labels, [0, 2], grid, subcells), atol=1e-6, rtol=0)


def test_maps_and_tokens_of_sub_cells_are_the_same_thing():
    maps_uv = torch.arange(24.0).view(4, 6)
    tokens_nS = to_tokens(maps_uv, (2, 3), 2)
    assert tokens_nS[1].tolist() == [2, 3, 8, 9]
    assert torch.equal(to_maps(tokens_nS[None, :, None], (2, 3))[0, 0], maps_uv)
    assert overlaps(7, 3, torch.device("cpu")).sum(1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("subcells", [1, 2])
def test_propagation_is_that_of_a_plain_loop(subcells):
    context = GivenLabels(num_neighbors=4, reach=0.2, num_frames=2, temperature=0.3, subcells=subcells)
    features = random_features(5)
    given = torch.full((5, 20, 30), -1)
    given[0] = torch.randint(0, 3, (20, 30), generator=generator()) * 7
    labels, memory = context.propagate(features, GRID, given)
    expected = plain_propagation(features, given[0], [0, 7, 14], GRID, context)
    shares_TLuv, labels_L = memory.propagated.shares
    assert labels_L.tolist() == memory.label_set_L.tolist() == [0, 7, 14]
    expected_TLuv = to_maps(expected.float(), GRID)
    torch.testing.assert_close(shares_TLuv, expected_TLuv, atol=1e-4, rtol=0)
    assert torch.equal(labels, labels_L[expected.sum(3).argmax(2)])


def test_the_clips_a_video_is_cut_into_change_nothing():
    context = GivenLabels(num_frames=3)
    features = random_features(7)
    given = torch.full((7, 9, 11), -1)
    given[0], given[4, :3] = 1, 2
    whole, _ = context.propagate(features, GRID, given)
    memory, parts = None, []
    for part, part_given in zip(features.split(2), given.split(2), strict=True):
        wanted = part_given if bool((part_given >= 0).any()) else None
        labels, memory = context.propagate(part, GRID, wanted, memory)
        parts.append(labels)
    assert torch.equal(torch.cat(parts), whole)


def test_an_object_smaller_than_a_token_survives():
    """A dot of a sixteenth of a token's area moves with its token; naming clusters by majority loses it."""
    features = random_features(2)
    place = 4 * GRID[1] + 5
    features[1] = features[0].roll(1, 0)
    features[:, :, 0] *= 3
    given = torch.zeros(2, GRID[0] * 8, GRID[1] * 8, dtype=torch.int64)
    given[1] = -1
    given[0, 4 * 8 : 4 * 8 + 2, 5 * 8 : 5 * 8 + 2] = 1
    context = GivenLabels(reach=0.2, subcells=4, num_neighbors=1)
    _, memory = context.propagate(features, GRID, given)
    dot_uv = memory.propagated.shares.shares_TLuv[1, 1]
    assert dot_uv.nonzero().tolist() == [[4 * 4, 6 * 4]]  # a token further, still one sub-cell
    assert dot_uv.max() == 1
    named, _ = KNNSceneContext(4).start(features, generator(), (torch.arange(99) == place) * 0, GRID)
    assert named.unique().tolist() == [0]


def test_every_given_frame_is_the_truth_from_then_on():
    """The second given frame names the same features otherwise: what comes after it follows it where it is nearer."""
    features = random_features(1).repeat(6, 1, 1)
    given = torch.full((6, *GRID), -1)
    given[0], given[3] = 4, 9
    labels, memory = GivenLabels(num_neighbors=1, num_frames=0, num_given=1).propagate(features, GRID, given)
    assert [frame.unique().tolist() for frame in labels] == [[4], [4], [4], [9], [9], [9]]
    assert memory.label_set_L.tolist() == [4, 9]
    assert memory.propagated.bank.num_given == 1
    _, memory = GivenLabels(num_given=2).propagate(features, GRID, given.clamp(min=2))
    first, latest = memory.propagated.bank.shares_FnLS[:2, 0, :, 0]
    assert (first.tolist(), latest.tolist()) == ([0, 1, 0], [1, 0, 0])  # of the labels 2, 4 and 9


def test_frames_before_the_first_given_one_have_no_label():
    features = random_features(4)
    given = torch.full((2, *GRID), -1)
    given[1] = 3
    context = GivenLabels()
    nothing, memory = context.start(features[:1], generator(), None, GRID)
    assert nothing.unique().tolist() == memory.label_set_L.tolist() == [-1]
    labels, memory = context.propagate(features[1:3], GRID, given, memory)
    assert [frame.unique().tolist() for frame in labels] == [[-1], [3]]
    assert context.resume(features[3:], memory, generator())[0].unique().tolist() == [3]


def test_pixels_left_open_in_a_given_frame_are_voted_on():
    """Two strokes: every other token takes the label of the stroke that its features resemble."""
    kinds = torch.randint(0, 2, (GRID[0] * GRID[1],), generator=generator())
    features = kinds[:, None].float() + 0.01 * random_features(2)
    given = torch.full((2, *GRID), -1)
    strokes = [int((kinds == kind).nonzero()[0]) for kind in (0, 1)]
    given[0].view(-1)[strokes] = torch.tensor([5, 6])
    labels, _ = GivenLabels(num_neighbors=1).propagate(features, GRID, given)
    assert torch.equal(labels[0], kinds + 5)


def test_the_segmenter_returns_given_labels_as_they_are_and_follows_the_bands():
    frames, bands = striped_video(num_frames=6, height=64, width=96)
    given = torch.full(bands.shape, -1)
    given[0] = bands[0] + 10
    for modulation in (None, SoftUpsampling(), GuidedUpsampling()):
        segmenter = VideoSegmenter(
            ToyBackbone(), GivenLabels(), modulation=modulation, features=ColorPositionFeatures()
        )
        first = segmenter(frames[:4], given_THW=given[:4])
        labels = torch.cat([first.labels_THW, segmenter(frames[4:]).labels_THW])
        assert torch.equal(labels[0], given[0])
        # A border lies anywhere in the tokens of 16 pixels: less than half of one is wrong on either side.
        assert ((labels == bands + 10).float().mean((1, 2)) > 1 - 3 * 8 / 64).all()


def test_shares_give_way_to_refined_labels():
    frames, bands = striped_video(num_frames=2)
    given = bands.where(torch.tensor([True, False])[:, None, None], -1)
    segmenter = VideoSegmenter(
        ToyBackbone(), GivenLabels(), CorrespondenceRefinement(), SoftUpsampling(num_neighbors=1)
    )
    clip = segmenter(frames, given_THW=given)
    assert set(clip.labels_THW[1].unique().tolist()) == set(clip.refined_Thw[1].unique().tolist())


def test_a_context_that_clusters_refuses_given_labels():
    frames, bands = striped_video(num_frames=1)
    with pytest.raises(ValueError, match=r"KNNSceneContext takes no given labels.*--model.context GivenLabels"):
        VideoSegmenter(ToyBackbone(), KNNSceneContext(2))(frames, given_THW=bands)


@pytest.mark.parametrize(("setting", "value"), [("reach", 0), ("temperature", 0), ("num_given", 0), ("num_frames", -1)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} = {value}"):
        GivenLabels(**{setting: value})
