"""Masks as polygons along the borders of their pixels.

Pixel (row r, column c) covers the square from (c, r) to (c + 1, r + 1), so coordinates run from 0 to width and height,
as COCO, CVAT and YOLO have them. Along pixel borders no part is too thin to have an area, and nothing is lost.

Shapes: H W pixels, n vertices; 2 is x, y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]
"""Vertices (x, y) of a closed line, ``[n, 2]``, the first not repeated."""


CUT = 8**-0.5
"""Distance of a pixel's corner, and of its centre, from a line between the middles of two of its sides."""


class Polygon(NamedTuple):
    """A connected part of a mask.

    Attributes:
        outer: Its outer border.
        holes: Borders of its holes, which run the other way round.
    """

    outer: Ring
    holes: tuple[Ring, ...] = ()


def polygons(mask_HW: npt.NDArray[np.bool_], tolerance: float = 0.0) -> list[Polygon]:
    """The connected parts of a mask; pixels that touch at a corner are connected.

    Args:
        mask_HW: the mask.
        tolerance: lines may leave the pixels' borders by so much. From `CUT` on they run from the middle of a border
            pixel's side to the middle of the next, so that slopes are no stairs, and vertices are left out as far as
            the rest allows. Up to 2 `CUT` no pixel's centre changes sides.

    >>> part, = polygons(np.array([[True, True], [True, False]]))
    >>> part.outer.tolist()
    [[0.0, 0.0], [0.0, 2.0], [1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [2.0, 0.0]]
    """
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    crop = mask_HW[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    # OpenCV's borders run through the centres of border pixels. Of pixels split into four, those centres lie a quarter
    # of a pixel inside the pixel's border, and rounding puts them onto it.
    quartered = np.pad(crop.repeat(2, 0).repeat(2, 1), 1)
    lines, hierarchy = cv2.findContours(quartered, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_ring(line.reshape(-1, 2), tolerance) + np.array([left, top]) for line in lines]
    parents = hierarchy[0, :, 3].tolist()
    holes: dict[int, list[Ring]] = {}
    for ring, parent in zip(rings, parents, strict=True):
        if parent >= 0:
            holes.setdefault(parent, []).append(ring)
    return [
        Polygon(ring, tuple(holes.get(index, ())))
        for index, (ring, parent) in enumerate(zip(rings, parents, strict=True))
        if parent < 0
    ]


def without_holes(polygon: Polygon) -> Ring:
    """One line around a part that leaves out its holes: each is joined to the border by a cut without width."""
    return joined([polygon.outer, *polygon.holes])


def joined(rings: Sequence[Ring]) -> Ring:
    """One line along several rings, joined by cuts without width, which add no area.

    Args:
        rings: an outer border first; holes run the other way round.
    """
    line, rest = rings[0], list(rings[1:])
    while rest:
        best = min(range(len(rest)), key=lambda index: float(_gap(line, rest[index])[0]))
        ring = rest.pop(best)
        _, here, there = _gap(line, ring)
        around = np.concatenate([ring[there:], ring[: there + 1]])
        line = np.concatenate([line[: here + 1], around, line[here:]])
    return line


def area(ring: Ring) -> float:
    """Area inside a ring, in pixels; its sign tells the direction.

    >>> area(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]))
    2.0
    """
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _gap(line: Ring, ring: Ring) -> tuple[float, int, int]:
    """Squared distance and indices of the closest vertices of two rings."""
    # In slices, so that long borders need no large matrix.
    best = (np.inf, 0, 0)
    for start in range(0, len(line), 512):
        squared = ((line[start : start + 512, None] - ring[None]) ** 2).sum(-1)
        here, there = np.unravel_index(int(squared.argmin()), squared.shape)
        best = min(best, (float(squared[here, there]), start + int(here), int(there)))
    return best


def _ring(line_n2: npt.NDArray[np.int32], tolerance: float) -> Ring:
    """A line through centres of quarter pixels (padded by one), moved onto the pixels' borders."""
    points = line_n2 // 2  # the padding moves by one, rounding up by one back
    points = points[(points != np.roll(points, 1, axis=0)).any(1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    # Where a line turns straight back, the cross product is zero as well.
    turns |= (before * after).sum(1) < 0
    points = points[turns]
    ring: Ring = points.astype(np.float64)
    return ring if tolerance < CUT else _simplified(ring, tolerance - CUT)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """A ring of corners with its corners cut, and without the vertices that matter less than the tolerance."""
    ends = np.roll(ring, -1, axis=0)
    steps = np.abs(ends - ring).max(1, keepdims=True)
    towards = (ends - ring) / steps
    # The middles of the first and the last pixel's sides; of a side of one pixel they are the same.
    middles: Ring = np.stack([ring + towards / 2, ends - towards / 2], axis=1).reshape(-1, 2)
    middles = middles[(middles != np.roll(middles, 1, axis=0)).any(1)]
    if len(middles) <= 4:
        return middles
    simple = cv2.approxPolyDP(middles.astype(np.float32)[:, None], tolerance, closed=True)[:, 0]
    kept: Ring = simple.astype(np.float64) if len(simple) >= 3 else middles
    return kept
