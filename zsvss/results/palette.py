"""Distinct colours for ids that have no colour of their own, and index images in palette mode.

Shapes: H W pixels.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
VOID_ID = 255
"""Id under which a pixel without a label is written."""
VOID_ID_16 = 65535
"""The same in images of 16 bits."""


def palette(num: int) -> UInt8:
    """Colours that are as far apart to the eye as they can be, the same for the same id at any `num`.

    Each colour is the one of an RGB grid farthest from all before it in the Oklab colour space, very dark, very light
    and greyish ones left out, so that they stand out when blended over a photograph.

    Args:
        num: how many; beyond 256 they repeat.

    Returns:
        uint8 RGB ``[num, 3]``.

    >>> palette(3).tolist()
    [[0, 102, 255], [17, 255, 0], [255, 0, 0]]
    """
    colors: UInt8 = _distinct_colours()[np.arange(num) % 256]
    return colors


def class_colors(classes: npt.ArrayLike) -> UInt8:
    """Colours of labels that are class ids: the classes', black for void as a label of its own, then `palette`.

    Args:
        classes: uint8 RGB of each class, ``[C, 3]``; void as a label is C, and what novelty opened begins at 256.

    Returns:
        uint8 RGB ``[C + 513, 3]``, so that 256 new labels, at least, are in no class's colour.

    >>> class_colors([(9, 9, 9), (7, 7, 7)])[1:4].tolist()
    [[7, 7, 7], [0, 0, 0], [0, 102, 255]]
    """
    own = np.asarray(classes, dtype=np.uint8).reshape(-1, 3)
    return np.concatenate([own, np.zeros((1, 3), dtype=np.uint8), palette(512)])


@cache
def _distinct_colours() -> UInt8:
    steps = np.arange(0, 256, 17, dtype=np.int64)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lightness, green_red, blue_yellow = _oklab(candidates / 255.0).T
    chroma = np.hypot(green_red, blue_yellow)
    candidates = candidates[(lightness > 0.45) & (lightness < 0.93) & (chroma > 0.07)]
    # Whole numbers make the order of the colours the same on every machine. Hue tells labels apart over a photograph
    # better than lightness does, which also carries the frame's shading.
    points = np.rint(_oklab(candidates / 255.0) * [500, 1000, 1000]).astype(np.int64)
    chosen = [int(np.abs(candidates - [0, 102, 255]).sum(1).argmin())]
    nearest = np.full(len(points), np.iinfo(np.int64).max)
    while len(chosen) < 256:
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    colors: UInt8 = candidates[chosen].astype(np.uint8)
    colors.setflags(write=False)
    return colors


def _oklab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Oklab coordinates of sRGB colours in 0..1 (B. Ottosson, "A perceptual color space for image processing")."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(
        linear
        @ np.array(
            [
                [0.4122214708, 0.2119034982, 0.0883024619],
                [0.5363325363, 0.6806995451, 0.2817188376],
                [0.0514459929, 0.1073969566, 0.6299787005],
            ]
        )
    )
    lab: npt.NDArray[np.float64] = cones @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return lab


def color_labels(labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None) -> UInt8:
    """Paint each id in its colour.

    Args:
        labels_HW: ids; negative ones become black, ids beyond the palette start again at its front.
        colors: uint8 RGB ``[any, 3]``; by default `palette`.

    Returns:
        uint8 RGB ``[H, W, 3]``.
    """
    table = palette(256) if colors is None else np.asarray(colors, dtype=np.uint8)
    painted: UInt8 = table[labels_HW.astype(np.int64) % len(table)]
    painted[labels_HW < 0] = 0
    return painted


def write_index_png(path: Path | str, labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None) -> None:
    """Write ids as a PNG in palette mode: the pixel values are the ids, and viewers show colours.

    Args:
        path: file to write.
        labels_HW: ids 0..255; negative ones (no label) are written as 255.
        colors: uint8 RGB of 0, 1, ...; by default `palette`. An id without one, and 255, is black.

    Raises:
        ValueError: an id above 255.
    """
    if labels_HW.size and labels_HW.max() > VOID_ID:
        raise ValueError(f"{path}: id {labels_HW.max()} does not fit into an index PNG; allowed are 0..{VOID_ID}")
    table = np.zeros((256, 3), dtype=np.uint8)
    known = palette(VOID_ID) if colors is None else np.asarray(colors, dtype=np.uint8)[:VOID_ID]
    table[: len(known)] = known
    image = Image.fromarray(np.where(labels_HW < 0, VOID_ID, labels_HW).astype(np.uint8))
    image.putpalette(table.tobytes())
    image.save(path, format="PNG")


def write_id_png(path: Path | str, labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None) -> None:
    """Write ids as a PNG whose pixel values are the ids: in palette mode, or in 16-bit grey where they are too large.

    Args:
        path: file to write.
        labels_HW: ids 0..65534; negative ones (no label) are written as 255, in 16 bits as 65535.
        colors: as in :func:`write_index_png`; a 16-bit image has none.

    Raises:
        ValueError: an id above 65534.
    """
    highest = int(labels_HW.max(initial=-1))
    if highest < VOID_ID:
        write_index_png(path, labels_HW, colors)
        return
    if highest >= VOID_ID_16:
        raise ValueError(f"{path}: id {highest} does not fit into 16 bits; allowed are 0..{VOID_ID_16 - 1}")
    Image.fromarray(np.where(labels_HW < 0, VOID_ID_16, labels_HW).astype(np.uint16)).save(path, format="PNG")
