import numpy as np
import pytest

from zsvss.results.segment_colors import color_labels
from zsvss.viz.overlay import overlay, segment_boundaries, side_by_side


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.repeat(np.arange(3), [3, 4, 4])[None].repeat(9, 0)


def test_blend_is_rounded_and_leaves_the_frame_alone(frame, labels):
    before = frame.copy()
    image = overlay(frame, labels, alpha=0.25, boundaries=False)
    expected = 0.75 * frame + 0.25 * color_labels(labels)
    assert image.dtype == np.uint8
    assert np.abs(image - expected).max() <= 0.5
    np.testing.assert_array_equal(frame, before)


def test_extreme_weights_give_the_frame_and_the_colours(frame, labels):
    np.testing.assert_array_equal(overlay(frame, labels, alpha=0, boundaries=False), frame)
    np.testing.assert_array_equal(overlay(frame, labels, alpha=1, boundaries=False), color_labels(labels))


def test_boundaries_are_white_between_segments_only(frame, labels):
    image, plain = overlay(frame, labels), overlay(frame, labels, boundaries=False)
    edges = segment_boundaries(labels)
    assert np.flatnonzero(edges[0]).tolist() == [2, 6]
    assert (image[edges] == 255).all()
    np.testing.assert_array_equal(image[~edges], plain[~edges])


def test_boundaries_equal_a_loop_over_neighbours():
    labels = np.random.default_rng(1).integers(-1, 3, (6, 7))
    for y, x in np.ndindex(labels.shape):
        neighbours = [labels[y, x + 1]] if x < 6 else []
        neighbours += [labels[y + 1, x]] if y < 5 else []
        assert segment_boundaries(labels)[y, x] == any(other != labels[y, x] for other in neighbours)


def test_pixels_without_label_stay(frame, labels):
    image = overlay(frame, np.full_like(labels, -1))
    np.testing.assert_array_equal(image, frame)


def test_one_pixel(frame):
    assert overlay(frame[:1, :1], np.zeros((1, 1), dtype=int)).shape == (1, 1, 3)


def test_panels(frame):
    image = side_by_side(frame, frame[:, :4], gap=2)
    np.testing.assert_array_equal(image[:, :11], frame)
    np.testing.assert_array_equal(image[:, 13:], frame[:, :4])
    assert (image[:, 11:13] == 255).all()


def test_errors_say_what_is_wrong(frame, labels):
    with pytest.raises(ValueError, match=r"\(9, 11, 3\) and labels \(9, 4\)"):
        overlay(frame, labels[:, :4])
    with pytest.raises(ValueError, match=r"alpha 1\.5"):
        overlay(frame, labels, alpha=1.5)
    with pytest.raises(ValueError, match=r"one height, found \[9, 3\]"):
        side_by_side(frame, frame[:3])
    with pytest.raises(ValueError, match="one height"):
        side_by_side()
