"""Regions of a clip and the evidence for them, on masks whose parts are known."""

import numpy as np
import pytest

from zsvss.stages.region_evidence import CellViews, evidence_for
from zsvss.stages.region_trees import Region, regions

SHAPE = (4, 12, 20)


def boxes(*columns, rows=(3, 7), times=(0, 4)):
    """Cells of boxes, one a pair of columns."""
    mask = np.zeros(SHAPE, np.bool_)
    for left, right in columns:
        mask[times[0] : times[1], rows[0] : rows[1], left:right] = True
    return mask


def flow(x=0.0):
    return np.full((*SHAPE, 2), [x, 0.0], np.float32)


def cells_of(region):
    mask = np.zeros(SHAPE, np.bool_)
    mask[tuple(region.places)] = True
    return mask


def test_touching_parts_of_two_looks_are_nodes_and_so_is_their_union():
    one, other = boxes((2, 5)), boxes((5, 9))
    look = (one * 1.0 - other * 1.0)[..., None].astype(np.float32)
    found = list(regions(one | other, flow(), look))
    assert any(np.array_equal(cells_of(region), one) for region in found)
    assert any(np.array_equal(cells_of(region), other) for region in found)
    whole = next(region for region in found if np.array_equal(cells_of(region), one | other))
    part = next(region for region in found if np.array_equal(cells_of(region), one))
    assert part.merged_at == pytest.approx(0, abs=1e-6)
    assert part.ends_at == pytest.approx(whole.merged_at)
    # Ward's distance of two clusters whose means differ by 2
    assert whole.merged_at == pytest.approx((2 * one.sum() * other.sum() / (one | other).sum()) ** 0.5 * 2)


def test_parts_that_do_not_touch_are_no_region():
    one, other = boxes((2, 5)), boxes((10, 14))
    found = [cells_of(region) for region in regions(one | other, flow(), np.zeros((*SHAPE, 1), np.float32))]
    assert any(np.array_equal(region, one) for region in found)
    assert not any((region & one).any() and (region & other).any() for region in found)


def test_frames_are_joined_along_the_flow():
    mask = np.zeros(SHAPE, np.bool_)
    for time in range(4):
        mask[time, 3:7, 4 * time : 4 * time + 4] = True  # moves by its own width: no cell is shared by two frames
    look = np.zeros((*SHAPE, 1), np.float32)
    assert not list(regions(mask, flow(), look))  # 16 cells a frame are too few
    assert any(np.array_equal(cells_of(region), mask) for region in regions(mask, flow(-4), look))


@pytest.mark.parametrize("mask", [boxes((2, 4), rows=(3, 5)), boxes((2, 12), times=(1, 3)), np.zeros(SHAPE, np.bool_)])
def test_tiny_and_short_parts_are_none(mask):
    assert not list(regions(mask, flow(), np.zeros((*SHAPE, 1), np.float32)))


def views(inside):
    """Score 3 inside and -5 outside; looks that are 1 inside and 0 outside."""
    look = inside[..., None].astype(np.float32)
    score = np.where(inside, 3.0, -5.0).astype(np.float32)
    evidence = np.concatenate([look * number for number in range(1, 10)], -1)
    return CellViews(score, evidence, look.repeat(2, -1), look.repeat(8, -1), look.repeat(3, -1), 0.9)


def evidence_of(mask, inside, is_first=True):
    return evidence_for(Region(np.stack(np.nonzero(mask)), 0.9, 9.9), views(inside), is_first=is_first)


def test_evidence_of_a_whole_object():
    mask = boxes((6, 10), times=(1, 4))
    evidence = evidence_of(mask, mask)
    scores, looks, heights, shape = evidence[:4], evidence[4:10], evidence[10:12], evidence[12:25]
    assert scores == pytest.approx([3, 3, -5, 0])
    assert looks == pytest.approx([2**0.5, 0, 8**0.5, 0, 3**0.5, 0], abs=1e-5)
    assert heights == pytest.approx(np.log([1.0, 10.0]), abs=1e-6)
    #       16 cells a frame, 3 of 4 frames, the last too, as large there, from the second on, in all since, steady,
    shape_of = [np.log(16), 0.75, 1, 1, 0.25, 1, 1]
    #       at no side, 16 sides of cells, fills its box, is one part, first clip
    shape_of += [0, 0, 3 * 16 / np.sqrt(48 * 3), 1, 1, 1]
    assert shape == pytest.approx(shape_of, abs=1e-5)
    assert evidence[25:35] == pytest.approx([*range(1, 10), 1])
    assert evidence[35:] == pytest.approx(
        [48 / mask.size, 1, 0], abs=1e-6
    )  # all that is new in a clip of a pixel a frame


def test_evidence_of_a_part_at_the_side():
    evidence = evidence_of(boxes((0, 3)), boxes((0, 6)), is_first=False)
    assert evidence[2] > -5  # what is around it is partly as likely
    assert evidence[3] > 0.2
    assert evidence[4] < 2**0.5
    assert evidence[12 + 7] == 1
    assert evidence[12 + 8] == 1
    assert evidence[24] == 0
    assert evidence[36] == 0.5  # of what is new
