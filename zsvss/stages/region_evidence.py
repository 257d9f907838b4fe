"""What speaks for a region of a clip being one whole object that has come in.

Shape legend: T frames of a clip, t those of a region, h w cells, c channels, E values of evidence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from zsvss.stages.region_trees import Bools, Floats, Region

_IN_FRAME = np.ones((1, 3, 3), np.bool_)
_SCORES = (-8.0, 6.0)
_NOVELTY = 0  # of a cell's evidence


class CellViews(NamedTuple):
    """What is known of each cell of a clip.

    Attributes:
        score_Thw: log odds that it is of something that has come in.
        evidence_Thwe: what that was told from.
        velocity_Thw2: against the background, in pixels a frame.
        features_Thwc: leading axes of the features.
        lab_Thw3: CIELAB (8 bits a channel) / 25.
        speed: of most of the clip, in pixels a frame.
    """

    score_Thw: Floats
    evidence_Thwe: Floats
    velocity_Thw2: Floats
    features_Thwc: Floats
    lab_Thw3: Floats
    speed: float


def evidence_for(region: Region, views: CellViews, *, is_first: bool) -> Floats:
    """Values [E] that tell whole objects that have come in from other regions.

    Args:
        region: of the clip.
        views: of the clip.
        is_first: whether nothing was pending before the clip.
    """
    num_frames, _, width = views.score_Thw.shape
    inside_thw, box = _in_box(region, views.score_Thw.shape)
    around_thw = ndimage.binary_dilation(inside_thw, _IN_FRAME, iterations=2) & ~inside_thw
    evidence_Me = views.evidence_Thwe[box][inside_thw]
    times = np.flatnonzero(inside_thw.any((1, 2)))
    first = int(region.places[0].min())
    area_t = inside_thw.sum((1, 2))[times]
    num_cells, num_shown = int(area_t.sum()), len(times)
    is_last = region.places[0].max() == num_frames - 1
    at_side_t = _frames_at(region, np.isin(region.places[2], (0, width - 1)))
    heights = np.log(np.array([region.merged_at, region.ends_at]) + 0.1)
    return np.concatenate(
        [
            _of_scores(inside_thw, around_thw, views.score_Thw[box]),
            _of_looks(
                inside_thw, around_thw, (views.velocity_Thw2[box], views.features_Thwc[box], views.lab_Thw3[box])
            ),
            heights,
            [
                np.log(num_cells / num_shown),
                num_shown / num_frames,
                is_last,
                area_t[-1] * is_last / area_t.max(),
                first / num_frames,
                num_shown / (num_frames - first),
                np.mean(np.minimum(area_t[1:], area_t[:-1]) / np.maximum(area_t[1:], area_t[:-1])),
                len(at_side_t) / num_shown,
                first in at_side_t,
                _perimeter(inside_thw) / np.sqrt(num_cells * num_shown),
                num_cells / _boxes(inside_thw[times]),
                ndimage.label(inside_thw[times[num_shown // 2]])[1],
                is_first,
            ],
            evidence_Me.mean(0),
            [np.quantile(evidence_Me[:, _NOVELTY], 0.75)],
            _of_clip(region, views),
        ]
    ).astype(np.float32)


def _of_clip(region: Region, views: CellViews) -> list[float]:
    """Share of the clip's cells that are likely new, the region's part in them, and how fast the clip moves."""
    is_new_Thw = views.score_Thw > 0
    num_new, num_own = int(is_new_Thw.sum()), int(is_new_Thw[tuple(region.places)].sum())
    return [float(is_new_Thw.mean()), num_own / max(num_new, 1), float(np.log(views.speed + 0.1))]


def _in_box(region: Region, shape: tuple[int, ...]) -> tuple[Bools, tuple[slice, ...]]:
    """A region's cells within the box around it, up to two cells wider, and the box."""
    low, high = region.places.min(1), region.places.max(1) + 1
    low[1:], high[1:] = np.maximum(low[1:] - 2, 0), np.minimum(high[1:] + 2, shape[1:])
    inside_thw = np.zeros(high - low, np.bool_)
    inside_thw[tuple(region.places - low[:, None])] = True
    return inside_thw, tuple(slice(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True))


def _frames_at(region: Region, is_at_M: Bools) -> set[int]:
    return set(region.places[0, is_at_M].tolist())


def _of_scores(inside_thw: Bools, around_thw: Bools, score_thw: Floats) -> list[float]:
    """Mean and lowest tenth inside, mean around, and share of the cells around that are likely new, too."""
    inside, around = score_thw[inside_thw].clip(*_SCORES), score_thw[around_thw].clip(*_SCORES)
    if not len(around):
        around = np.full(1, _SCORES[0], np.float32)
    return [float(inside.mean()), float(np.quantile(inside, 0.1)), float(around.mean()), float((around > -1).mean())]


def _of_looks(inside_thw: Bools, around_thw: Bools, looks: tuple[Floats, ...]) -> list[float]:
    """For each look, its difference from around and its spread inside, both within a frame."""
    both_t = inside_thw.any((1, 2)) & around_thw.any((1, 2))
    values = []
    for look_thwc in looks:
        mean_tc, spread = _moments(look_thwc, inside_thw)
        around_tc, _ = _moments(look_thwc, around_thw)
        difference_t = np.linalg.norm(mean_tc - around_tc, axis=1)[both_t]
        values += [float(difference_t.mean()) if len(difference_t) else 0.0, spread]
    return values


def _moments(look_thwc: Floats, where_thw: Bools) -> tuple[Floats, float]:
    """Mean of each frame [t, c], and the standard deviation within frames."""
    num_t = np.maximum(where_thw.sum((1, 2)), 1)[:, None]
    mean_tc = np.einsum("thw,thwc->tc", where_thw, look_thwc) / num_t
    variance_tc = np.einsum("thw,thwc->tc", where_thw, look_thwc**2) / num_t - mean_tc**2
    return mean_tc, float(
        np.sqrt(variance_tc.clip(0)).mean(1)[where_thw.any((1, 2))].mean()
    ) if where_thw.any() else 0.0


def _perimeter(inside_thw: Bools) -> int:
    """Sides of cells between inside and outside, in all frames; the frame's border is none."""
    return int((inside_thw[:, 1:] != inside_thw[:, :-1]).sum() + (inside_thw[:, :, 1:] != inside_thw[:, :, :-1]).sum())


def _boxes(inside_thw: Bools) -> int:
    """Cells in the boxes around each frame's part."""
    sides = []
    for axis in (1, 2):
        is_used = np.asarray(inside_thw.any(axis))
        sides.append(is_used.shape[1] - is_used[:, ::-1].argmax(1) - is_used.argmax(1))
    return int((sides[0] * sides[1]).sum())
