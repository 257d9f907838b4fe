import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.cityscapes import CITYSCAPES_19, Cityscapes


@pytest.fixture
def release(tmp_path, make_frames):
    """One snippet as in lindau, two of one long sequence as in frankfurt; small images."""
    masks = {}
    for number, (city, sequence, labelled) in enumerate(
        (("lindau", "000003", 19), ("frankfurt", "000000", 294), ("frankfurt", "000000", 576))
    ):
        frame_folder = tmp_path / "leftImg8bit_sequence" / "val" / city
        mask_folder = tmp_path / "gtFine" / "val" / city
        frame_folder.mkdir(parents=True, exist_ok=True)
        mask_folder.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(make_frames(30, 32, 64, number), start=labelled - 19):
            Image.fromarray(frame).save(frame_folder / f"{city}_{sequence}_{index:06d}_leftImg8bit.png")
        name = f"{city}_{sequence}_{labelled:06d}"
        masks[name] = np.random.default_rng(number).integers(0, 34, (32, 64), dtype=np.uint8)
        Image.fromarray(masks[name]).save(mask_folder / f"{name}_gtFine_labelIds.png")
        Image.fromarray(masks[name]).save(mask_folder / f"{name}_gtFine_instanceIds.png")
    return tmp_path, masks


def test_a_video_is_the_snippet_around_the_labelled_frame(release):
    root, masks = release
    data = Cityscapes(root, num_workers=0)
    data.setup("test")
    assert [video.name for video in data.videos()] == sorted(masks)
    assert all(video.num_frames == 30 for video in data.videos())
    assert data.videos()[0].frames[0].name == "frankfurt_000000_000275_leftImg8bit.png"
    assert data.videos()[0].frames[-1].name == "frankfurt_000000_000304_leftImg8bit.png"


@pytest.mark.parametrize("clip_length", [14, 30, 5])
def test_only_the_twentieth_frame_is_labelled(release, clip_length):
    root, masks = release
    data = Cityscapes(root, num_workers=0, clip_length=clip_length, tail="short")
    labelled = []
    for clip in data.test_dataloader():
        if clip.labels_THW is None:
            assert not clip.labelled_T.any()
            continue
        (index,) = clip.labelled_T.nonzero().flatten().tolist()
        labelled.append((clip.video, clip.start + index))
        np.testing.assert_array_equal(clip.labels_THW[index].numpy(), masks[clip.video])
        assert clip.frame_names[index] == f"{clip.video}_leftImg8bit"
    assert labelled == [(name, 19) for name in sorted(masks)]


def test_label_ids_become_train_ids():
    names = [CITYSCAPES_19.classes[CITYSCAPES_19.class_of_raw[raw]] for raw in (7, 8, 11, 21, 23, 24, 26, 31, 33)]
    assert names == ["road", "sidewalk", "building", "vegetation", "sky", "person", "car", "train", "bicycle"]
    ignored = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 34, 255]
    assert set(CITYSCAPES_19.class_ids(torch.tensor(ignored)).tolist()) == {-1}
    assert sorted(CITYSCAPES_19.class_of_raw.values()) == list(range(19))


def test_a_wrong_root_shows_the_layout(release, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"sequence/val not found.*gtFine_labelIds\.png.*unpack leftImg8bit_seq"
    ):
        Cityscapes(tmp_path / "nowhere").setup("test")
    (release[0] / "gtFine").rename(release[0] / "gtCoarse")
    with pytest.raises(FileNotFoundError, match=r"gtFine/val not found.*unpack gtFine_trainvaltest\.zip there"):
        Cityscapes(release[0]).setup("test")
    (release[0] / "gtFine" / "val").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"gtFine/val holds no .*unpack gtFine_trainvaltest\.zip"):
        Cityscapes(release[0]).setup("test")


def test_a_missing_frame_is_named(release):
    frame = release[0] / "leftImg8bit_sequence" / "val" / "lindau" / "lindau_000003_000005_leftImg8bit.png"
    frame.unlink()
    with pytest.raises(FileNotFoundError, match=r"000005_leftImg8bit\.png not found.*000000_left.*000029_left"):
        Cityscapes(release[0]).setup("test")


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"data\.split is 'test'; allowed: train, val"):
        Cityscapes(tmp_path, "test")
    with pytest.raises(ValueError, match=r"data\.limit_frames is 19.*at least 20"):
        Cityscapes(tmp_path, limit_frames=19)
