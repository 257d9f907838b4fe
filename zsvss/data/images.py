"""Folders of numbered images: their order, and a cheap check of every file before anything heavy begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from zsvss.data.smoothing import refuse_smoothed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

ByteArray = NDArray[np.uint8]

# The last bytes of a complete file; a copy that was cut short does not have them.
_ENDINGS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_ENDING_BYTES = 1024
# Formats of which a single file may be a whole video. (A JPEG may hold pictures beside the one that is shown.)
_SEVERAL_FRAMES = {"PNG", "WEBP", "TIFF", "GIF"}

# What turns an image upright, by its orientation as EXIF counts it.
_UPRIGHT: dict[int, Callable[[ByteArray], ByteArray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, 3),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, 1),
}


class ImageFacts(NamedTuple):
    """What the headers of a video's images say.

    Attributes:
        size: (H, W) of every image, upright.
        formats: Names of their formats, as Pillow calls them.
        modes: Their Pillow modes.
        num_images: How many there are.
        turned: The first image that must be turned upright, if any.
    """

    size: tuple[int, int]
    formats: set[str]
    modes: set[str]
    num_images: int
    turned: Path | None


class _Header(NamedTuple):
    size: tuple[int, int]
    """(H, W) as stored."""
    image_format: str
    mode: str
    orientation: int
    num_frames: int


def numeric_order(name: str) -> list[str | int]:
    """Sort key that puts ``frame_2`` before ``frame_10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image (hidden files are not)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> tuple[Path, ...]:
    """All images of a folder in the numeric order of their names; may be empty.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If two images have the same name but for the ending.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    images = sorted((path for path in folder.iterdir() if is_image(path)), key=lambda path: numeric_order(path.stem))
    for first, second in pairwise(images):
        if first.stem == second.stem:
            raise ValueError(f"{first} and {second.name} are two images of one frame; keep one of them")
    return tuple(images)


def check_images(images: Sequence[Path]) -> ImageFacts:
    """Check every image by its header and its end, without decoding it.

    Args:
        images: The frames of one video.

    Raises:
        ValueError: If a file is empty, cut short, no image or several in one, or if the sizes differ.
    """
    size: tuple[int, int] | None = None
    formats, modes, turned = set[str](), set[str](), None
    for path in images:
        header = _header(path)
        height, width = upright_size(header.size, header.orientation)
        if size is None:
            size = height, width
        elif size != (height, width):
            raise ValueError(
                f"{path} is {width}x{height} but {images[0].name} is {size[1]}x{size[0]}: all frames of a video must "
                "have one size; resize them or put them into folders of their own"
            )
        if header.num_frames > 1:
            raise ValueError(
                f"{path} holds {header.num_frames} frames, but in a folder of images every file is one frame; give "
                "that file alone as data.input, or save its frames as numbered images"
            )
        formats.add(header.image_format)
        modes.add(header.mode)
        turned = turned or (path if header.orientation != 1 else None)
    if size is None:
        raise ValueError("a video needs at least one image")
    return ImageFacts(size, formats, modes, len(images), turned)


def num_frames_of(path: Path) -> int:
    """Number of frames in an image file: above 1 for animated PNG, WebP and GIF and for TIFFs of several pages.

    Raises:
        ValueError: If the file is empty, cut short or no image.
    """
    return _header(path).num_frames


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(H, W) of an image once it is turned upright; ``orientation`` is 1..8 as in EXIF."""
    return (size[1], size[0]) if orientation > 4 else size


def turn_upright(image_HW3: ByteArray, orientation: int) -> ByteArray:
    """The image (HW3) turned upright, as a view; ``orientation`` is 1..8 as in EXIF."""
    return _UPRIGHT[orientation](image_HW3)


def read_rgb(path: Path) -> ByteArray:
    """One image as uint8 RGB (HW3), upright: alpha is dropped, 16-bit values keep their upper byte.

    Raises:
        ValueError: If the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return np.ascontiguousarray(turn_upright(rgb_array(image), _orientation(image)))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}); replace it by a good copy") from error


def rgb_array(image: Image.Image) -> ByteArray:
    """The current frame of an open image as uint8 RGB (HW3), as it is stored."""
    if image.mode.startswith("I"):
        grey_HW = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def read_mask(path: Path) -> ByteArray:
    """One ground-truth image of class numbers as uint8 (HW), read losslessly.

    Raises:
        ValueError: If the file is damaged, a colour image or a JPEG, was smoothed, or has values above 255.
    """
    try:
        with Image.open(path) as image:
            is_lossy, mode, values_HW = image.format == "JPEG", image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: this mask cannot be decoded ({error}); replace it by a good copy") from error
    if is_lossy:
        raise ValueError(
            f"{path}: this mask is a JPEG, which changes values along every border; masks must be PNGs or another "
            "lossless format: export them again"
        )
    if values_HW.ndim != 2:
        raise ValueError(
            f"{path}: a mask of mode {mode}; masks must be single-channel or palette PNGs whose values are class "
            "numbers; convert the colours to class numbers first"
        )
    if values_HW.max() > 255 or values_HW.min() < 0:
        raise ValueError(f"{path}: mask values up to {values_HW.max()}; class numbers must be 0..255")
    values_HW = values_HW.astype(np.uint8)
    refuse_smoothed(path, values_HW)
    return values_HW


def mask_size(path: Path) -> tuple[int, int]:
    """Size (H, W) of a mask by its header.

    Raises:
        ValueError: If the file is empty, cut short or no image.
    """
    return _header(path).size


def _header(path: Path) -> _Header:
    """What the header says of an image that looks complete."""
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise ValueError(f"{path} is empty (0 bytes); replace it by a good copy or remove it")
    with path.open("rb") as file:
        file.seek(max(0, num_bytes - _ENDING_BYTES))
        last_bytes = file.read()
    try:
        with Image.open(path) as image:
            image_format = str(image.format)
            if image_format == "PNG" and b"eXIf" in last_bytes:
                image.load()  # metadata after the pixels, which Pillow finds only when it has read them
            several = image_format in _SEVERAL_FRAMES
            header = _Header(
                (image.height, image.width),
                image_format,
                image.mode,
                _orientation(image),
                int(getattr(image, "n_frames", 1)) if several else 1,
            )
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not an image that can be read ({error}); replace it or remove it") from error
    # Junk after the end is legal, so a missing end alone proves nothing: decode this one file to know.
    if _ENDINGS.get(image_format, b"") not in last_bytes:
        read_rgb(path)
    return header


def _orientation(image: Image.Image) -> int:
    """How the image must be turned, 1..8 as in EXIF; of a PNG only as far as it has been read."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # `getexif` would decode the whole image to look for it
    if image.format == "TIFF":
        return 1  # Pillow turns it, and swaps its size, by itself
    orientation: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in _UPRIGHT else 1
