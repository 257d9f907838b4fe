import os
import struct
import tempfile
import time
import zlib
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from zsvss.data.images import list_images, read_rgb
from zsvss.data.procedural import ProceduralVideos
from zsvss.data.reader import has_decord, open_frames
from zsvss.data.readers.by_decord import DecordReader
from zsvss.data.readers.by_pillow import AnimationReader, PillowReader
from zsvss.data.readers.by_pyav import PyAVReader

needs_decord = pytest.mark.skipif(not has_decord(), reason="decord has no wheel for this platform")
# What `auto` opens images by that Decord can read.
AUTO_IMAGES = DecordReader if has_decord() else PillowReader


def decoded_by_pyav(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def decoded_by_pillow(folder):
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in list_images(folder)])


# Decord's answers are compared with Pillow's: equal for PNG, within a level for grey JPEG and 16 bit.
@pytest.mark.parametrize("size", [(60, 224), (97, 131), (224, 129), (40, 96), (7, 9)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_png_frames_are_lossless(tmp_path, write_images, size, mode):
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    folder = write_images(tmp_path, frames, mode=mode)
    reader = open_frames(folder)
    assert isinstance(reader, AUTO_IMAGES if size[1] >= 128 else PillowReader)
    assert reader.size == size
    assert reader.names == ("00000", "00001", "00002")
    np.testing.assert_array_equal(reader.read(0, 3).numpy(), decoded_by_pillow(folder))


@needs_decord
def test_grey_jpeg_and_sixteen_bit_png_agree_with_pillow_within_a_level(tmp_path, write_images, make_frames):
    grey = write_images(tmp_path / "grey", make_frames(3, 60, 160), ".jpg", mode="L")
    deep = tmp_path / "deep"
    deep.mkdir()
    values = np.random.default_rng(0).integers(0, 65536, (3, 60, 160)).astype(np.uint16)
    for number, value in enumerate(values):
        Image.fromarray(value).save(deep / f"{number}.png")
    for folder in (grey, deep):
        reader = open_frames(folder)
        expected = np.stack([read_rgb(path) for path in list_images(folder)])
        assert isinstance(reader, DecordReader)
        assert np.abs(reader.read(0, 3).numpy().astype(int) - expected).max() <= 1


def test_colour_jpeg_differs_from_pillow_only_by_its_chroma_upsampling(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path, make_frames(3, 120, 160), ".jpg")
    ours = open_frames(folder).read(0, 3).numpy().astype(float)
    assert np.abs(ours - decoded_by_pillow(folder)).mean() < 4
    exact = open_frames(folder, "pillow").read(0, 3).numpy()
    np.testing.assert_array_equal(exact, decoded_by_pillow(folder))


@pytest.mark.parametrize(("first", "step"), [(0, 1), (7, 1), (3, 5), (98, 1)])
@pytest.mark.parametrize("suffix", [".png", ".jpeg", ".JPG"])
def test_late_starts_and_gaps(tmp_path, write_images, make_frames, first, step, suffix):
    folder = write_images(tmp_path, make_frames(6, 40, 160), suffix, first=first, step=step, subsampling=0)
    reader = open_frames(folder)
    assert isinstance(reader, AUTO_IMAGES)
    assert reader.names == tuple(f"{first + step * number:05d}" for number in range(6))
    forwards = reader.read(0, 6)
    tolerance = 0 if suffix == ".png" else 4
    assert np.abs(forwards.numpy().astype(int) - decoded_by_pillow(folder)).max() <= tolerance
    assert torch.equal(torch.cat([reader.read(4, 6), reader.read(1, 3)]), forwards[[4, 5, 1, 2]])


def test_names_with_odd_characters_and_no_padding(tmp_path, make_frames):
    frames = make_frames(11, 40, 160)
    folder = tmp_path / "100% my video"
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"shot %d é{number}.png")
    np.testing.assert_array_equal(open_frames(folder).read(0, 11).numpy(), frames)


def test_mixed_formats_fall_back_to_pillow(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path, make_frames(2, 40, 160), ".jpg")
    write_images(tmp_path, make_frames(2, 40, 160), ".png", first=2)
    assert isinstance(open_frames(folder), PillowReader)
    with pytest.raises(ValueError, match="use `decoder: auto`"):
        open_frames(folder, "decord")


def test_an_ending_that_lies_about_the_format_does_not_matter(tmp_path, make_frames):
    for number, frame in enumerate(make_frames(4, 40, 160)):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg", format="PNG")
    assert isinstance(open_frames(tmp_path), AUTO_IMAGES)
    np.testing.assert_array_equal(open_frames(tmp_path).read(0, 4).numpy(), make_frames(4, 40, 160))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
def test_very_few_images(tmp_path, write_images, make_frames, num_frames):
    frames = make_frames(num_frames, 40, 160)
    np.testing.assert_array_equal(open_frames(write_images(tmp_path, frames)).read(0, num_frames).numpy(), frames)


def test_a_single_image_is_a_video_of_one_frame(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path, make_frames(1, 40, 160))
    for source in (folder, folder / "00000.png"):
        reader = open_frames(source)
        assert len(reader) == 1
        np.testing.assert_array_equal(reader.read(0, 1).numpy(), make_frames(1, 40, 160))


@needs_decord
def test_links_are_removed(tmp_path, write_images, make_frames, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    reader = open_frames(write_images(tmp_path / "video", make_frames(3, 40, 160)))
    assert os.listdir(tmp_path / "scratch")
    reader.close()
    assert not os.listdir(tmp_path / "scratch")


@pytest.mark.parametrize("size", [(96, 160), (160, 130), (180, 322), (34, 48)])
def test_video_files_in_any_order_of_access(tmp_path, write_video, make_frames, size):
    path = write_video(tmp_path / "video.mp4", make_frames(30, *size))
    expected = decoded_by_pyav(path)
    for reader in (open_frames(path), open_frames(path, "pyav")):
        assert len(reader) == 30
        assert reader.size == size
        assert reader.names[:2] == ("00000", "00001")
        for start, stop in ((0, 14), (14, 28), (16, 30), (29, 30), (3, 5)):
            np.testing.assert_array_equal(reader.read(start, stop).numpy(), expected[start:stop])
        reader.close()


@needs_decord
def test_a_waiting_consumer_does_not_let_decord_run_ahead(tmp_path, write_video, make_frames):
    frames = np.repeat(make_frames(4, 360, 640), 60, axis=0)
    path = write_video(tmp_path / "video.mp4", frames)
    del frames
    reader = open_frames(path, "decord")
    reader.read(0, 2)
    before = psutil.Process().memory_info().rss
    reader.read(2, 4)
    time.sleep(1)
    # All 240 frames are 166 MB; a few frames and the allocator's slack are far below.
    assert psutil.Process().memory_info().rss - before < 60e6


@pytest.mark.parametrize("num_frames", [1, 2])
def test_very_short_video_files(tmp_path, write_video, make_frames, num_frames):
    path = write_video(tmp_path / "video.mp4", make_frames(num_frames, 96, 160))
    np.testing.assert_array_equal(open_frames(path).read(0, num_frames).numpy(), decoded_by_pyav(path))


def test_video_files_are_read_by_pyav_unless_decord_is_asked_for(tmp_path, write_video, make_frames):
    path = write_video(tmp_path / "video.mp4", make_frames(4, 96, 160))
    assert isinstance(open_frames(path), PyAVReader)
    if has_decord():
        reader = open_frames(path, "decord")
        assert isinstance(reader, DecordReader)
        np.testing.assert_array_equal(reader.read(0, 4).numpy(), decoded_by_pyav(path))


def test_av1(tmp_path, write_video, make_frames):
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV has no AV1 encoder")
    path = write_video(tmp_path / "video.mp4", make_frames(4, 96, 160), codec="libsvtav1")
    np.testing.assert_array_equal(open_frames(path).read(0, 4).numpy(), decoded_by_pyav(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_turned_upright_as_their_exif_data_say(tmp_path, make_frames, suffix, orientation):
    """Their pixels are stored turned; without the tag a viewer would show them so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for number, frame in enumerate(make_frames(3, 136, 160)):
        options = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
        Image.fromarray(frame).save(tmp_path / f"{number}{suffix}", exif=exif, **options)
    shown = np.stack([np.asarray(ImageOps.exif_transpose(Image.open(path))) for path in list_images(tmp_path)])
    reader = open_frames(tmp_path)
    assert reader.size == shown.shape[1:3]
    assert np.abs(reader.read(0, 3).numpy().astype(int) - shown).max() <= 3
    if orientation > 1:
        assert isinstance(reader, PillowReader)
    if orientation > 1 and has_decord():
        with pytest.raises(ValueError, match=rf"0{suffix} has an EXIF orientation.*use `decoder: auto`"):
            open_frames(tmp_path, "decord")


def test_an_orientation_after_the_pixels_of_a_png(tmp_path, make_frames):
    path = tmp_path / "0.png"
    Image.fromarray(make_frames(1, 20, 30)[0]).save(path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    chunk = b"eXIf" + exif.tobytes()[6:]
    data, end = path.read_bytes()[:-12], path.read_bytes()[-12:]
    path.write_bytes(data + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + end)
    assert open_frames(path).size == (30, 20)
    np.testing.assert_array_equal(open_frames(path).read(0, 1)[0], np.rot90(make_frames(1, 20, 30)[0], 3))


@pytest.mark.parametrize(
    ("suffix", "reader_class"), [(".webp", AnimationReader), (".tif", AnimationReader), (".png", PyAVReader)]
)
def test_animated_images_are_read_whole_in_any_order(tmp_path, make_frames, suffix, reader_class):
    frames, path = make_frames(6, 40, 60), tmp_path / f"a{suffix}"
    write_animation(path, frames)
    reader = open_frames(path)
    assert isinstance(reader, reader_class)
    np.testing.assert_array_equal(reader.read(0, 6).numpy(), frames)
    for number in (5, 0, 4, 3, 1):
        np.testing.assert_array_equal(reader.read(number, number + 1)[0].numpy(), frames[number])
    expected = () if suffix == ".tif" else tuple(np.arange(6) / 10)
    np.testing.assert_allclose(reader.facts.times, expected)
    with pytest.raises(ValueError, match=rf"a{suffix} holds several frames, which `decoder: "):
        open_frames(path, "pillow" if suffix == ".png" else "pyav")


def test_an_animated_image_among_frames_is_refused(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path / "video", make_frames(3, 40, 60))
    write_animation(folder / "00003.webp", make_frames(4, 40, 60))
    with pytest.raises(ValueError, match=r"00003\.webp holds 4 frames, but in a folder of images every file is one"):
        open_frames(folder)


def test_pages_of_different_sizes_are_refused(tmp_path):
    pages = [Image.new("RGB", (20, 10)), Image.new("RGB", (30, 10))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a\.tif: page 1 is 30x10 but page 0 is 20x10"):
        open_frames(tmp_path / "a.tif")


def test_a_jpeg_with_a_second_picture_is_one_frame(tmp_path, make_frames):
    """Phones put a depth or brightness map after the picture that is shown."""
    images = [Image.fromarray(frame) for frame in make_frames(2, 40, 60)]
    images[0].save(tmp_path / "0.jpg", format="MPO", save_all=True, append_images=images[1:])
    assert len(open_frames(tmp_path)) == len(open_frames(tmp_path / "0.jpg")) == 1


def write_animation(path, frames):
    images = [Image.fromarray(frame) for frame in frames]
    options = {".webp": {"lossless": True, "duration": 100}, ".png": {"duration": 100}}.get(path.suffix, {})
    images[0].save(path, save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize(
    ("turns", "matrix"),
    [
        (3, (0, 65536, 0, -65536, 0, 0, 96 << 16, 0, 1 << 30)),
        (2, (-65536, 0, 0, 0, -65536, 0, 160 << 16, 96 << 16, 1 << 30)),
        (1, (0, -65536, 0, 65536, 0, 0, 0, 160 << 16, 1 << 30)),
    ],
)
@pytest.mark.parametrize("reader", [pytest.param(DecordReader, marks=needs_decord), PyAVReader])
def test_rotation_metadata_turns_the_frames(tmp_path, write_video, make_frames, reader, turns, matrix):
    path = write_video(tmp_path / "video.mp4", make_frames(3, 96, 160))
    upright = decoded_by_pyav(path)
    data = bytearray(path.read_bytes())
    # The display matrix lies 44 bytes after the track header's name.
    at = data.find(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    turned = reader(path).read(0, 3).numpy()
    expected = np.rot90(upright, turns, axes=(1, 2))
    assert turned.shape == expected.shape
    # Decord rotates before it converts the colours, so chroma is upsampled along the other axis.
    assert np.abs(turned.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (-1, 2), (2, 6), (4, 3)])
@pytest.mark.parametrize("decoder", ["auto", "pillow"])
def test_frames_outside_the_video(tmp_path, write_images, make_frames, start, stop, decoder):
    reader = open_frames(write_images(tmp_path, make_frames(5, 20, 160)), decoder)
    with pytest.raises(IndexError, match=rf"{start}\.\.{stop} of a video of 5 frames"):
        reader.read(start, stop)


@pytest.mark.parametrize("faststart", [False, True])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_truncated_video_is_refused(tmp_path, write_video, make_frames, faststart, keep, decoder):
    options = {"movflags": "faststart"} if faststart else {}
    path = write_video(tmp_path / "cut.mp4", make_frames(60, 96, 160), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"cut\.mp4 cannot be read as a video .* is the file complete\? Copy it again"):
        open_frames(path, decoder)


@pytest.mark.parametrize("decoder", ["auto", pytest.param("decord", marks=needs_decord), "pyav"])
def test_text_named_mp4_is_refused(tmp_path, decoder):
    (tmp_path / "notes.mp4").write_text("these are notes\n" * 100)
    with pytest.raises(ValueError, match=r"notes\.mp4 cannot be read as a video .*Copy it again"):
        open_frames(tmp_path / "notes.mp4", decoder)


def test_missing_and_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such video file or folder"):
        open_frames(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images; put numbered"):
        open_frames(tmp_path)


def test_a_decoder_that_does_not_fit_the_source(tmp_path, write_images, write_video, make_frames):
    with pytest.raises(ValueError, match="reads video files only"):
        open_frames(write_images(tmp_path / "images", make_frames(2, 96, 160)), "pyav")
    with pytest.raises(ValueError, match="reads images only"):
        open_frames(write_video(tmp_path / "video.mp4", make_frames(2, 96, 160)), "pillow")


def test_without_decord_pyav_and_pillow_take_over(tmp_path, write_images, write_video, make_frames, monkeypatch):
    monkeypatch.setattr("zsvss.data.readers.by_decord.decord", None)
    frames = make_frames(3, 96, 160)
    assert isinstance(open_frames(write_images(tmp_path / "images", frames)), PillowReader)
    path = write_video(tmp_path / "video.mp4", frames)
    assert isinstance(open_frames(path), PyAVReader)
    for refused in (lambda: open_frames(Path(path), "decord"), lambda: ProceduralVideos(decoder="decord")):
        with pytest.raises(ValueError, match="'decord', which is not installed"):
            refused()
