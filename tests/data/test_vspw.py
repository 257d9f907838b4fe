import itertools
import re

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.vspw import VSPW, VSPW_RAW, VSPW_SHIFTED


@pytest.fixture
def release(tmp_path, write_images, make_frames):
    """Three videos of uneven length that start late, raw values 0..124, 254, 255."""
    masks = {}
    for number, (name, length, first) in enumerate((("1_a", 5, 0), ("20_b-c", 3, 7), ("3_d", 16, 100))):
        write_images(tmp_path / "data" / name / "origin", make_frames(length, 48, 160, number), ".jpg", first=first)
        values = np.random.default_rng(number).choice([*range(125), 254, 255], (length, 48, 160)).astype(np.uint8)
        write_images(tmp_path / "data" / name / "mask", values, first=first)
        masks[name] = values
    (tmp_path / "val.txt").write_text("20_b-c\n1_a\n3_d\n\n")
    return tmp_path, masks


def test_videos_come_as_the_split_file_says_with_their_masks(release):
    root, masks = release
    data = VSPW(root, num_workers=0)
    data.setup("test")
    assert [(video.name, video.num_frames) for video in data.videos()] == [("20_b-c", 3), ("1_a", 5), ("3_d", 16)]
    for name, clips in itertools.groupby(data.test_dataloader(), key=lambda clip: clip.video):
        labels = np.concatenate([clip.labels_THW[: clip.num_final].numpy() for clip in clips])
        np.testing.assert_array_equal(labels, masks[name])


def test_frame_names_keep_their_numbers(release):
    data = VSPW(release[0], num_workers=0, limit_videos=1)
    (clip,) = data.test_dataloader()
    assert clip.frame_names == ("00007", "00008", "00009")


@pytest.mark.parametrize(
    ("taxonomy", "expected"),
    [
        (VSPW_SHIFTED, {0: -1, 1: 0, 2: 1, 123: 122, 124: 123, 125: -1, 254: -1, 255: -1}),
        (VSPW_RAW, {0: 0, 1: 1, 2: 2, 123: 123, 124: -1, 125: -1, 254: -1, 255: -1}),
    ],
)
def test_both_protocols(taxonomy, expected):
    assert taxonomy.num_classes == 124
    assert taxonomy.class_ids(torch.tensor(list(expected))).tolist() == list(expected.values())


def test_the_protocols_name_the_same_raw_value_alike():
    for raw in range(1, 124):
        shifted, unshifted = VSPW_SHIFTED.class_of_raw[raw], VSPW_RAW.class_of_raw[raw]
        assert VSPW_SHIFTED.classes[shifted] == VSPW_RAW.classes[unshifted]
        assert VSPW_SHIFTED.palette[shifted] == VSPW_RAW.palette[unshifted]
    assert VSPW_SHIFTED.classes[0] == "wall"
    assert VSPW_SHIFTED.classes[60] == "person"
    assert VSPW_SHIFTED.classes[123] == "train"
    assert len(set(VSPW_SHIFTED.classes)) == 124


def test_the_protocol_chooses_the_taxonomy(release):
    assert VSPW(release[0]).taxonomy is VSPW_SHIFTED
    assert VSPW(release[0], protocol="raw").taxonomy is VSPW_RAW
    with pytest.raises(ValueError, match=r"data\.protocol is 'official'; allowed: shifted, raw"):
        VSPW(release[0], protocol="official")
    with pytest.raises(ValueError, match=r"data\.split is 'dev'; allowed: train, val, test"):
        VSPW(release[0], split="dev")


def test_the_test_split_has_no_ground_truth(release):
    root, _ = release
    (root / "test.txt").write_text("1_a\n")
    for mask in (root / "data" / "1_a" / "mask").iterdir():
        mask.unlink()
    (root / "data" / "1_a" / "mask").rmdir()
    VSPW(root, "test").setup("predict")
    with pytest.raises(ValueError, match="vspw has no ground truth"):
        VSPW(root, "test").setup("test")


def test_a_wrong_root_shows_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"val\.txt not found.*data/<video>/origin/<frame>\.jpg.*data\.root"):
        VSPW(tmp_path).setup("test")


def test_missing_parts_are_named(release):
    root, _ = release
    mask = root / "data" / "1_a" / "mask" / "00003.png"
    mask.rename(root / "elsewhere.png")
    with pytest.raises(FileNotFoundError, match=r"1_a/mask/00003\.png not found, the mask of .*00003\.jpg"):
        VSPW(root).setup("test")
    (root / "val.txt").write_text("99_x\n")
    with pytest.raises(FileNotFoundError, match=r"99_x/origin not found, the frames of video '99_x' of val\.txt"):
        VSPW(root).setup("test")
    (root / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt names no video"):
        VSPW(root).setup("test")


def test_one_damaged_frame_costs_one_video(release):
    root, _ = release
    (root / "data" / "1_a" / "origin" / "00002.jpg").write_bytes(b"")
    data = VSPW(root, num_workers=0, skip_unreadable=True)
    data.setup("test")
    assert {clip.video for clip in data.test_dataloader()} == {"20_b-c", "3_d"}
    assert list(data.failures) == ["1_a"]
    assert "00002.jpg is empty" in data.failures["1_a"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_masks_that_change_their_size_between_clips_fail_that_video_before_it_begins(release, num_workers):
    root, _ = release
    video = VSPW(root).videos()[0]
    odd = video.labels[-1]
    with Image.open(odd) as image:
        size = image.size
        image.resize((size[0], size[1] + 8), Image.Resampling.NEAREST).save(odd)
    data = VSPW(root, clip_length=2, num_workers=num_workers, skip_unreadable=True)
    data.setup("test")
    assert video.name not in {clip.video for clip in data.test_dataloader()}
    assert list(data.failures) == [video.name]
    message = rf"video '{video.name}' .*{odd.name} is {size[0]}x{size[1] + 8} but .*\.png is {size[0]}x{size[1]}"
    assert re.search(message, data.failures[video.name])
