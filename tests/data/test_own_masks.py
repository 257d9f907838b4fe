import logging

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.own_masks import read_own_masks


def read_taxonomy(*arguments, **options):
    return read_own_masks(*arguments, **options).taxonomy


def discs(values, size=(96, 128)):
    """A label map of discs on the first value."""
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.full(size, values[0], np.uint8)
    for number, value in enumerate(values[1:]):
        mask[(y - 30 - 20 * (number % 3)) ** 2 + (x - 20 - 30 * number) ** 2 < 15**2] = value
    return mask


def test_zero_and_255_are_background_and_object(tmp_path, write_images, caplog):
    """As DAVIS 2016 and most tools write masks of one object; 255 as void would leave one class, always right."""
    write_images(tmp_path, [discs([0, 255]), discs([0])])  # the object has left the second frame
    with caplog.at_level(logging.INFO):
        taxonomy = read_taxonomy(tmp_path, "swan")
    assert taxonomy.classes == ("background", "object")
    assert taxonomy.class_ids(torch.tensor([0, 255, 7])).tolist() == [0, 1, -1]
    assert taxonomy.name == "swan-masks (0: background, 255: object)"  # the table shows it
    assert "0 is 'background'" in caplog.text
    assert "255 is 'object'" in caplog.text
    assert read_taxonomy(tmp_path, "swan", ["lake", "swan"]).classes == ("lake", "swan")


def test_strokes_of_a_single_value_are_told_how_they_were_read(tmp_path, write_images, caplog):
    """Open pixels beside one value leave nothing to tell apart, so that 255 is an object here too."""
    strokes = np.full((96, 128), 255, np.uint8)
    strokes[40:44, 20:90] = 0
    write_images(tmp_path / "one", [strokes])
    assert read_own_masks(tmp_path / "one", "a").taxonomy.classes == ("background", "object")
    assert "0 is 'background' (280 pixels), 255 is 'object' (12008 pixels)" in caplog.text
    assert "where strokes need a value of their own for each object and for the background" in caplog.text
    assert read_own_masks(tmp_path / "one", "a", ignore_value=255).only_value == 0
    strokes[60:64, 20:90] = 1
    write_images(tmp_path / "two", [strokes])
    taxonomy = read_own_masks(tmp_path / "two", "a").taxonomy
    assert taxonomy.class_ids(torch.tensor([0, 1, 255])).tolist() == [0, 1, -1]


def test_255_is_void_where_it_is_said_or_there_are_classes(tmp_path, write_images, caplog):
    write_images(tmp_path / "binary", [discs([0, 255])])
    taxonomy = read_taxonomy(tmp_path / "binary", "a", ignore_value=255)
    assert taxonomy.class_ids(torch.tensor([0, 255])).tolist() == [0, -1]
    assert "one class alone, 'class 0'" in caplog.text  # every score compares it with itself
    everything = read_own_masks(tmp_path / "binary", "a", ignore_value=None)
    assert everything.taxonomy.class_ids(torch.tensor([0, 255])).tolist() == [0, 255]
    assert everything.only_value is None
    write_images(tmp_path / "classes", [discs([0, 1, 255])])
    assert read_taxonomy(tmp_path / "classes", "a").class_ids(torch.tensor([0, 1, 255])).tolist() == [0, 1, -1]
    write_images(tmp_path / "three", [discs([0, 255])])
    names = ["lake", "swan", "reed"]  # a table of its own
    assert read_taxonomy(tmp_path / "three", "a", names).class_ids(torch.tensor([0, 255])).tolist() == [0, -1]


def test_jpeg_masks_are_refused(tmp_path, write_images):
    write_images(tmp_path, [discs([0, 255])], ".jpg")
    with pytest.raises(ValueError, match=r"00000\.jpg: this mask is a JPEG.*PNGs"):
        read_taxonomy(tmp_path, "a")
    Image.fromarray(discs([0, 255])).save(tmp_path / "00000.jpg.png", format="JPEG")
    (tmp_path / "00000.jpg").unlink()
    with pytest.raises(ValueError, match=r"00000\.jpg\.png: this mask is a JPEG"):
        read_taxonomy(tmp_path, "a")


@pytest.mark.parametrize("values", [[0, 255], [0, 20], [3, 60, 120], [10, 200, 90, 150]], ids=str)
@pytest.mark.parametrize("how", ["bilinear", "bicubic", "lanczos", "larger", "jpeg"])
def test_smoothed_masks_are_refused(tmp_path, write_images, values, how):
    clean = [discs(values, (192, 256)), discs(values[:2], (192, 256))]
    write_images(tmp_path / "clean", clean)
    read_taxonomy(tmp_path / "clean", "a")
    image = Image.fromarray(clean[0])
    if how == "jpeg":
        image.save(tmp_path / "noisy.jpg", quality=85)
        image = Image.open(tmp_path / "noisy.jpg")
        (tmp_path / "noisy.jpg").unlink()
    else:
        size = (400, 300) if how == "larger" else (120, 90)
        image = image.resize(size, Image.Resampling[{"larger": "BICUBIC"}.get(how, how.upper())])
    write_images(tmp_path / "noisy", [np.asarray(image)])
    with pytest.raises(ValueError, match=r"noisy/00000\.png: the values .* lie only along borders; .*nearest"):
        read_taxonomy(tmp_path / "noisy", "a")


def test_small_objects_and_random_masks_are_no_noise(tmp_path, write_images):
    specks = discs([0, 1, 2])
    specks[80, [5, 20, 40]], specks[85:87, 60] = [3, 4, 5], 6
    write_images(tmp_path / "specks", [specks])
    assert read_taxonomy(tmp_path / "specks", "a").num_classes == 7
    rng = np.random.default_rng(0)
    for count in (2, 3, 12, 124, 250):
        write_images(tmp_path / str(count), [rng.integers(0, count, (40, 60), dtype=np.uint8)])
        assert read_taxonomy(tmp_path / str(count), "a").num_classes == count


def test_values_without_a_name_are_told_with_their_pixels(tmp_path, write_images):
    mask = discs([0, 1])
    mask[:2, :3], mask[0, 10] = 7, 9
    write_images(tmp_path, [discs([0, 1]), mask])
    with pytest.raises(ValueError, match=r"00001\.png has the value 9 .*2 names.*7 \(6 pixels\), 9 \(1 pixel\)"):
        read_taxonomy(tmp_path, "a", ["lake", "swan"])


def test_masks_that_show_nothing_are_refused(tmp_path, write_images):
    write_images(tmp_path, [np.full((8, 8), 255, np.uint8)])
    with pytest.raises(ValueError, match="every pixel of the masks is 255, which is not scored"):
        read_taxonomy(tmp_path, "a")


def test_a_binary_mask_that_was_halved_with_smoothing_is_refused(tmp_path, write_images):
    whole = discs([0, 255], size=(192, 256)).astype(np.float64)
    halved = whole.reshape(96, 2, 128, 2).mean((1, 3)).round().astype(np.uint8)  # holds 0, 64, 128, 191 and 255
    write_images(tmp_path, [halved])
    with pytest.raises(ValueError, match=r"lie only along borders; the mask was resized with smoothing"):
        read_taxonomy(tmp_path, "swan")


def test_a_thin_class_beside_void_is_a_class(tmp_path, write_images):
    mask = discs([0, 255])
    mask[:, 100] = 1  # a pole
    write_images(tmp_path, [mask])
    assert read_taxonomy(tmp_path, "a").class_ids(torch.tensor([0, 1, 255])).tolist() == [0, 1, -1]


def test_hidden_folders_hold_no_masks(tmp_path, write_images):
    write_images(tmp_path, [discs([0, 1])])
    (tmp_path / ".thumbnails").mkdir()
    Image.fromarray(discs([0, 90])).save(tmp_path / ".thumbnails" / "00000.jpg")
    assert read_taxonomy(tmp_path, "a").classes == ("class 0", "class 1")
