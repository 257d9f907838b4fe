import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.camvid import CAMVID_11, CAMVID_32, CamVid, read_colour_mask, read_mask_11
from zsvss.data.class_lists import CAMVID_COLORS

REAL = Path(os.environ.get("ZSVSS_CAMVID", Path(__file__).parents[3] / "shared" / "data" / "camvid"))

NAMES_32 = (
    *(f"0001TP_{number:06d}" for number in (6690, 8520, 8550, 10380)),
    "0006R0_f00930",
    *(f"0016E5_{number:05d}" for number in (390, 7957, 7959, 8159, 8161)),
    *(f"Seq05VD_f{number:05d}" for number in (0, 30, 5100)),
)


@pytest.fixture
def release_11(tmp_path, make_frames):
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
    frames = make_frames(5, 36, 48)
    for number, frame in zip((8, 9, 10, 11, 100), frames, strict=True):
        Image.fromarray(frame).save(tmp_path / "val" / f"0016E5_{number}.png")
        Image.fromarray(frame[..., 0] % 12).save(tmp_path / "valannot" / f"0016E5_{number}.png")
    return tmp_path, frames


@pytest.fixture
def release_32(tmp_path):
    rng = np.random.default_rng(0)
    colours = np.array(list(CAMVID_COLORS.values()), np.uint8)
    values = {}
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (tmp_path / folder).mkdir()
    for name in NAMES_32:
        values[name] = rng.integers(0, 32, (36, 48))
        frame = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
        Image.fromarray(frame).save(tmp_path / "701_StillsRaw_full" / f"{name}.png")
        Image.fromarray(colours[values[name]]).save(tmp_path / "LabeledApproved_full" / f"{name}_L.png")
    return tmp_path, values


def test_a_video_is_a_sequence_in_frame_order(release_11):
    root, frames = release_11
    data = CamVid(root, clip_length=5, num_workers=0)
    data.setup("test")
    (clip,) = data.test_dataloader()
    assert clip.video == "0016E5"
    assert clip.frame_names == tuple(f"0016E5_{number}" for number in (8, 9, 10, 11, 100))
    np.testing.assert_array_equal(clip.frames_THW3.numpy(), frames)
    np.testing.assert_array_equal(clip.labels_THW.numpy(), frames[..., 0] % 12)
    ids = data.taxonomy.class_ids(clip.labels_THW).numpy()
    np.testing.assert_array_equal(ids, np.where(frames[..., 0] % 12 == 11, -1, (frames[..., 0] % 12).astype(int)))


def test_colours_become_classes_and_void_is_ignored(release_32):
    root, values = release_32
    data = CamVid(root, "all", "32", num_workers=0)
    data.setup("test")
    names = list(CAMVID_COLORS)
    seen = []
    for clip in data.test_dataloader():
        ids_THW = data.taxonomy.class_ids(clip.labels_THW).numpy()
        for name, ids in zip(clip.frame_names, ids_THW, strict=True):
            seen.append(name)
            expected = [names[value] for value in values[name].flat]
            found = ["Void" if i < 0 else CAMVID_32.classes[i] for i in ids.flat]
            assert found == expected
    assert sorted(seen) == sorted(NAMES_32)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("val", ["0016E5_07959", "0016E5_08159"]),
        ("test", ["0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f05100"]),
        ("train", ["0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00390", "0016E5_07957", "0016E5_08161"]),
    ],
)
def test_the_32_class_release_is_split_like_segnets(release_32, split, expected):
    data = CamVid(release_32[0], split, "32")
    assert [path.stem for video in data.videos() for path in video.frames] == expected


def test_foreign_colours_are_void_if_few_and_an_error_if_many(tmp_path):
    mask = np.full((20, 20, 3), CAMVID_COLORS["Road"], np.uint8)
    mask[0, 0] = (1, 2, 3)
    Image.fromarray(mask).save(tmp_path / "a_L.png")
    values = read_colour_mask(tmp_path / "a_L.png")
    assert (values[0, 0], values[1, 1]) == (255, list(CAMVID_COLORS).index("Road"))
    assert CAMVID_32.class_ids(torch.tensor([255])).tolist() == [-1]
    mask[:, :10] += 1
    Image.fromarray(mask).save(tmp_path / "a_L.png")
    with pytest.raises(ValueError, match=r"a_L\.png: 50\.0% of the pixels.*Use the original PNGs"):
        read_colour_mask(tmp_path / "a_L.png")


def test_a_wrong_root_shows_the_layout(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"val not found; CamVid with 11.*valannot/<sequence>_<frame>\.png.*data\.root"
    ):
        CamVid(tmp_path).setup("test")
    with pytest.raises(FileNotFoundError, match=r"701_StillsRaw_full not found; CamVid with 32.*_L\.png"):
        CamVid(tmp_path, labels="32").setup("test")


def test_masks_must_be_there_and_fit(release_11):
    root, _ = release_11
    mask = root / "valannot" / "0016E5_10.png"
    Image.new("L", (48, 40)).save(mask)
    with pytest.raises(ValueError, match=r"0016E5_10\.png is 48x40 but its frame is 48x36"):
        CamVid(root).setup("test")
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=r"valannot/0016E5_10\.png not found, the mask of .*val/0016E5_10\.png"):
        CamVid(root).setup("test")


def test_the_11_class_masks_are_not_taken_for_colours(release_11):
    mask = release_11[0] / "valannot" / "0016E5_8.png"
    with pytest.raises(ValueError, match=r"mode L.*data\.labels to '11'"):
        read_colour_mask(mask)


@pytest.mark.parametrize(("split", "labels"), [("all", "11"), ("dev", "32"), ("val", "12")])
def test_unknown_splits_and_labels(tmp_path, split, labels):
    with pytest.raises(ValueError, match=f"data.labels '{labels}', data.split '{split}'; allowed"):
        CamVid(tmp_path, split, labels)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"CamVid is not at {REAL} (set ZSVSS_CAMVID)")
def test_the_real_validation_split():
    data = CamVid(REAL)
    data.setup("test")
    (video,) = data.videos()
    assert (video.name, video.num_frames) == ("0016E5", 101)
    clip = next(iter(data.test_dataloader()))
    assert clip.frames_THW3.shape == (14, 360, 480, 3)
    assert clip.labels_THW.max() == 11
    # Sky above road: the first class lies higher in the image than the fourth.
    heights = [np.nonzero(clip.labels_THW[0].numpy() == value)[0].mean() for value in (0, 3)]
    assert heights[0] < heights[1]


def test_masks_of_the_32_classes_are_refused_as_those_of_11(release_11):
    root, _ = release_11
    mask = root / "valannot" / "0016E5_8.png"
    Image.fromarray(np.arange(36 * 48, dtype=np.uint8).reshape(36, 48) % 32).save(mask)
    with pytest.raises(ValueError, match=r"0016E5_8\.png holds values up to 31: .* 32 colours.*data\.labels '32'"):
        CamVid(root).setup("test")
    Image.open(mask).save(mask.with_name("0016E5_10.png"))  # not the first one alone
    Image.fromarray(np.full((36, 48), 3, np.uint8)).save(mask)
    with pytest.raises(ValueError, match=r"0016E5_10\.png holds values up to 31"):
        CamVid(root).setup("test")
    values = np.full((36, 48), 3, np.uint8)
    values[0, 0] = 17  # a slip of the pen: not scored, and told by the evaluation
    Image.fromarray(values).save(mask)
    assert read_mask_11(mask)[0, 0] == 17
    assert CAMVID_11.strangers(torch.tensor([3, 11, 17])) == {17: 1}


def test_a_large_mask_of_other_colours_is_a_failure_of_its_video(release_32):
    root, _ = release_32
    mask = root / "LabeledApproved_full" / "Seq05VD_f00030_L.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)).save(mask)
    data = CamVid(root, "test", "32", num_workers=0, skip_unreadable=True)
    data.setup("test")
    assert {clip.video for clip in data.test_dataloader()} == {"0001TP"}
    assert list(data.failures) == ["Seq05VD"]
    assert "Seq05VD_f00030_L.png" in data.failures["Seq05VD"]


@pytest.mark.parametrize(("split", "is_slow"), [("val", False), ("test", True), ("train", True)])
def test_only_the_validation_split_is_dense_in_time(tmp_path, split, is_slow):
    caveat = CamVid(tmp_path, split).consistency_caveat
    assert (caveat is not None) == is_slow
    assert caveat is None or "a second apart" in caveat
