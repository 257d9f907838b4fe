"""Colours of segments and classes, in overlays, masks and reports alike.

A segment without a class takes the colour of its id from `palette`; a class has the colour of its benchmark.

Shapes: H W pixels, C classes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
BACKGROUND = (112, 136, 168)
"""Colour of a class whose own is black, which pictures have where there is no label."""

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
    painted: UInt8 = table[labels_HW.astype(np.int64) % len(table)]
    painted[labels_HW < 0] = 0
    return painted
