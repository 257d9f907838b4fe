"""What comes in after the first clip gets a label of its own; nothing else does."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from zsvss.backbones.base import ClipNoise, Recording
from zsvss.backbones.embedded import Embedded
from zsvss.callbacks.resume import _on_cpu
from zsvss.data.scenes import Scene, scene_split
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext, Memory
from zsvss.stages.features import AttentionFeatures, FeaturePass
from zsvss.stages.initialization import WardInitialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.motion import motion_of
from zsvss.stages.newcomers import Newcomers, agreed, common_cells, core, distances, small, weights_of, with_regions
from zsvss.stages.region_evidence import CellViews
from zsvss.stages.region_trees import Region
from zsvss.stages.shots import ShotBank, ShotMatching

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


def test_void_clusters_are_no_labels_that_opened():
    labels = grids([-2, -2, -1, -1])
    found = [grids([True, False, False, False]), grids([False, False, True, True])]
    assert with_regions(labels, labels, found, 256, 256).tolist() == [[[256, -2, 257, 257]]]


@pytest.mark.parametrize(("num_cells", "num_left_out"), [(30, 3), (31, 3), (400, 40)])
def test_a_core_is_a_region_without_the_tenth_of_its_cells_that_are_least_likely_new(num_cells, num_left_out):
    random = np.random.default_rng(num_cells)
    score = random.permutation(5 * 8 * 14).reshape(5, 8, 14).astype(np.float32) - 100
    places = np.stack(np.unravel_index(np.sort(random.permutation(score.size)[:num_cells]), score.shape))
    by_score = sorted(zip(*places.tolist(), strict=True), key=lambda place: score[place])
    found = core(Region(places, 0.5, 2.0), score)
    assert list(zip(*found.places.tolist(), strict=True)) == sorted(by_score[num_left_out:])
    assert (found.merged_at, found.ends_at) == (0.5, 2.0)


def test_a_core_of_equal_scores_is_the_whole_region():
    places = np.stack(np.nonzero(np.ones((3, 4, 5))))
    assert np.array_equal(core(Region(places, 0, 1), np.zeros((3, 4, 5), np.float32)).places, places)


def regions_of(*masks):
    return [Region(np.stack(np.nonzero(mask)), 0, 1) for mask in masks]


def test_cells_that_regions_have_in_common():
    masks = np.random.default_rng(0).random((7, 3, 8, 10)) < 0.4
    common = common_cells(regions_of(*masks), masks.shape[1:])
    assert common.toarray().tolist() == [[(one & other).sum() for other in masks] for one in masks]


def test_sureness_is_averaged_over_regions_of_nearly_the_same_cells():
    """Against sets: each region's own counts once, another's by the eighth power of their intersection over union."""
    cells = [set(range(20)), set(range(19)), set(range(10, 20)), set(range(50, 60))]
    sure = np.array([0.9, 0.1, 0.5, 0.7])
    common = np.array([[len(one & other) for other in cells] for one in cells], np.float32)
    weights = [[(len(one & other) / len(one | other)) ** 8 for other in cells] for one in cells]
    expected = [np.average(sure, weights=of_region) for of_region in weights]
    assert agreed(sure, csr_array(common)) == pytest.approx(expected)
    assert expected[0] < 0.7
    assert expected[3] == 0.7


def test_regions_are_accepted_by_what_they_are_sure_of_together(monkeypatch):
    """Four copies of the surest region are not sure at all; two that are alike are fairly sure."""
    masks = np.zeros((9, 3, 8, 30), np.bool_)
    masks[:5, :, :, :6] = True
    masks[0, 0, 0, 6] = True
    masks[5:7, :, :, 10:15] = True
    masks[7, :, :, 14:20] = True  # a fifth of the two lies in it, less than three tenths
    masks[8, :, :, 11:14] = True  # lies within the two
    newcomers, found = Newcomers(threshold=0.4), regions_of(*masks)
    sure = np.array([0.95, 0.1, 0.1, 0.1, 0.1, 0.6, 0.6, 0.45, 0.5])
    monkeypatch.setattr(newcomers, "candidates", lambda *_: found)
    monkeypatch.setattr(newcomers, "sureness", lambda _: sure)
    zeros = [np.zeros((*masks.shape[1:], size), np.float32) for size in (9, 2, 8, 3)]
    views = CellViews(np.zeros(masks.shape[1:], np.float32), *zeros, 1.0)
    accepted = newcomers.accepted(views, views.velocity_Thw2, is_first=True)
    assert [next(number for number in range(9) if found[number] is region) for region in accepted] == [5, 7]


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


def test_frames_to_know_that_cannot_be():
    with pytest.raises(ValueError, match=r"novelty\.known_frames = 0 must be at least 1"):
        Newcomers(known_frames=0)


@pytest.mark.parametrize("content", [None, b"", b"no archive", "array", "others"])
def test_a_file_without_networks(tmp_path, content):
    path = tmp_path / "own.npz"
    if content == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "others":
        np.savez(path, mean=np.zeros(35))
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"novelty\.weights = '.*own\.npz' cannot be read: .* must be a \.npz file"):
        Newcomers(weights=str(path))


def test_networks_that_are_not_finite(tmp_path):
    weights = Newcomers().weights
    np.savez(tmp_path / "own.npz", **weights | {"bias": np.full_like(weights["bias"], np.nan)})
    with pytest.raises(ValueError, match=r"own\.npz': bias holds values that are not finite"):
        Newcomers(weights=str(tmp_path / "own.npz"))


def test_networks_that_read_other_evidence(tmp_path):
    np.savez(tmp_path / "own.npz", **Newcomers().weights | {"mean": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match=r"own\.npz': mean has the shape \(3,\), and \(\d+,\) is allowed"):
        Newcomers(weights=str(tmp_path / "own.npz"))


def images_of(frames_THW3):
    return torch.from_numpy(frames_THW3).movedim(-1, 1).float() / 127.5 - 1


def random_clip(num_frames, seed):
    """Tokens on a grid of 8x14, and images of random colours."""
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, 128, 224, 3)).astype(np.uint8)
    return torch.randn(num_frames, 8 * 14, 12, generator=generator(seed)), frames


@pytest.mark.parametrize("least_distance", [0, 0.42])
@pytest.mark.parametrize(("num_wanted", "last"), [(None, 5), (4, 3), (1, 0)])
def test_the_state_is_of_the_frame_before_the_next_clip(num_wanted, last, least_distance):
    """Where a video's last clip is moved back, that is not the last frame of the clip before."""
    newcomers = Newcomers(known_frames=1, least_distance=least_distance)
    labels = torch.zeros(6, 8 * 14, dtype=torch.int64)
    (features, frames), numbers = random_clip(1, 0), torch.arange(6)
    features, frames = features + 0.001 * numbers[:, None, None], frames.repeat(6, 0)  # still, so that all is known
    frames[:, 0, 0, 0] = numbers
    state = newcomers.begin(features, images_of(frames), (8, 14), 1, num_wanted)
    assert np.array_equal(state.frame_HW3, frames[last])
    assert torch.equal(state.known_Nc, features[last])
    features, frames[:, 0, 0, 0] = features + 0.01, numbers + 10
    _, state = newcomers.label(features, images_of(frames), labels, labels, 1, state, num_wanted)
    assert np.array_equal(state.frame_HW3, frames[last])
    assert state.frame_HW3.base is None, "a view would keep the whole clip"
    assert torch.equal(state.known_Nc, features[last])


def test_a_clip_that_comes_again_leaves_the_state():
    newcomers, labels = Newcomers(), torch.zeros(3, 8 * 14, dtype=torch.int64)
    features, frames = random_clip(3, 0)
    assert newcomers.begin(features, images_of(frames), (8, 14), 1, 0).frame_HW3 is None
    begun = newcomers.begin(features, images_of(frames), (8, 14), 1)
    features, frames = random_clip(3, 1)
    assert newcomers.label(features, images_of(frames), labels, labels, 1, begun, 0)[1] is begun


@pytest.mark.parametrize("num_wanted", [None, 3, 0])
def test_where_no_frame_has_much_that_is_far_from_the_known_motion_is_not_measured(monkeypatch, num_wanted):
    """Of 112 tokens three are 2 %; two of a frame are far, and its neighbour has another one."""
    newcomers, labels = Newcomers(known_frames=2), torch.arange(5 * 112).view(5, 112)
    features, frames = random_clip(5, 0)
    state = newcomers.begin(features, images_of(frames), (8, 14), 560)
    later = features[-1:].repeat(5, 1, 1)
    later[1, :2] += 100
    later[2, 2] += 100

    def measured(*_):
        raise RuntimeError("motion was measured")

    monkeypatch.setattr("zsvss.stages.newcomers.motion_of", measured)
    new, found = newcomers.label(later, images_of(frames), labels, labels, 560, state, num_wanted)
    assert torch.equal(new, labels)
    if num_wanted == 0:
        assert found is state
    else:
        before = slice(num_wanted)
        assert np.array_equal(found.frame_HW3, small(images_of(frames))[before][-1])
        is_far = torch.zeros(5, 112, dtype=torch.bool)
        is_far[1, :2] = is_far[2, 2] = True
        assert torch.equal(found.known_Nc, later[before][-2:][~is_far[before][-2:]])
        assert not found.age_HW.any()
    later[1, 2] += 100
    with pytest.raises(RuntimeError, match="motion was measured"):
        newcomers.label(later, images_of(frames), labels, labels, 560, state, num_wanted)


@pytest.mark.parametrize("least_distance", [-0.1, float("nan")])
def test_a_least_distance_that_cannot_be(least_distance):
    with pytest.raises(ValueError, match=f"novelty.least_distance = {least_distance} must be at least 0"):
        Newcomers(least_distance=least_distance)


def test_what_is_pending_gets_older_and_is_known_in_the_end():
    """Of four tokens of 4x4 cells that seem new one was pending before, and one for so long that it is known now."""
    newcomers = Newcomers(known_frames=1)
    features, frames = random_clip(2, 0)
    state = newcomers.begin(features, images_of(frames), (8, 14), 1)
    score, age = np.full((2, 32, 56), -1, np.float32), np.zeros((2, 128, 224), np.uint8)
    score[:, :8, :8] = 1
    age[:, :16, :16], age[:, :16, 16:32] = 1, 3
    zeros = [np.zeros((2, 32, 56, size), np.float32) for size in (9, 2, 8, 3)]
    views, (later, frames) = CellViews(score, *zeros, 1.0), random_clip(2, 1)
    found = newcomers.carried(later, small(images_of(frames)), views, age, state)
    expected = np.zeros((8, 14), np.uint8)
    expected[0, 0], expected[1, :2] = 2, 1
    assert np.array_equal(found.age_HW, expected.repeat(16, 0).repeat(16, 1))
    assert torch.equal(found.known_Nc, later[-1, torch.from_numpy(expected.ravel() == 0)])
    assert np.array_equal(found.frame_HW3, frames[-1])
    nothing_known = views._replace(score_Thw=np.ones_like(score))
    found = newcomers.carried(later, small(images_of(frames)), nothing_known, np.zeros_like(age), state)
    assert torch.equal(found.known_Nc, state.known_Nc)


def test_where_most_of_a_clip_is_new_nothing_has_come_in(monkeypatch):
    newcomers = Newcomers(threshold=0)
    zeros = [np.zeros((3, 8, 30, size), np.float32) for size in (9, 2, 8, 3)]
    monkeypatch.setattr(newcomers, "candidates", lambda *_: regions_of(np.ones((3, 8, 30), np.bool_)))
    monkeypatch.setattr(newcomers, "sureness", lambda _: np.array([0.9]))
    for share, num_found in ((15, 1), (16, 0)):
        score = np.where(np.arange(30) < share, 1, -1)[None, None].repeat(8, 1).repeat(3, 0)
        views = CellViews(score.astype(np.float32), *zeros, 1.0)
        assert len(newcomers.accepted(views, views.velocity_Thw2, is_first=True)) == num_found


def test_a_shot_that_is_over_keeps_no_tokens_of_its_newcomers():
    features, frames = random_clip(3, 0)
    state = Newcomers().begin(features, images_of(frames), (8, 14), 7)
    ended = state.of_ended_shot()
    assert (ended.frame_HW3, ended.age_HW.size, len(ended.known_Nc)) == (None, 0, 0)
    assert (ended.first_new, ended.grid) == (7, (8, 14))
    context, labels = KNNSceneContext(3, novelty=Newcomers()), torch.zeros(3 * 112, dtype=torch.int64)
    memory = Memory(features.flatten(0, 1), labels, labels[:1], state)
    assert len(context.of_last_frame(memory, features[-1]).novelty.known_Nc) == 0
    labels = torch.zeros(3, 112, dtype=torch.int64)
    _, begun = Newcomers().label(features, images_of(frames), labels, labels, 9, ended)  # it has come back
    assert torch.equal(begun.known_Nc, features.flatten(0, 1))
    assert begun.first_new == 7


def test_only_the_core_of_a_region_gets_its_label(monkeypatch):
    """Ten tokens of 4x4 cells, of which one, in the third frame, has less score than the others."""
    newcomers, labels = Newcomers(), torch.zeros(5, 8 * 14, dtype=torch.int64)
    features, frames = random_clip(5, 0)
    state = newcomers.begin(features, images_of(frames), (8, 14), 1)
    expected = np.zeros((5, 8, 14), np.int64)
    expected[:, 2, 3:5] = 1
    region = Region(np.stack(np.nonzero(expected.repeat(4, 1).repeat(4, 2))), 0, 1)
    expected[2, 2, 4] = 0
    motion = motion_of([frames[0], *frames], state.age_HW)
    views, flow = newcomers.views(features, distances(features, state), small(images_of(frames)), motion, state)
    views = views._replace(score_Thw=expected.repeat(4, 1).repeat(4, 2).astype(np.float32))
    monkeypatch.setattr(newcomers, "views", lambda *_: (views, flow))
    monkeypatch.setattr(newcomers, "accepted", lambda *_, **__: [region])
    new, _ = newcomers.label(features, images_of(frames), labels, labels, 1, state)
    assert np.array_equal(new.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("size", [(128, 224), (224, 128), (40, 2000), (97, 61)])
def test_clips_of_one_or_two_frames_open_nothing(num_frames, size):
    newcomers, labels = Newcomers(threshold=0, least_distance=0), torch.zeros(num_frames, 6, dtype=torch.int64)
    features = torch.randn(num_frames, 6, 3, generator=generator())
    images = torch.rand(num_frames, 3, *size, generator=generator()) * 2 - 1
    state = newcomers.begin(features, images, (2, 3), 1)
    new, state = newcomers.label(features, images, labels, labels, 1, state)
    assert torch.equal(new, labels)
    assert state.frame_HW3.shape == (*state.age_HW.shape, 3)


def test_labels_of_a_later_shots_first_clip_have_not_opened():
    """They are beyond those of the shots before, of which one opened there."""
    context, (features, frames) = KNNSceneContext(3, novelty=Newcomers()), random_clip(3, 0)
    seen = FeaturePass(Embedded(), Recording.of_nothing(ClipNoise(*[images_of(frames)] * 2)), images_of(frames))
    before = torch.arange(10).repeat(12)[:112].expand(3, -1)
    memory = Memory(features[0], before[0], before.unique())
    bank = ShotMatching().remember(context, ShotBank(), 0, features + 100, before, memory)
    _, memory = ShotMatching().start(context, bank, features, generator(), None, (8, 14), seen)
    assert int(memory.label_set_L.max()) >= 10
    assert memory.novelty.first_new == int(memory.label_set_L.max()) + 1


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
    context = KNNSceneContext(
        20, initialization=WardInitialization(0.03), memory_frames=4, novelty=Newcomers(least_distance=0)
    )
    features = JointFeatures([AttentionFeatures(), LabFeatures(), PositionFeatures()], [1, 1, 0.25])
    return VideoSegmenter(backbone, context, features=features, padding=32)


def scene(number, num_late=0):
    """28 frames and what their pixels show."""
    made = Scene(scene_split("val")[number], num_frames=35, num_late=num_late)
    frames = [made.render(index)[0] for index in range(2 * CLIP)]
    return np.stack(frames), np.stack([made.objects(index) for index in range(2 * CLIP)])


def labels_of(segmenter, frames_THW3, between=lambda: None):
    """Labels of two clips, with something done between them, and those labels that opened in the second."""
    segmenter.reset()
    first, later = torch.from_numpy(np.ascontiguousarray(frames_THW3)).split(CLIP)
    labels = [segmenter(first, generator=generator(0)).labels_THW]
    between()
    labels.append(segmenter(later, generator=generator(1)).labels_THW)
    opened = set(labels[1].unique().tolist()) - set(labels[0].unique().tolist())
    return torch.cat(labels).numpy(), {label for label in opened if label >= segmenter.memory.novelty.first_new}


class Video(NamedTuple):
    """A video in which objects come in, and what became of it.

    Attributes:
        frames: of both clips.
        objects: what their pixels show.
        labels: of both clips.
        opened: those that opened in the second.
        state: file of the state between the clips.
    """

    frames: np.ndarray
    objects: np.ndarray
    labels: np.ndarray
    opened: set[int]
    state: Path


@pytest.fixture(scope="module")
def late(segmenter, tmp_path_factory):
    state = tmp_path_factory.mktemp("late") / "state.pt"
    frames, objects = scene(LATE, num_late=4)
    labels, opened = labels_of(segmenter, frames, lambda: torch.save(_on_cpu(segmenter.state()), state))
    return Video(frames, objects, labels, opened, state)


def test_what_enters_gets_a_label_of_its_own_with_the_right_pixels(late):
    _, objects, labels, opened, _ = late
    entered = set(np.unique(objects[CLIP:])) - set(np.unique(objects[:CLIP]))
    found = set()
    for label in opened:
        begin = int((labels == label).any((1, 2)).argmax())
        for number in entered:
            is_label, is_object = labels[begin:] == label, objects[begin:] == number
            if (is_label & is_object).sum() >= 0.5 * max(is_label.sum(), is_object.sum()):
                found.add(number)
    assert found
    assert len(opened) <= len(found) + 1


def test_what_entered_keeps_its_label_in_the_clip_after(segmenter, late):
    """The label that lies on most of an object in the second clip lies on most of it in the third one, too."""
    made = Scene(scene_split("val")[LATE], num_frames=35, num_late=4)
    frames = torch.from_numpy(np.stack([made.render(number)[0] for number in range(2 * CLIP, 35)]))
    objects = np.stack([made.objects(number) for number in range(2 * CLIP, 35)])
    segmenter.reset()
    segmenter.restore(torch.load(late.state, weights_only=False))
    segmenter(torch.from_numpy(late.frames[CLIP:]), generator=generator(1))
    labels = segmenter(frames, generator=generator(2)).labels_THW.numpy()
    kept = 0
    for label in late.opened:
        is_label = late.labels == label
        number = np.bincount(late.objects[is_label]).argmax()
        if number not in late.objects[:CLIP] and 2 * (is_label & (late.objects == number)).sum() >= is_label.sum():
            is_label, is_object = labels == label, objects == number
            kept += 2 * (is_label & is_object).sum() >= max(is_label.sum(), is_object.sum()) > 0
    assert kept


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


def test_goes_on_from_a_state_on_disk(segmenter, late):
    """The same bits as without a stop."""
    segmenter.reset()
    segmenter.restore(torch.load(late.state, weights_only=False))
    later = torch.from_numpy(late.frames[CLIP:])
    assert np.array_equal(segmenter(later, generator=generator(1)).labels_THW.numpy(), late.labels[CLIP:])
    assert late.opened


def test_it_needs_the_frames():
    context = KNNSceneContext(2, novelty=Newcomers())
    with pytest.raises(ValueError, match="give start\\(\\) and resume\\(\\) the feature pass"):
        context.start(torch.randn(3, 24, 4, generator=generator()), generator(), grid=(4, 6))


def test_labels_that_open_beside_classes_are_no_classes(segmenter, late):
    segmenter.reset()
    classes = torch.zeros(128, 224, dtype=torch.int64)
    for clip in torch.from_numpy(late.frames).split(CLIP):
        labels = segmenter(clip, generator=generator(), first_labels_HW=classes).labels_THW
    assert {label for label in labels.unique().tolist() if label} >= {256}
    assert not {label for label in labels.unique().tolist() if 0 < label < 256}
