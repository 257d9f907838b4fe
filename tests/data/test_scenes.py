import itertools
import time

import numpy as np
import pytest

from zsvss.data.scenes import CLASSES, PALETTE, TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, Scene, scene_split


@pytest.mark.parametrize("hard", [False, True])
def test_a_frame_does_not_depend_on_what_was_rendered_before(hard):
    forwards, backwards = Scene(5, hard=hard), Scene(5, hard=hard)
    first = [forwards.render(index) for index in (0, 17, 41)]
    second = [backwards.render(index) for index in (41, 17, 0)][::-1]
    for (image, labels), (other_image, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(labels, other_labels)


def test_seed_and_difficulty_each_change_the_video():
    base = Scene(5).render(0)[0]
    assert (base != Scene(6).render(0)[0]).mean() > 0.5
    assert (base != Scene(5, hard=True).render(0)[0]).mean() > 0.5


@pytest.mark.parametrize(("height", "width"), [(128, 224), (256, 448), (224, 128), (97, 131), (32, 32)])
def test_frames_have_the_size_asked_for(height, width):
    for seed in range(4):
        image, labels = Scene(seed, height=height, width=width, num_frames=3, hard=seed % 2 == 1).render(2)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        assert labels.shape == (height, width)
        assert labels.dtype == np.uint8
        assert labels.max() < len(CLASSES)


def test_one_frame_and_long_videos():
    assert Scene(3, num_frames=1).render(0)[0].std() > 5
    long = Scene(3, num_frames=2000)
    frames = [long.render(index)[0].astype(int) for index in (0, 1000, 1999)]
    assert all(abs(a - b).mean() > 1 for a, b in itertools.pairwise(frames))


def test_frames_outside_the_video_and_impossible_sizes_are_refused():
    scene = Scene(0, num_frames=4)
    for index in (-1, 4):
        with pytest.raises(IndexError, match="scene of 4 frames"):
            scene.render(index)
    with pytest.raises(ValueError, match="32 pixels"):
        Scene(0, height=16)
    with pytest.raises(ValueError, match="0 to 200 late figures"):
        Scene(0, num_late=201)
    assert Scene(0, num_frames=2, height=32, width=48, num_late=200).objects(1).max() > 0
    with pytest.raises(ValueError, match="train, val, test"):
        scene_split("dev")


def test_splits_never_share_a_seed():
    for one, other in itertools.combinations((TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS), 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert scene_split("train") == TRAIN_SEEDS
    assert scene_split("val") == VALIDATION_SEEDS
    assert scene_split("test") == TEST_SEEDS


def test_palette_has_one_distinct_colour_a_class():
    assert len(PALETTE) == len(set(PALETTE)) == len(CLASSES)
    assert 8 <= len(CLASSES) <= 12


def _classes_at(scene, index):
    ids, counts = np.unique(scene.render(index)[1], return_counts=True)
    return {int(label) for label, count in zip(ids, counts, strict=True) if count >= 40}


def test_classes_vary_and_some_enter_late_or_leave():
    present, late, gone = [], 0, 0
    for seed in range(TEST_SEEDS.start, TEST_SEEDS.start + 40):
        scene = Scene(seed)
        first, last = _classes_at(scene, 0), _classes_at(scene, 41)
        present.append(frozenset(first | last))
        late += bool(last - first)
        gone += bool(first - last)
    assert frozenset().union(*present) == set(range(len(CLASSES)))
    assert len(set(present)) > 15
    assert late >= 8
    assert gone >= 4


def _named_by_colour(hard):
    """Accuracy of telling classes apart by the mean colours of their regions, learned on other scenes."""
    samples, names = [], []
    for seed in range(60):
        image, labels = Scene(seed, hard=hard).render(0)
        for label in np.unique(labels):
            if (labels == label).sum() >= 60:
                samples.append(image[labels == label].mean(0))
                names.append(label)
    samples, names = np.array(samples), np.array(names)
    distances = ((samples[:, None] - samples[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return (names[distances.argmin(1)] == names).mean()


def test_colour_names_classes_in_hard_scenes_no_better_than_by_chance():
    # Ten classes of unequal frequency: guessing by frequency is right in about 13 % of cases.
    assert _named_by_colour(hard=True) < 0.3
    assert _named_by_colour(hard=False) < 0.75


def test_something_moves_and_labels_move_with_it():
    changed = []
    for seed in range(12):
        scene = Scene(seed)
        changed.append((scene.render(0)[1] != scene.render(20)[1]).mean())
    assert np.median(changed) > 0.03


def test_rendering_speed():
    # 100 frames/s at 128x224 on a free core are asked for and over 300 were measured; CI machines are shared.
    scene = Scene(1, hard=True)
    start = time.process_time()
    for index in range(42):
        scene.render(index)
    assert 42 / (time.process_time() - start) > 60


@pytest.mark.parametrize(("hard", "seeds"), [(False, (0, 1, 2, 25)), (True, (0, 1, 5, 38))])
def test_late_figures_come_in_and_the_rest_stays_as_it_is(hard, seeds):
    size = {"num_frames": 20, "height": 64, "width": 96, "hard": hard}
    for seed in seeds:  # of the last ones the camera would show a late figure, or its shadow, from the first frame on
        without, scene = Scene(seed, **size), Scene(seed, num_late=2, **size)
        for index in range(8):  # two fifths
            for mine, theirs in zip(scene.render(index), without.render(index), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        first_frames = [_first_frames(one) for one in (without, scene)]
        assert len(first_frames[1]) == len(first_frames[0]) + 2
        before = [sum(first < 8 for first in firsts) for firsts in first_frames]
        assert before[0] == before[1], "both enter late"
        changed = scene.objects(19) != 0
        assert (scene.render(19)[1] != without.render(19)[1])[~changed].sum() == 0, "nothing but they has moved"


def _first_frames(scene):
    """Of each object that is ever seen, the first frame that shows it."""
    firsts = {}
    for index in range(scene.num_frames):
        for number in np.unique(scene.objects(index))[1:]:
            firsts.setdefault(int(number), index)
    return list(firsts.values())


def test_objects_are_what_bears_the_classes_of_things():
    scene = Scene(5, num_late=2)
    for index in (0, 30):
        labels, objects = scene.render(index)[1], scene.objects(index)
        assert objects.dtype == np.uint8
        names = np.array(CLASSES)
        assert {names[label] for label in np.unique(labels[objects > 0])} <= {"tree", "car", "person", "animal"}
        assert np.isin(names[labels[objects == 0]], ["tree", "car", "person", "animal"]).sum() == 0
        for number in np.unique(objects)[1:]:
            assert len(np.unique(labels[objects == number])) == 1, "an object is of one class"
    with pytest.raises(IndexError, match="scene of 42 frames"):
        scene.objects(42)
