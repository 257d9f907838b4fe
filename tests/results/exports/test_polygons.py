from __future__ import annotations

import numpy as np
import pytest
from predicted import filled
from pycocotools import mask as coco_mask
from scipy.ndimage import gaussian_filter, label

from zsvss.results.exports.polygons import area, joined, polygons, without_holes


def masks() -> list[np.ndarray]:
    """Noise of all densities and sizes, which is as hard as it gets, and smooth blobs."""
    rng = np.random.default_rng(0)
    found = [np.ones((1, 1), bool), np.ones((5, 7), bool), np.eye(6, dtype=bool)]
    for number in range(60):
        height, width = rng.integers(1, 24, 2)
        if number % 2:
            found.append(rng.random((height, width)) < rng.random())
        else:
            found.append(gaussian_filter(rng.random((2 * height, 2 * width)), 2) > 0.5)
    return found


@pytest.mark.parametrize("tolerance", [0.0, 0.3, 0.5, 0.7])
def test_no_pixel_changes_sides(tolerance: float) -> None:
    for mask_HW in masks():
        parts = polygons(mask_HW, tolerance)
        assert len(parts) == label(mask_HW, np.ones((3, 3)))[1]
        rings = [ring for part in parts for ring in (part.outer, *part.holes)]
        np.testing.assert_array_equal(filled(rings, *mask_HW.shape), mask_HW)


def test_areas_are_exact_and_holes_run_the_other_way() -> None:
    for mask_HW in masks():
        parts = polygons(mask_HW)
        assert (
            sum(abs(area(part.outer)) - sum(abs(area(hole)) for hole in part.holes) for part in parts) == mask_HW.sum()
        )
        for part in parts:
            assert {np.sign(area(hole)) for hole in part.holes} <= {-np.sign(area(part.outer))}
            # Corners only, on the grid.
            assert (part.outer == part.outer.round()).all()


def test_borders_move_by_the_tolerance_at_most() -> None:
    rows, columns = np.mgrid[:60, :60]
    mask_HW = (rows - 30) ** 2 + (columns - 30) ** 2 < 600
    (exact,), (simple,) = polygons(mask_HW), polygons(mask_HW, 0.5)
    assert len(simple.outer) < 0.8 * len(exact.outer)
    starts, ends = simple.outer, np.roll(simple.outer, -1, axis=0)
    for corner in exact.outer:
        along = ends - starts
        share = (((corner - starts) * along).sum(1) / (along**2).sum(1)).clip(0, 1)
        assert np.linalg.norm(starts + share[:, None] * along - corner, axis=1).min() <= 0.5 + 1e-6


def test_one_line_around_holes_and_parts() -> None:
    for mask_HW in masks()[::3]:
        parts = polygons(mask_HW, 0.5)
        union_HW = np.zeros(mask_HW.shape, bool)
        for part in parts:
            union_HW ^= filled([without_holes(part)], *mask_HW.shape)
        np.testing.assert_array_equal(union_HW, mask_HW)
        if parts:
            line = joined([ring for part in parts for ring in (part.outer, *part.holes)])
            np.testing.assert_array_equal(filled([line], *mask_HW.shape), mask_HW)
            assert abs(area(line)) == pytest.approx(
                sum(abs(area(part.outer)) - sum(abs(area(hole)) for hole in part.holes) for part in parts)
            )


def test_coordinates_are_those_of_coco() -> None:
    """Pycocotools fills whole rectangles as they are, so that an offset of half a pixel would show."""
    mask_HW = np.zeros((20, 30), bool)
    mask_HW[3:9, 5:17] = True
    (part,) = polygons(mask_HW)
    assert sorted(map(tuple, part.outer.tolist())) == [(5, 3), (5, 9), (17, 3), (17, 9)]
    encoded = coco_mask.merge(coco_mask.frPyObjects([part.outer.ravel().tolist()], 20, 30))
    np.testing.assert_array_equal(coco_mask.decode(encoded), mask_HW)


def test_nothing_is_no_polygon() -> None:
    assert polygons(np.zeros((4, 5), bool)) == []
