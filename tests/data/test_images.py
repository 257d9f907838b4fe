import numpy as np
import pytest
from PIL import Image

from zsvss.data.images import ImageFacts, check_images, list_images, read_mask, read_rgb


def test_images_come_in_numeric_order(tmp_path):
    for name in ("frame_10.png", "frame_9.png", "frame_100.png", "frame_1.png", ".hidden_2.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    assert [path.stem for path in list_images(tmp_path)] == ["frame_1", "frame_9", "frame_10", "frame_100"]


def test_two_images_of_one_frame_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "3.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "3.jpg")
    with pytest.raises(ValueError, match=r"3\.(png|jpg) and 3\.(png|jpg) are two images of one frame; keep one"):
        list_images(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_an_image_cut_short_is_found_without_decoding_the_others(tmp_path, write_images, make_frames, suffix, keep):
    folder = write_images(tmp_path / "video", make_frames(5, 40, 60), suffix)
    damaged = folder / f"00002{suffix}"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=f"00002{suffix}.*replace it"):
        check_images(list_images(folder))


def test_junk_after_the_end_is_no_damage(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path / "video", make_frames(2, 40, 60), ".jpg")
    with (folder / "00001.jpg").open("ab") as file:
        file.write(bytes(5000))
    assert check_images(list_images(folder)) == ImageFacts((40, 60), {"JPEG"}, {"RGB"}, 2, None)


def test_text_named_png_is_refused(tmp_path):
    (tmp_path / "0.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"0\.png is not an image.*replace it or remove it"):
        check_images(list_images(tmp_path))


def test_mixed_sizes_are_refused_by_name(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path, make_frames(3, 40, 60))
    write_images(tmp_path, make_frames(1, 40, 61), first=3)
    with pytest.raises(ValueError, match=r"00003\.png is 61x40 but 00000\.png is 60x40.*resize"):
        check_images(list_images(folder))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, make_frames, mode):
    image = Image.fromarray(make_frames(1, 20, 30)[0]).convert(mode)
    image.save(tmp_path / "0.tif")
    np.testing.assert_array_equal(read_rgb(tmp_path / "0.tif"), np.asarray(image.convert("RGB")))


def test_sixteen_bits_keep_their_upper_byte(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "0.png")[..., 1], values // 256)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_masks_keep_their_values(tmp_path, mode):
    values = np.random.default_rng(0).integers(0, 2 if mode == "1" else 256, (20, 30)).astype(np.uint8)
    image = Image.fromarray(values > 0) if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette([value // 3 for value in range(768)])
    image.save(tmp_path / "0.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "0.png"), values)


def test_a_sixteen_bit_mask_of_small_values_works_and_of_large_ones_does_not(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "0.png")
    assert read_mask(tmp_path / "0.png").max() == 200
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png: mask values up to 300; class numbers must be 0\.\.255"):
        read_mask(tmp_path / "1.png")


def test_a_colour_mask_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: a mask of mode RGB.*convert the colours"):
        read_mask(tmp_path / "0.png")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_tiff_is_turned_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    frame_HW3 = np.arange(20 * 40 * 3, dtype=np.uint8).reshape(20, 40, 3)
    path = tmp_path / "0.tif"
    Image.fromarray(frame_HW3).save(path, exif=exif)
    turned = {3: np.rot90(frame_HW3, 2), 6: np.rot90(frame_HW3, 3), 8: np.rot90(frame_HW3)}[orientation]
    np.testing.assert_array_equal(read_rgb(path), turned)
    assert check_images([path]).size == turned.shape[:2]
