import numpy as np
import pytest
from PIL import Image

from zsvss.results.id_images import read_ids, write_index_png, write_segment_png
from zsvss.results.segment_colors import palette


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


def test_segments_are_counted_from_one(tmp_path):
    labels = np.array([[0, 1, 254], [-1, -3, 7]])
    write_segment_png(tmp_path / "ids.png", labels)
    image = Image.open(tmp_path / "ids.png")
    assert image.mode == "P"
    assert np.asarray(image).tolist() == read_ids(tmp_path / "ids.png").tolist() == [[1, 2, 255], [0, 0, 8]]
    shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown[0], palette(255)[labels[0]])
    assert shown[1, 0].tolist() == [0, 0, 0]
    write_segment_png(tmp_path / "more.png", labels + 1)
    assert Image.open(tmp_path / "more.png").mode == "I;16"
    assert read_ids(tmp_path / "more.png").tolist() == [[2, 3, 256], [1, 0, 9]]


def test_what_is_no_image_of_ids(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb\.png is a colour image"):
        read_ids(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "rgb.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        read_ids(tmp_path / "cut.png")
