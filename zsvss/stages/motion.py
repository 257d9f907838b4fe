"""What moves by itself, and what came into view: optical flow between frames, and the camera's part of it.

Shape legend: T frames of a clip, H W pixels, h w cells of 4x4 pixels. Frames are uint8 RGB. A flow says for each pixel
(x, y) of one frame how far away its counterpart in another frame is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

CELL = 4
_MAX_THREADS = 4  # one step of motion each; a clip has few
_CONSISTENT, _LOST = 1.0, 1.5  # pixels between a pixel and where the way to its counterpart and back leads


class Step(NamedTuple):
    """Motion between a frame and the one before it.

    Attributes:
        backward_HW2: flow from the frame to the one before.
        own_backward_HW2: that less the background's.
        own_forward_HW2: flow from the one before to the frame, less the background's; of the one before's pixels.
        background_HW2: the background's flow from the frame to the one before.
        inside_HW: whether a counterpart lies in the frame before.
        error_HW: pixels by which the way there and back misses.
    """

    backward_HW2: Floats
    own_backward_HW2: Floats
    own_forward_HW2: Floats
    background_HW2: Floats
    inside_HW: Bools
    error_HW: Floats


class Motion(NamedTuple):
    """Motion of each pixel of a clip [T, H, W].

    Attributes:
        own_THW2: against the background, in pixels a frame; of both directions in time the slower.
        backward_THW: its speed towards the frame before.
        forward_THW: its speed towards the frame after.
        entered_THW: whether the way back through the clip leads out of the frame, or to a pixel that was pending.
        lost_THW: whether that way breaks off.
        changed_THW: difference in CIELAB (8 bits a channel, summed) from the frame before the clip, moved as the
            background; 0 where that is not known.
        unseen_THW: where it is not known.
        age_THW: clips since the pixel was first pending.
        flow_THW2: to the frame before.
    """

    own_THW2: Floats
    backward_THW: Floats
    forward_THW: Floats
    entered_THW: Bools
    lost_THW: Bools
    changed_THW: Floats
    unseen_THW: Bools
    age_THW: UInt8
    flow_THW2: Floats


def motion_of(frames: Sequence[UInt8], age_HW: UInt8) -> Motion:
    """Motion in a clip.

    Args:
        frames: the frame before the clip and those of the clip, all of one size.
        age_HW: of the frame before the clip: for how many clips a pixel has been pending, 0 where it is not.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, torch.get_num_threads(), max(1, cv2.getNumThreads()))) as pool:
        steps = list(pool.map(step_between, frames[:-1], frames[1:]))
    seen = _lab(frames[0])
    place_HW2: Floats | None = None
    status_HW, pending_HW = (age_HW > 0).astype(np.uint8), (age_HW > 0).astype(np.uint8)
    found = []
    for number, (frame_HW3, step) in enumerate(zip(frames[1:], steps, strict=True)):
        back_HW2 = place_at(step.backward_HW2)
        broken_HW = np.where(~step.inside_HW, 1, np.where(step.error_HW >= _LOST, 2, 0)).astype(np.uint8)
        status_HW = np.where(broken_HW == 0, _taken(status_HW, back_HW2), broken_HW).astype(np.uint8)
        age_HW = _taken(age_HW, back_HW2)
        moved_HW2 = place_at(step.background_HW2)
        is_known_HW = _within(moved_HW2)
        place_HW2 = moved_HW2 if place_HW2 is None else _sampled(place_HW2, moved_HW2)
        is_known_HW &= _within(place_HW2) & (_taken(pending_HW, place_HW2) == 0)
        changed_HW = np.abs(_lab(frame_HW3) - _sampled(seen, place_HW2)).sum(-1) * is_known_HW
        own_HW2, backward_HW = step.own_backward_HW2, np.linalg.norm(step.own_backward_HW2, axis=-1)
        forward_HW = backward_HW
        if number + 1 < len(steps):
            forward_HW = np.linalg.norm(steps[number + 1].own_forward_HW2, axis=-1)
            is_slower_HW = (forward_HW < backward_HW)[..., None]
            own_HW2 = np.where(is_slower_HW, -steps[number + 1].own_forward_HW2, own_HW2)
        status = (status_HW == 1, status_HW == 2)
        found.append((own_HW2, backward_HW, forward_HW, *status, changed_HW, ~is_known_HW, age_HW, step.backward_HW2))
    return Motion(*(np.stack(of_frames) for of_frames in zip(*found, strict=True)))


def step_between(before_HW3: UInt8, now_HW3: UInt8) -> Step:
    """Flow in both directions (dense inverse search), and what of it is the background's."""
    size = (now_HW3.shape[1], now_HW3.shape[0])
    greys = [_enlarged_grey(frame) for frame in (before_HW3, now_HW3)]
    search = _search()
    forward, backward = (
        cv2.resize(search.calc(one, other, None), size, interpolation=cv2.INTER_AREA) / 2
        for one, other in (greys, greys[::-1])
    )
    ways = []
    for flow, other in ((backward, forward), (forward, backward)):
        place_HW2 = place_at(flow)
        inside_HW = _within(place_HW2)
        error_HW = np.linalg.norm(flow + _sampled(other, place_HW2), axis=-1)
        ways.append((_background(flow, inside_HW & (error_HW < _CONSISTENT)), inside_HW, error_HW))
    (of_backward, inside_HW, error_HW), (of_forward, _, _) = ways
    return Step(backward, backward - of_backward, forward - of_forward, of_backward, inside_HW, error_HW)


def of_cells(values_THW: npt.NDArray[np.generic]) -> Floats:
    """Mean over each cell: [T, H, W] to [T, h, w]."""
    size = (values_THW.shape[2] // CELL, values_THW.shape[1] // CELL)
    values_THW = values_THW.astype(np.float32)
    return np.stack([cv2.resize(values_HW, size, interpolation=cv2.INTER_AREA) for values_HW in values_THW])


def place_at(flow_HW2: Floats) -> Floats:
    """Where a flow leads, x and y."""
    return np.asarray(_places(flow_HW2.shape[:2]) + flow_HW2)


@lru_cache(maxsize=2)
def _places(size: tuple[int, int]) -> Floats:
    """Column and row of each pixel, to read only."""
    rows_HW, columns_HW = np.indices(size, np.float32)
    places_HW2: Floats = np.stack([columns_HW, rows_HW], -1)
    places_HW2.flags.writeable = False
    return places_HW2


def _search() -> cv2.DISOpticalFlow:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(1)
    return search


def _enlarged_grey(frame_HW3: UInt8) -> UInt8:
    size = (2 * frame_HW3.shape[1], 2 * frame_HW3.shape[0])
    grey = cv2.resize(cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), np.uint8)


def _lab(frame_HW3: UInt8) -> Floats:
    return np.asarray(cv2.cvtColor(cv2.GaussianBlur(frame_HW3, (0, 0), 0.8), cv2.COLOR_RGB2LAB), np.float32)


def _background(flow_HW2: Floats, is_reliable_HW: Bools) -> Floats:
    """Flow of the homography that most reliable pixels follow; zero where there is none."""
    rows, columns = (places.ravel() for places in np.mgrid[4 : flow_HW2.shape[0] : 6, 4 : flow_HW2.shape[1] : 6])
    used = is_reliable_HW[rows, columns]
    rows, columns = rows[used], columns[used]
    if len(rows) < 20:
        return np.zeros_like(flow_HW2)
    places = np.stack([columns, rows], 1).astype(np.float32)
    cv2.setRNGSeed(0)  # the same frames give the same labels
    matrix, _ = cv2.findHomography(places, places + flow_HW2[rows, columns], cv2.RANSAC, 0.7, maxIters=500)
    if matrix is None:
        return np.zeros_like(flow_HW2)
    place_HW2 = _places(flow_HW2.shape[:2])
    moved = cv2.perspectiveTransform(place_HW2.reshape(1, -1, 2), matrix).reshape(place_HW2.shape)
    return np.asarray(moved - place_HW2, np.float32)


def _within(place_HW2: Floats) -> Bools:
    """Whether places lie in the frame, whose border pixels reach half a pixel further."""
    height, width = place_HW2.shape[:2]
    x, y = place_HW2[..., 0], place_HW2[..., 1]
    return np.asarray((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))


def _sampled(values: Floats, place_HW2: Floats) -> Floats:
    """Values at places, bilinearly; beyond the frame those of its border."""
    return np.asarray(cv2.remap(values, place_HW2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _taken(values_HW: UInt8, place_HW2: Floats) -> UInt8:
    """Values of the pixels nearest to places."""
    return np.asarray(cv2.remap(values_HW, place_HW2, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))
