import numpy as np
import pytest

from zsvss.results.segment_colors import class_colors, color_labels, palette, seen_by


def test_colours_are_distinct_and_stable():
    colors = palette(256)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 256
    for num in (1, 7, 20):
        np.testing.assert_array_equal(palette(num), colors[:num])
    # Runs are compared by their colours across versions, so these are fixed.
    assert colors[:5].tolist() == [[0, 102, 255], [221, 255, 0], [238, 0, 0], [255, 187, 255], [136, 0, 136]]
    np.testing.assert_array_equal(palette(300)[256:], colors[:44])


@pytest.mark.parametrize(("num", "least"), [(8, 0.13), (12, 0.1), (20, 0.07)])
def test_the_first_colours_are_told_apart_by_all_eyes(num, least):
    """In Oklab, where two colours can just be told apart at 0.02; black, no segment, is one of them."""
    for view in seen_by(np.concatenate([np.zeros((1, 3), np.uint8), palette(num)])):
        distances = np.linalg.norm(view[:, None] - view[None], axis=-1) + np.eye(num + 1)
        assert distances.min() > least


def test_dichromats_see_no_hue_of_their_missing_pigment():
    """Red and green of the same lightness to them are the same; blue and yellow are not."""
    red_green = np.array([[190, 100, 40], [127, 127, 40]])
    blue_yellow = np.array([[60, 60, 220], [200, 200, 60]])
    apart = [[np.ptp(view, axis=0)[1:].max() for view in seen_by(pair)] for pair in (red_green, blue_yellow)]
    assert apart[0][2] < 0.25 * apart[0][0]
    assert min(apart[1]) > 0.2


def test_no_colour_looks_like_no_colour():
    for view in seen_by(palette(60)):
        assert np.hypot(view[:, 1], view[:, 2]).min() > 0.04


def test_callers_cannot_spoil_the_palette():
    palette(4)[:] = 0
    assert palette(4).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_each_id_has_its_colour(dtype):
    labels = np.array([[0, 1], [2, 200]], dtype=dtype)
    np.testing.assert_array_equal(color_labels(labels), palette(256)[labels])
    three = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert color_labels(labels, three).tolist() == [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [7, 8, 9]]]


def test_no_label_is_black():
    assert color_labels(np.array([[-1, 0]]))[0].tolist() == [[0, 0, 0], [0, 102, 255]]


def test_what_novelty_opens_is_in_no_classs_colour():
    classes = np.array([(1, 2, 3), (4, 5, 6), (7, 8, 9)], np.uint8)
    painted = color_labels(np.arange(256, 512)[None], class_colors(classes))
    assert not (painted[0, :, None] == classes).all(-1).any()
    assert len(np.unique(painted[0], axis=0)) == 256
