"""Objects that enter after the first clip open labels; nothing else does."""

import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.novelty import FIRST_UNNAMED_LABEL, Novelty, NoveltyState, nearest_distances
from zsvss.stages.refinement import CorrespondenceRefinement

GRID = (4, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clip(num_frames=3, seed=0):
    """Two kinds of tokens, left and right."""
    kinds = (torch.arange(24) % 6 >= 3).long()
    return torch.eye(2, 4)[kinds] + 0.05 * torch.randn(num_frames, 24, 4, generator=generator(seed))


def test_the_threshold_is_a_quantile_of_distances_to_the_first_frame():
    features = clip()
    distances = torch.cdist(features[1:].flatten(0, 1).double(), features[0].double()).min(1).values
    state = Novelty(margin=2.0, quantile=0.5).calibrate(features, GRID, named=False)
    assert state.threshold == pytest.approx(2 * float(distances.quantile(0.5)), rel=1e-5)
    torch.testing.assert_close(nearest_distances(features[1], features[0]), distances[:24].float())
    halves = nearest_distances(features[1].half(), features[0].half())
    torch.testing.assert_close(halves, distances[:24].float(), rtol=0, atol=1e-2)


def test_nearest_distances_are_the_same_in_parts(monkeypatch):
    queries, points = torch.randn(40, 7, generator=generator(1)), torch.randn(30, 7, generator=generator(2))
    whole = nearest_distances(queries, points)
    monkeypatch.setattr("zsvss.stages.novelty.MEMORY_BOUND", 1000)
    torch.testing.assert_close(nearest_distances(queries, points), whole)
    torch.testing.assert_close(whole, torch.cdist(queries, points).min(1).values)


def test_connected_far_tokens_are_one_region_and_small_ones_none():
    features = clip()
    enters = torch.zeros(3, 4, 6, dtype=torch.bool)
    enters[1, 0, 0] = enters[2, 1, 1] = enters[2, 1, 2] = True  # moves by a corner: connected in time
    enters[0, 3, 5] = True  # alone
    features[enters.flatten(1)] += 5
    found = Novelty(min_tokens=2).find(features, clip(seed=1)[0], torch.tensor([0, 3]), NoveltyState(1.0, GRID, False))
    expected = torch.full((3, 4, 6), -1)
    expected[1, 0, 0] = expected[2, 1, 1] = expected[2, 1, 2] = 4
    assert torch.equal(found, expected.flatten(1))


@pytest.mark.parametrize(("named", "label"), [(False, 8), (True, FIRST_UNNAMED_LABEL)])
def test_a_new_label_is_no_class(named, label):
    features = clip()
    features[:, 0] += 5
    found = Novelty(min_tokens=3).find(features, clip()[0], torch.tensor([0, 7]), NoveltyState(1.0, GRID, named))
    assert found.unique().tolist() == [-1, label]


def test_the_same_content_opens_nothing():
    context = KNNSceneContext(2, novelty=Novelty())
    labels, memory = context.start(clip(), generator(), grid=GRID)
    memory = context.update(clip(), labels, memory)
    assert context.resume(clip(seed=4), memory, generator())[1].label_set_L.tolist() == [0, 1]


def test_a_first_clip_of_one_frame_opens_nothing():
    context = KNNSceneContext(2, novelty=Novelty(min_tokens=1))
    labels, memory = context.start(clip(1), generator(), grid=GRID)
    memory = context.update(clip(1), labels, memory)
    assert context.resume(clip() + 9, memory, generator())[1].label_set_L.tolist() == [0, 1]


def test_novelty_needs_the_grid():
    with pytest.raises(ValueError, match="needs the token grid"):
        KNNSceneContext(2, novelty=Novelty()).start(clip(), generator())
    with pytest.raises(ValueError, match=r"quantile = 99 must be between 0 and 1"):
        Novelty(quantile=99)


def late_object():
    """Three clips of stripes that stand still, with noise; a white square enters with the second."""
    stripe, _ = striped_video(num_frames=1, height=128, width=192)
    noise = torch.randint(-8, 9, (12, 128, 192, 3), generator=generator(5))
    frames = (stripe.long() + noise).clamp(0, 255).to(torch.uint8)
    is_new = torch.zeros(frames.shape[:3], dtype=torch.bool)
    is_new[4:, 32:96, 64:128] = True
    frames[is_new] = 255
    return frames.split(4), is_new.split(4)


def near(is_new_THW):
    """An object and a cell of 16 pixels around it: features of the toy see their neighbours."""
    return torch.nn.functional.max_pool2d(is_new_THW.float(), 33, 1, 16) > 0


@pytest.mark.parametrize("with_novelty", [False, True])
def test_an_object_that_enters_keeps_its_own_label_from_then_on(with_novelty):
    clips, is_new = late_object()
    context = KNNSceneContext(4, novelty=Novelty() if with_novelty else None)
    segmenter = VideoSegmenter(ToyBackbone(), context, CorrespondenceRefinement())
    labels = [segmenter(frames, generator=generator(i)).labels_THW for i, frames in enumerate(clips)]
    found = [part >= 4 for part in labels]
    assert not found[0].any()
    for part, new in zip(found[1:], is_new[1:], strict=True):
        assert bool(part[new].float().mean() > 0.9) is with_novelty
        assert not part[~near(new)].any()
    assert segmenter.memory.label_set_L.tolist() == ([0, 1, 2, 3, 4] if with_novelty else [0, 1, 2, 3])
