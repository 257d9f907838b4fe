"""Both years' layouts and masks, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.davis import DAVIS_2016, DAVIS_2017, Davis, read_object, read_objects

SIZE = (48, 64)


def write_masks(folder, values):
    """Palette PNGs, as the release of 2017 has them."""
    folder.mkdir(parents=True)
    for number, values_HW in enumerate(values):
        image = Image.fromarray(values_HW, mode="P")
        image.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
        image.save(folder / f"{number:05d}.png")


@pytest.fixture
def release(tmp_path, write_images, make_frames):
    """Two videos in the layout of 2017, with the lists of both years."""
    masks = {}
    for number, (name, length) in enumerate((("bear", 4), ("gold-fish", 3))):
        write_images(tmp_path / "JPEGImages/480p" / name, make_frames(length, *SIZE, number), ".jpg")
        masks[name] = np.random.default_rng(number).choice([0, 1, 2, 255], (length, *SIZE)).astype(np.uint8)
        write_masks(tmp_path / "Annotations/480p" / name, masks[name])
    for year, lines in (
        ("2017", "gold-fish\nbear\n"),
        ("480p", "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n" * 2),
    ):
        (tmp_path / "ImageSets" / year).mkdir(parents=True)
        (tmp_path / "ImageSets" / year / "val.txt").write_text(lines)
    return tmp_path, masks


def labels_of(data):
    found = {}
    for clip in data.test_dataloader():
        found.setdefault(clip.video, []).append(clip.labels_THW[: clip.num_final].numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_2017_has_several_objects_and_void(release):
    root, masks = release
    data = Davis(root, num_workers=0)
    data.setup("test")
    assert [(video.name, video.num_frames) for video in data.videos()] == [("gold-fish", 3), ("bear", 4)]
    for name, labels in labels_of(data).items():
        np.testing.assert_array_equal(labels, masks[name])
    assert data.taxonomy.class_ids(torch.tensor([0, 1, 2, 20, 21, 255])).tolist() == [0, 1, 2, 20, -1, -1]
    assert data.taxonomy is DAVIS_2017
    assert data.taxonomy.objects == tuple(range(1, 21))


def test_2016_has_one_object_that_every_value_but_0_means(release):
    root, masks = release
    data = Davis(root, year=2016, num_workers=0)
    assert [video.name for video in data.videos()] == ["bear"]
    np.testing.assert_array_equal(labels_of(data)["bear"], np.where(masks["bear"] > 0, 255, 0))
    assert DAVIS_2016.class_ids(torch.tensor([0, 1, 255])).tolist() == [0, 1, 1]


def test_masks_of_2016_may_be_colour_images(tmp_path):
    values = np.zeros((4, 5, 3), np.uint8)
    values[1, 2] = 255
    Image.fromarray(values).save(tmp_path / "rgb.png")
    alpha = np.full((4, 5, 1), 255, np.uint8)  # opaque everywhere: no object
    Image.fromarray(np.concatenate([values, alpha], 2)).save(tmp_path / "rgba.png")
    for name in ("rgb", "rgba"):
        assert (read_object(tmp_path / f"{name}.png") == values[..., 0]).all()


def test_frames_and_masks_alone_need_no_list(tmp_path, write_images, make_frames):
    write_images(tmp_path / "frames/goat", make_frames(2, *SIZE), ".jpg")
    write_images(tmp_path / "masks/goat", np.full((2, *SIZE), 255, np.uint8))
    data = Davis(tmp_path, year="2016", split="all", num_workers=0)
    assert (labels_of(data)["goat"] == 255).all()
    with pytest.raises(FileNotFoundError, match=r"ImageSets/2016/val\.txt not found.*--data.split all"):
        Davis(tmp_path, year="2016").videos()


def test_some_videos_can_be_chosen_by_name(release):
    assert [video.name for video in Davis(release[0], names=["bear"]).videos()] == ["bear"]
    with pytest.raises(ValueError, match="'swan'; split 'val' has gold-fish, bear"):
        Davis(release[0], names=["bear", "swan"]).videos()


def test_the_test_sets_have_the_first_mask_alone(release):
    root, _ = release
    (root / "ImageSets/2017/test-dev.txt").write_text("bear\n")
    for number in (1, 2, 3):
        (root / f"Annotations/480p/bear/{number:05d}.png").unlink()
    (video,) = Davis(root, split="test-dev").videos()
    assert [path is not None for path in video.labels] == [True, False, False, False]
    with pytest.raises(FileNotFoundError, match=r"bear/00001\.png not found, the mask of .*00001\.jpg"):
        Davis(root).videos()


def test_other_values_are_refused_with_their_file(tmp_path):
    write_masks(tmp_path / "bear", np.array([[[0, 1, 254, 255]]], np.uint8))
    with pytest.raises(ValueError, match=r"00000\.png has the value 254.*objects 1\.\.20.*data.year"):
        read_objects(tmp_path / "bear/00000.png")


def test_masks_of_another_resolution_are_refused(release):
    root, _ = release
    Image.new("L", (10, 12)).save(root / "Annotations/480p/bear/00002.png")
    with pytest.raises(ValueError, match=r"00002\.png is 10x12 but its frame is 64x48.*data.resolution"):
        Davis(root).videos()


@pytest.mark.parametrize("settings", [{"year": "2018"}, {"split": "valid"}, {"year": 2016, "split": "test-dev"}])
def test_unknown_years_and_splits_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="allowed: 2016 or 2017"):
        Davis(tmp_path, **settings)


def test_a_folder_without_davis_is_refused_with_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/480p not found.*frames/<video>/00000\.jpg"):
        Davis(tmp_path).videos()
