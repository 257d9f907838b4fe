"""Folders of numbered images: their order, and a cheap check of every file before anything heavy begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zsvss.data.smoothing import refuse_smoothed

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

ByteArray = NDArray[np.uint8]

# The last bytes of a complete file; a copy that was cut short does not have them.
_ENDINGS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
_ENDING_BYTES = 1024


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


def check_images(images: Sequence[Path]) -> tuple[tuple[int, int], set[str], set[str]]:
    """Check every image by its header and its end, without decoding it.

    Args:
        images: The frames of one video.

    Returns:
        Their common size (H, W), their formats and their Pillow modes.

    Raises:
        ValueError: If a file is empty, cut short or no image, or if the sizes differ.
    """
    size: tuple[int, int] | None = None
    formats, modes = set[str](), set[str]()
    for path in images:
        width, height, image_format, mode = _header(path)
        if size is None:
            size = height, width
        elif size != (height, width):
            raise ValueError(
                f"{path} is {width}x{height} but {images[0].name} is {size[1]}x{size[0]}: all frames of a video must "
                "have one size; resize them or put them into folders of their own"
            )
        formats.add(image_format)
        modes.add(mode)
    if size is None:
        raise ValueError("a video needs at least one image")
    return size, formats, modes


def read_rgb(path: Path) -> ByteArray:
    """One image as uint8 RGB (HW3): alpha is dropped, 16-bit values keep their upper byte.

    Raises:
        ValueError: If the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                grey_HW = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey_HW[..., None], 3, axis=-1)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be decoded ({error}); replace it by a good copy") from error


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
    width, height, _, _ = _header(path)
    return height, width


def _header(path: Path) -> tuple[int, int, str, str]:
    """Width, height, format and mode of an image that looks complete."""
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise ValueError(f"{path} is empty (0 bytes); replace it by a good copy or remove it")
    try:
        with Image.open(path) as image:
            header = image.width, image.height, str(image.format), image.mode
    except OSError as error:
        raise ValueError(f"{path} is not an image that can be read ({error}); replace it or remove it") from error
    ending = _ENDINGS.get(header[2], b"")
    with path.open("rb") as file:
        file.seek(max(0, num_bytes - _ENDING_BYTES))
        # Junk after the end is legal, so a missing end alone proves nothing: decode this one file to know.
        if ending not in file.read():
            read_rgb(path)
    return header
