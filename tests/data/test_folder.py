from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.data.folder import VideoFolder
from zsvss.data.reader import has_decord
from zsvss.data.sources import find_sources


def masks_like(frames):
    """Class numbers that vary over space and time."""
    return ((frames[..., 0].astype(int) // 64 + np.arange(len(frames))[:, None, None]) % 3).astype(np.uint8)


def clips_of(data, stage="predict"):
    data.setup(stage)
    return list(data.test_dataloader())


@pytest.fixture
def video(tmp_path, write_images, make_frames):
    frames = make_frames(5, 40, 160)
    return write_images(tmp_path / "swan", frames), frames


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_folder_of_images(video, num_workers):
    folder, frames = video
    clips = clips_of(VideoFolder(folder, clip_length=3, num_workers=num_workers))
    assert [(clip.video, clip.start, clip.num_final) for clip in clips] == [("swan", 0, 2), ("swan", 2, 3)]
    assert clips[1].frame_names == ("00002", "00003", "00004")
    np.testing.assert_array_equal(torch.cat([clips[0].frames_THW3[:2], clips[1].frames_THW3]).numpy(), frames)
    assert clips[0].labels_THW is None
    assert clips[1].is_last


def test_a_video_file(tmp_path, write_video, make_frames):
    path = write_video(tmp_path / "clip.mp4", make_frames(5, 96, 160))
    data = VideoFolder(path, clip_length=3, num_workers=0)
    clips = clips_of(data)
    assert data.name == clips[0].video == "clip"
    assert [tuple(clip.frames_THW3.shape) for clip in clips] == [(3, 96, 160, 3)] * 2


def test_a_folder_of_videos(tmp_path, write_images, write_video, make_frames):
    write_images(tmp_path / "all" / "b", make_frames(2, 40, 60), ".jpg")
    write_images(tmp_path / "all" / "c", make_frames(1, 30, 50))
    write_video(tmp_path / "all" / "a.mp4", make_frames(3, 96, 160))
    (tmp_path / "all" / "readme.txt").write_text("notes")
    data = VideoFolder(tmp_path / "all", num_workers=0)
    assert [(video.name, video.num_frames) for video in data.videos()] == [("a", 3), ("b", 2), ("c", 1)]
    assert [clip.frames_THW3.shape[1:3] for clip in clips_of(data)] == [(96, 160), (40, 60), (30, 50)]


def test_a_damaged_video_does_not_stop_the_others(tmp_path, write_video, make_frames):
    (tmp_path / "all").mkdir()
    write_video(tmp_path / "all" / "a.mp4", make_frames(3, 96, 160))
    (tmp_path / "all" / "b.mp4").write_text("text")
    data = VideoFolder(tmp_path / "all", num_workers=0)
    assert [clip.video for clip in clips_of(data)] == ["a"]
    assert list(data.failures) == ["b"]
    assert "b.mp4 cannot be read as a video" in data.failures["b"]
    (tmp_path / "all" / "a.mp4").write_text("text")
    with pytest.raises(ValueError, match=r"no video can be read: .*a\.mp4.*b\.mp4"):
        VideoFolder(tmp_path / "all").videos()


def test_masks_make_it_a_benchmark(tmp_path, video, write_images):
    folder, frames = video
    masks = masks_like(frames)
    mask_folder = write_images(tmp_path / "masks", masks)
    data = VideoFolder(folder, mask_folder, num_workers=0)
    (clip,) = clips_of(data, "test")
    np.testing.assert_array_equal(clip.labels_THW.numpy(), masks)
    assert clip.labelled_T.all()
    assert data.has_ground_truth
    assert data.taxonomy.classes == ("class 0", "class 1", "class 2")


def test_names_and_ignored_value(tmp_path, video, write_images):
    folder, frames = video
    masks = masks_like(frames)
    masks[:, :10] = 255
    data = VideoFolder(folder, write_images(tmp_path / "masks", masks), class_names=["sky", "swan", "lake"])
    ids = data.taxonomy.class_ids(torch.tensor([0, 1, 2, 3, 255]))
    assert ids.tolist() == [0, 1, 2, -1, -1]
    assert data.taxonomy.classes == ("sky", "swan", "lake")
    with pytest.raises(ValueError, match=r"\.png has the value 2 but data\.class_names has 2 names.*ignore_value"):
        VideoFolder(folder, tmp_path / "masks", class_names=["sky", "swan"]).setup("test")


def test_masks_of_some_frames(tmp_path, video, write_images):
    folder, frames = video
    masks = masks_like(frames)
    mask_folder = write_images(tmp_path / "masks", masks[1:2], first=1)
    first, second = clips_of(VideoFolder(folder, mask_folder, clip_length=3, tail="short", num_workers=0), "test")
    assert first.labelled_T.tolist() == [False, True, False]
    np.testing.assert_array_equal(first.labels_THW[1].numpy(), masks[1])
    assert (first.labels_THW[[0, 2]] == 255).all()
    assert second.labels_THW is None
    assert not second.labelled_T.any()


def test_masks_of_a_video_file_go_by_number(tmp_path, write_images, write_video, make_frames):
    frames = make_frames(4, 96, 160)
    path = write_video(tmp_path / "clip.mp4", frames)
    masks = masks_like(frames)
    (clip,) = clips_of(VideoFolder(path, write_images(tmp_path / "masks", masks), num_workers=0), "test")
    np.testing.assert_array_equal(clip.labels_THW.numpy(), masks)


def test_masks_of_several_videos(tmp_path, write_images, make_frames):
    for name, count in (("a", 2), ("b", 3)):
        frames = make_frames(count, 40, 60, seed=count)
        write_images(tmp_path / "all" / name, frames)
        write_images(tmp_path / "masks" / name, masks_like(frames))
    clips = clips_of(VideoFolder(tmp_path / "all", tmp_path / "masks", num_workers=0), "test")
    for clip, count in zip(clips, (2, 3), strict=True):
        np.testing.assert_array_equal(clip.labels_THW.numpy(), masks_like(make_frames(count, 40, 60, seed=count)))


def test_sixteen_bit_grey_and_transparent_frames_work(tmp_path, make_frames):
    for mode in ("grey", "deep", "alpha"):
        (tmp_path / mode).mkdir()
        for number, frame in enumerate(make_frames(3, 40, 160)):
            image = Image.fromarray(frame)
            if mode == "deep":
                image = Image.fromarray(frame[..., 0].astype(np.uint16) * 257)
            image = {"grey": image.convert("L"), "deep": image, "alpha": image.convert("RGBA")}[mode]
            image.save(tmp_path / mode / f"{number}.png")
    clips = clips_of(VideoFolder(tmp_path, num_workers=0))
    assert [clip.video for clip in clips] == ["alpha", "deep", "grey"]
    alpha, deep, grey = (clip.frames_THW3.numpy().astype(int) for clip in clips)
    np.testing.assert_array_equal(alpha, make_frames(3, 40, 160))
    assert np.abs(deep - make_frames(3, 40, 160)[..., :1]).max() <= 1
    assert (grey[..., 0] == grey[..., 2]).all()


# Bad input: one clear error that names the file and what to do, from setup(), so before any model is loaded.


def test_missing_input(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere not found; data\.input must be a video file or a folder"):
        VideoFolder(tmp_path / "nowhere").setup("predict")


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="holds no frames; expected numbered images"):
        VideoFolder(tmp_path).setup("predict")


@pytest.mark.parametrize("faststart", [False, True])
def test_truncated_video(tmp_path, write_video, make_frames, faststart):
    options = {"movflags": "faststart"} if faststart else {}
    path = write_video(tmp_path / "cut.mp4", make_frames(40, 96, 160), **options)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cut\.mp4 cannot be read.*Copy it again"):
        VideoFolder(path).setup("predict")


def test_video_damaged_in_the_middle(tmp_path, write_video, make_frames):
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 160, 3), dtype=np.uint8)
    path = write_video(tmp_path / "damaged.mp4", noise, movflags="faststart")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged\.mp4.* cannot be read"):
        clips_of(VideoFolder(path, time_limit=20))


def test_text_named_mp4(tmp_path):
    (tmp_path / "notes.mp4").write_text("notes")
    with pytest.raises(ValueError, match=r"notes\.mp4 cannot be read as a video.*Copy it again"):
        VideoFolder(tmp_path / "notes.mp4").setup("predict")


@pytest.mark.skipif(not has_decord(), reason="decord has no wheel for this platform")
def test_a_video_that_hangs_the_decoder(tmp_path, write_video, make_frames, monkeypatch):
    path = write_video(tmp_path / "slow.mp4", make_frames(3, 96, 160))
    monkeypatch.setattr("zsvss.data.folder.open_frames", lambda *_: __import__("time").sleep(60))
    with pytest.raises(ValueError, match=r"slow\.mp4 cannot be read.*more than 0\.5 s.*convert it with ffmpeg"):
        VideoFolder(path, time_limit=0.5, decoder="decord").setup("predict")


def test_zero_byte_image_in_the_middle(video):
    (video[0] / "00002.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00002\.png is empty \(0 bytes\); replace it"):
        VideoFolder(video[0]).setup("predict")


def test_frames_of_two_sizes(video, write_images, make_frames):
    write_images(video[0], make_frames(1, 50, 160), first=5)
    with pytest.raises(ValueError, match=r"00005\.png is 160x50 but 00000\.png is 160x40.*resize"):
        VideoFolder(video[0]).setup("predict")


def test_masks_of_another_size(tmp_path, video, write_images):
    mask_folder = write_images(tmp_path / "masks", masks_like(video[1])[:, :, :100])
    with pytest.raises(ValueError, match=r"00000\.png is 100x40 but the frames are 160x40; resize the masks"):
        VideoFolder(video[0], mask_folder).setup("test")


def test_masks_of_other_names(tmp_path, video, write_images):
    mask_folder = write_images(tmp_path / "masks", masks_like(video[1]), first=1)
    with pytest.raises(ValueError, match=r"00005\.png belongs to no frame; name the masks like.*00000 \.\. 00004"):
        VideoFolder(video[0], mask_folder).setup("test")


def test_masks_that_are_damaged_colourful_missing_or_none(tmp_path, video, write_images):
    folder, frames = video
    mask_folder = write_images(tmp_path / "masks", masks_like(frames))
    (mask_folder / "00001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"masks/00001\.png is empty"):
        VideoFolder(folder, mask_folder).setup("test")
    Image.fromarray(frames[1]).save(mask_folder / "00001.png")
    with pytest.raises(ValueError, match=r"00001\.png: a mask of mode RGB.*convert the colours"):
        VideoFolder(folder, mask_folder).setup("test")
    with pytest.raises(FileNotFoundError, match=r"nowhere not found; data\.masks must be a folder"):
        VideoFolder(folder, tmp_path / "nowhere").setup("test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no masks; expected one PNG a frame"):
        VideoFolder(folder, tmp_path / "empty").setup("test")


def test_testing_without_masks(video):
    with pytest.raises(ValueError, match="swan has no ground truth to test against; use `predict`, or give masks"):
        VideoFolder(video[0]).setup("test")


def test_class_names_without_masks(video):
    with pytest.raises(ValueError, match=r"data\.masks is not given"):
        VideoFolder(video[0], class_names=["a"])


def test_two_videos_of_one_name(tmp_path, write_images, write_video, make_frames):
    write_images(tmp_path / "all" / "a", make_frames(2, 40, 60))
    write_video(tmp_path / "all" / "a.mp4", make_frames(2, 96, 160))
    with pytest.raises(ValueError, match="two videos named 'a'; rename one"):
        VideoFolder(tmp_path / "all").setup("predict")


def test_masks_that_change_their_size_are_a_failure_of_that_video_alone(tmp_path, write_images, make_frames):
    for name in ("a", "b"):
        frames = make_frames(4, 40, 60)
        write_images(tmp_path / "all" / name, frames)
        write_images(tmp_path / "masks" / name, masks_like(frames))
    write_images(tmp_path / "masks" / "a", masks_like(make_frames(1, 48, 60)), first=3)
    data = VideoFolder(tmp_path / "all", tmp_path / "masks", num_workers=0)
    assert {clip.video for clip in clips_of(data, "test")} == {"b"}
    assert list(data.failures) == ["a"]
    assert "a/00003.png is 60x48 but the frames are 60x40" in data.failures["a"]


# What lies beside videos.


def test_folders_whose_names_have_dots_are_two_videos(tmp_path, write_images, make_frames):
    for name in ("clip.1", "clip.2"):
        write_images(tmp_path / "all" / name, make_frames(2, 40, 60))
    assert [video.name for video in VideoFolder(tmp_path / "all").videos()] == ["clip.1", "clip.2"]
    assert VideoFolder(tmp_path / "all" / "clip.1").name == "clip.1"


def test_hidden_entries_and_pictures_beside_videos_are_no_videos(
    tmp_path, write_images, write_video, make_frames, caplog
):
    path = write_video(tmp_path / "swan.mp4", make_frames(3, 96, 160))
    (tmp_path / "._swan.mp4").write_bytes(b"no video")
    write_images(tmp_path / ".thumbnails", make_frames(2, 40, 60))
    Image.new("RGB", (60, 60)).save(tmp_path / "cover.jpg")
    (tmp_path / "swan.srt").write_text("subtitles")
    (tmp_path / "swan.xyz").write_text("?")
    assert find_sources(tmp_path) == [path]
    assert "1 x .jpg (cover.jpg); 1 x .srt (swan.srt); 1 x .xyz (swan.xyz)" in caplog.text
    assert "swan.mp4" not in caplog.text


def test_what_lies_beside_numbered_images_is_named(tmp_path, write_images, make_frames, caplog):
    frames = make_frames(3, 40, 60)
    write_images(tmp_path / "lake", frames)
    write_images(tmp_path / "lake" / "more", frames[:1])
    for name in ("00003.exr", "00004.exr", "notes", ".DS_Store"):
        (tmp_path / "lake" / name).write_text("?")
    (video,) = VideoFolder(tmp_path / "lake").videos()
    assert video.num_frames == 3
    told = "lake: left out, since they are no images: 2 x .exr (00003.exr, 00004.exr); 1 x folders (more); 1 x no end"
    assert told in caplog.text
    caplog.clear()
    write_images(tmp_path / "swan", frames)
    (tmp_path / "more").mkdir()
    assert [video.name for video in VideoFolder(tmp_path).videos()] == ["lake", "swan"]
    assert told in caplog.text
    assert "left out, since they are neither videos nor folders of images: 1 x folders (more)" in caplog.text
    assert "swan" not in caplog.text


@pytest.mark.parametrize("deeper", ["", "more"])
def test_masks_beside_the_images_are_not_left_out(tmp_path, write_images, make_frames, caplog, monkeypatch, deeper):
    frames = make_frames(2, 40, 60)
    folder = write_images(tmp_path / "swan", frames)
    write_images(folder / deeper / "masks", masks_like(frames))
    monkeypatch.chdir(tmp_path)
    masks = Path("swan", deeper, "masks")
    for source, place in ((folder, folder / deeper / "masks"), ("swan", masks), ("./swan", tmp_path / masks)):
        (video,) = VideoFolder(source, f"{place}/").videos()
        assert video.has_ground_truth
    (video,) = VideoFolder("swan", Path("..", tmp_path.name) / masks).videos()
    assert video.has_ground_truth
    assert "left out" not in caplog.text


def test_masks_and_run_folders_beside_videos_are_no_videos(
    tmp_path, write_images, write_video, make_frames, caplog, monkeypatch
):
    frames = make_frames(2, 40, 60)
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "swan", frames)
    write_images(tmp_path / "masks", masks_like(frames))
    (tmp_path / "runs" / "predict-1").mkdir(parents=True)
    (video,) = VideoFolder(".", "masks").videos()
    assert (video.name, video.has_ground_truth) == ("swan", True)
    assert "left out" not in caplog.text
    (tmp_path / "other").mkdir()
    assert [source.name for source in find_sources(Path())] == ["masks", "swan"]
    assert "1 x folders (other)" in caplog.text


def test_one_picture_beside_folders_of_frames(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path / "a", make_frames(2, 40, 60))
    Image.new("RGB", (60, 60)).save(tmp_path / "folder.png")
    assert find_sources(tmp_path) == [folder]


def test_numbered_images_beside_a_video_are_ambiguous(tmp_path, write_images, write_video, make_frames):
    write_images(tmp_path, make_frames(2, 40, 60))
    write_video(tmp_path / "swan.mp4", make_frames(3, 96, 160))
    with pytest.raises(
        ValueError, match=r"both video files \(swan\.mp4 \.\.\.\) and 2 numbered images.*give the video file"
    ):
        find_sources(tmp_path)


def test_a_folder_without_videos_names_what_is_there(tmp_path):
    (tmp_path / "video.mp5").write_text("?")
    with pytest.raises(ValueError, match=r"holds no frames; .*found 1 x \.mp5 \(video\.mp5\)"):
        find_sources(tmp_path)


def test_the_working_folder_has_a_name(video, monkeypatch):
    folder, _ = video
    monkeypatch.chdir(folder)
    data = VideoFolder(".", num_workers=0)
    assert (data.name, [clip.video for clip in clips_of(data)]) == ("swan", ["swan"])
    monkeypatch.chdir(folder.parent)
    assert VideoFolder("swan/../swan/.").name == "swan"


def test_an_animation_is_a_video(tmp_path, make_frames):
    images = [Image.fromarray(frame) for frame in make_frames(5, 40, 60)]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True, duration=40)
    data = VideoFolder(tmp_path / "a.webp", clip_length=3, num_workers=0)
    clips = clips_of(data)
    assert [clip.start for clip in clips] == [0, 2]
    np.testing.assert_array_equal(clips[1].frames_THW3.numpy(), make_frames(5, 40, 60)[2:])
    assert data.videos()[0].source.fps == 25


def test_an_empty_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.input is empty; give a video file or a folder"):
        VideoFolder("")
    with pytest.raises(ValueError, match=r"data\.masks is empty; give a video file or a folder"):
        VideoFolder(tmp_path, "")
