import numpy as np
import pytest
from PIL import Image

from zsvss.results.palette import class_colors, color_labels, palette, write_index_png


def test_colours_are_distinct_and_stable():
    colors = palette(256)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == 256
    for num in (1, 7, 20):
        np.testing.assert_array_equal(palette(num), colors[:num])
    # Runs are compared by their colours across versions, so these are fixed.
    assert colors[:5].tolist() == [[0, 102, 255], [17, 255, 0], [255, 0, 0], [238, 0, 255], [68, 102, 51]]
    np.testing.assert_array_equal(palette(300)[256:], colors[:44])


def test_the_first_colours_are_far_apart():
    colors = palette(20).astype(int)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1000 * np.eye(20)
    assert distances.min() > 50


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


def test_index_png_holds_ids_and_shows_colours(tmp_path):
    labels = np.array([[0, 1, 254], [-1, 255, 7]])
    write_index_png(tmp_path / "ids.png", labels)
    image = Image.open(tmp_path / "ids.png")
    assert image.mode == "P"
    assert np.asarray(image).tolist() == [[0, 1, 254], [255, 255, 7]]
    shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown[0], palette(255)[labels[0]])
    assert shown[1, :2].tolist() == [[0, 0, 0]] * 2
    write_index_png(tmp_path / "own.png", np.array([[1, 0]], dtype=np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert np.asarray(Image.open(tmp_path / "own.png").convert("RGB")).tolist() == [[[4, 5, 6], [1, 2, 3]]]


def test_id_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ids.png: id 256 does not fit.*0\.\.255"):
        write_index_png(tmp_path / "ids.png", np.array([[256]]))
    assert not (tmp_path / "ids.png").exists()
