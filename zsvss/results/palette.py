"""Distinct colours for ids that have no colour of their own, and index images in palette mode.

Shapes: H W pixels.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
VOID_ID = 255
"""Value of a pixel without a label in the run folder's media, see `zsvss.results.media`."""
NOTHING = 0
"""Value of a pixel of no segment in predictions, whose ids begin at 1."""
BACKGROUND = (112, 136, 168)
"""Colour of a class whose own is black, which pictures have where there is no label."""
LARGEST_ID = 65535
"""The largest id that an image of 16 bits holds."""

# What people without the pigment of long or of medium wavelengths see of linear sRGB (Machado, Oliveira and Fernandes
# 2009, severity 1). Together they are nearly all who are called colour-blind.
_PROTANOPIA = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
_DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)


def palette(num: int) -> UInt8:
    """Colours that are as far apart to every eye as they can be, the same for the same id at any `num`.

    Each colour is the one of an RGB grid farthest from all before it in the Oklab colour space, as normal eyes, those
    with protanopia and those with deuteranopia see it. Very dark, very light and greyish ones are left out for all of
    these eyes, so that a colour blended over a photograph is told from the photograph alone.

    Args:
        num: how many; beyond 256 they repeat.

    Returns:
        uint8 RGB ``[num, 3]``.

    >>> palette(3).tolist()
    [[0, 102, 255], [221, 255, 0], [238, 0, 0]]
    """
    colors: UInt8 = _distinct_colours()[np.arange(num) % 256]
    return colors


def visible(classes: npt.ArrayLike) -> UInt8:
    """Colours of classes, with `BACKGROUND` in place of black.

    Args:
        classes: RGB of each class, ``[C, 3]``, as a benchmark has them.

    Returns:
        uint8 ``[C, 3]``.

    >>> visible([(0, 0, 0), (128, 0, 0)]).tolist()
    [[112, 136, 168], [128, 0, 0]]
    """
    colors: UInt8 = np.array(classes, dtype=np.uint8).reshape(-1, 3)
    colors[(colors == 0).all(1)] = BACKGROUND
    return colors


def class_colors(classes: npt.ArrayLike) -> UInt8:
    """Colours of labels that are class ids: the classes', black for void as a label of its own, then `palette`.

    A class whose own colour is black has `BACKGROUND`, see `visible`.

    Args:
        classes: uint8 RGB of each class, ``[C, 3]``; void as a label is C, and what novelty opened begins at 256.

    Returns:
        uint8 RGB ``[C + 513, 3]``, so that 256 new labels, at least, are in no class's colour.

    >>> class_colors([(9, 9, 9), (7, 7, 7)])[1:4].tolist()
    [[7, 7, 7], [0, 0, 0], [0, 102, 255]]
    """
    return np.concatenate([visible(classes), np.zeros((1, 3), dtype=np.uint8), palette(512)])


@cache
def _distinct_colours() -> UInt8:
    steps = np.arange(0, 256, 17, dtype=np.int64)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    normal, *others = seen_by(candidates)
    usable = (normal[:, 0] > 0.42) & (normal[:, 0] < 0.95) & (_chroma(normal) > 0.1)
    for colors_n3 in others:
        usable &= _chroma(colors_n3) > 0.04
    candidates = candidates[usable]
    # Whole numbers make the order of the colours the same on every machine. Normal eyes are asked for more, as they
    # can have more: a distance counts less for them.
    scales = (700, 1000, 1000)
    views = [
        np.rint(view[usable] * scale).astype(np.int64) for view, scale in zip([normal, *others], scales, strict=True)
    ]
    chosen = [int(np.abs(candidates - [0, 102, 255]).sum(1).argmin())]
    nearest = np.full(len(candidates), np.iinfo(np.int64).max)
    while len(chosen) < 256:
        from_last = np.min([((view - view[chosen[-1]]) ** 2).sum(1) for view in views], axis=0)
        nearest = np.minimum(nearest, from_last)
        chosen.append(int(nearest.argmax()))
    colors: UInt8 = candidates[chosen].astype(np.uint8)
    colors.setflags(write=False)
    return colors


def seen_by(rgb: npt.NDArray[np.integer]) -> list[npt.NDArray[np.float64]]:
    """Oklab coordinates of sRGB colours 0..255, ``[n, 3]``, as eyes see them: normal, protanopia, deuteranopia."""
    linear = _linear(rgb / 255.0)
    return [_oklab(linear), *(_oklab((linear @ np.array(m).T).clip(0, 1)) for m in (_PROTANOPIA, _DEUTERANOPIA))]


def _chroma(oklab_n3: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    chroma: npt.NDArray[np.float64] = np.hypot(oklab_n3[:, 1], oklab_n3[:, 2])
    return chroma


def _linear(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light of sRGB values in 0..1."""
    linear: npt.NDArray[np.float64] = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear


def _oklab(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Oklab coordinates of linear sRGB in 0..1 (B. Ottosson, "A perceptual color space for image processing")."""
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
    painted: UInt8 = np.take(table, labels_HW, axis=0, mode="wrap")
    if labels_HW.min(initial=0) < 0:
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


def write_segment_png(
    path: Path | str, labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None
) -> None:
    """Write segments as a PNG whose pixel values are their ids, which are the labels + 1; 0 is no segment.

    The image is in palette mode, or in 16-bit grey where an id is above 255.

    Args:
        path: file to write.
        labels_HW: labels 0..65534, negative where there is none.
        colors: uint8 RGB of the labels 0, 1, ...; by default `palette`. No segment, and a label without a colour, is
            black; a 16-bit image has no colours.

    Raises:
        ValueError: a label above 65534.
    """
    highest = int(labels_HW.max(initial=-1))
    if highest >= LARGEST_ID:
        raise ValueError(f"{path}: label {highest} does not fit into 16 bits; allowed are 0..{LARGEST_ID - 1}")
    ids_HW = np.where(labels_HW < 0, NOTHING, labels_HW + 1)
    known = palette(255) if colors is None else np.asarray(colors, dtype=np.uint8)
    write_ids(path, ids_HW, np.concatenate([np.zeros((1, 3), np.uint8), known]))


def write_ids(path: Path | str | IO[bytes], ids_HW: npt.NDArray[np.integer], colors: npt.ArrayLike) -> None:
    """Write ids 0..65535 as they are: in palette mode, or in 16-bit grey where one is above 255.

    Args:
        path: file to write, or an open one.
        ids_HW: what the pixels are.
        colors: uint8 RGB of the ids 0, 1, ...; the others are black.
    """
    if ids_HW.max(initial=0) > 255:
        Image.fromarray(ids_HW.astype(np.uint16)).save(path, format="PNG")
        return
    table = np.zeros((256, 3), dtype=np.uint8)
    known = np.asarray(colors, dtype=np.uint8)[:256]
    table[: len(known)] = known
    image = Image.fromarray(ids_HW.astype(np.uint8))
    image.putpalette(table.tobytes())
    image.save(path, format="PNG")


def read_ids(path: Path) -> npt.NDArray[np.int32]:
    """Ids of an image that `write_ids` wrote, int32 ``[H, W]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read or is no image of ids.
    """
    try:
        with Image.open(path) as image:
            ids_HW = np.array(image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image of ids ({error})") from error
    if ids_HW.ndim != 2:
        raise ValueError(f"{path} is a colour image; an image of ids is in palette mode or grey")
    return ids_HW.astype(np.int32)
