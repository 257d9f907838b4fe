"""What comes in after the first clip gets a label of its own; nothing else does."""

import numpy as np
import pytest
import torch

from zsvss.backbones.embedded import Embedded
from zsvss.data.scenes import Scene, scene_split
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import AttentionFeatures
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.newcomers import Newcomers, small, weights_of, with_regions

CLIP = 14
LATE, QUIET = 116, 301  # of the validation scenes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def grids(*rows):
    return np.array([rows])


def test_a_region_gets_the_next_free_label():
    labels = grids([0, 1, 1, 1])
    found = [grids([False, False, True, True])]
    assert with_regions(labels, labels, found, 4, 2).tolist() == [[[0, 1, 4, 4]]]


def test_a_region_keeps_the_label_it_got_and_nothing_else_does():
    labels, old = grids([5, 1, 5, 5]), grids([0, 1, 1, 1])
    found = [grids([False, True, True, True])]
    assert with_regions(labels, old, found, 6, 5).tolist() == [[[0, 5, 5, 5]]]


def test_two_regions_never_share_a_label_and_the_surest_lies_on_top():
    labels = grids([5, 5, 5, 5])
    found = [grids([True, True, True, False]), grids([False, False, True, True])]
    assert with_regions(labels, np.zeros_like(labels), found, 6, 5).tolist() == [[[5, 5, 5, 6]]]


def test_a_label_of_the_first_clip_is_never_taken_over():
    labels = grids([1, 1, 1, 1])
    assert with_regions(labels, labels, [grids([True, True, False, False])], 2, 2).tolist() == [[[2, 2, 1, 1]]]


@pytest.mark.parametrize(
    ("size", "expected"), [((128, 224), (128, 224)), ((480, 854), (128, 224)), ((64, 64), (168, 168))]
)
def test_small_frames_have_a_number_of_pixels(size, expected):
    images = torch.zeros(2, 3, *size)
    images[1] = 1
    frames = small(images)
    assert [frame.shape for frame in frames] == [(*expected, 3)] * 2
    assert [int(frame.min()) for frame in frames] == [128, 255]


def test_channels_that_vary_count_less():
    features = torch.zeros(4, 6, 2)
    features[..., 1] = torch.randn(4, 6, generator=generator())
    steady, varying = weights_of(features).tolist()
    assert steady == 1
    assert varying == pytest.approx(3**-0.5)  # noise twice the mean over channels
    assert weights_of(features[:1]).tolist() == [1, 1]


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_that_cannot_be(threshold):
    with pytest.raises(ValueError, match=r"novelty\.threshold = .* must be between 0 and 1"):
        Newcomers(threshold)


def test_networks_are_read_from_a_file(tmp_path):
    weights = Newcomers().weights | {"bias": np.full_like(Newcomers().weights["bias"], -100)}
    np.savez(tmp_path / "own.npz", **weights)
    evidence = np.zeros((3, len(weights["mean"])), np.float32)
    assert Newcomers(weights=str(tmp_path / "own.npz")).sureness(evidence) == pytest.approx([0, 0, 0])
    assert Newcomers().sureness(evidence).shape == (3,)


# ---- whole videos, as `predict` sees them but for the upsampling


@pytest.fixture(scope="module")
def segmenter():
    backbone = Embedded(num_steps=100, first_step=99)
    backbone.load()
    context = KNNSceneContext(20, initialization=WardInitialization(0.03), memory_frames=4, novelty=Newcomers())
    features = JointFeatures([AttentionFeatures(), LabFeatures(), PositionFeatures()], [1, 1, 0.25])
    return VideoSegmenter(backbone, context, features=features, padding=16)


def scene(number, num_late=0):
    """28 frames and what their pixels show."""
    made = Scene(scene_split("val")[number], num_frames=35, num_late=num_late)
    frames = [made.render(index)[0] for index in range(2 * CLIP)]
    return np.stack(frames), np.stack([made.objects(index) for index in range(2 * CLIP)])


def labels_of(segmenter, frames_THW3):
    """Labels of two clips, and those of them that opened in the second."""
    segmenter.reset()
    clips = torch.from_numpy(np.ascontiguousarray(frames_THW3)).split(CLIP)
    labels = [segmenter(clip, generator=generator(number)).labels_THW for number, clip in enumerate(clips)]
    opened = set(labels[1].unique().tolist()) - set(labels[0].unique().tolist())
    return torch.cat(labels).numpy(), {label for label in opened if label >= segmenter.memory.novelty.first_new}


def test_what_enters_gets_a_label_of_its_own_with_the_right_pixels(segmenter):
    frames, objects = scene(LATE, num_late=4)
    labels, opened = labels_of(segmenter, frames)
    late = set(np.unique(objects[CLIP:])) - set(np.unique(objects[:CLIP]))
    found = set()
    for label in opened:
        begin = int((labels == label).any((1, 2)).argmax())
        for number in late:
            is_label, is_object = labels[begin:] == label, objects[begin:] == number
            if (is_label & is_object).sum() >= 0.5 * max(is_label.sum(), is_object.sum()):
                found.add(number)
    assert found
    assert len(opened) <= len(found) + 1


def test_a_still_scene_opens_nothing(segmenter):
    frames, _ = scene(QUIET)
    assert labels_of(segmenter, frames[:1].repeat(2 * CLIP, 0))[1] == set()


def test_a_pan_opens_nothing(segmenter):
    wide = Scene(scene_split("val")[QUIET], num_frames=35, width=288).render(0)[0]
    frames = np.stack([wide[:, 2 * number : 2 * number + 224] for number in range(2 * CLIP)])
    assert labels_of(segmenter, frames)[1] == set()


@pytest.mark.parametrize("shown", [slice(13, 15), slice(20, 21)])
def test_a_flash_opens_nothing(segmenter, shown):
    frames, _ = scene(QUIET)
    frames[shown] = np.minimum(frames[shown].astype(int) + 90, 255).astype(np.uint8)
    assert labels_of(segmenter, frames)[1] == set()


def test_black_frames_open_nothing(segmenter):
    frames, _ = scene(QUIET)
    frames[14:18] = 0
    assert labels_of(segmenter, frames)[1] == set()


def test_what_was_hidden_for_a_moment_opens_nothing(segmenter):
    frames, _ = scene(QUIET)
    frames = frames[:1].repeat(2 * CLIP, 0)
    without = frames.copy()
    without[:, 40:100, 80:150] = frames[0, 40:100, 10:80]
    frames[13:18] = without[13:18]
    assert labels_of(segmenter, frames)[1] == set()


def test_a_shot_that_comes_back_goes_on_without_motion(segmenter):
    frames, _ = scene(QUIET)
    other, _ = scene(LATE)
    segmenter.reset()
    clips = (frames[:CLIP], other[:CLIP], frames[CLIP:])
    first, _, back = (
        segmenter(torch.from_numpy(clip), generator=generator(), shot=number).labels_THW
        for number, clip in enumerate(clips)
    )
    assert set(back.unique().tolist()) <= set(first.unique().tolist())


def test_it_needs_the_frames():
    context = KNNSceneContext(2, novelty=Newcomers())
    with pytest.raises(ValueError, match="give start\\(\\) and resume\\(\\) the feature pass"):
        context.start(torch.randn(3, 24, 4, generator=generator()), generator(), grid=(4, 6))


def test_labels_that_open_beside_classes_are_no_classes(segmenter):
    frames, _ = scene(LATE, num_late=4)
    segmenter.reset()
    classes = torch.zeros(128, 224, dtype=torch.int64)
    for clip in torch.from_numpy(frames).split(CLIP):
        labels = segmenter(clip, generator=generator(), first_labels_HW=classes).labels_THW
    assert {label for label in labels.unique().tolist() if label} >= {256}
    assert not {label for label in labels.unique().tolist() if 0 < label < 256}
