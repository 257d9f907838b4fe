"""What moves by itself and what came into view, on frames whose motion is known."""

import cv2
import numpy as np
import pytest

from zsvss.stages.motion import CELL, motion_of, of_cells, step_between

HEIGHT, WIDTH = 64, 112


def texture(seed, height=HEIGHT, width=2 * WIDTH):
    """Smooth random colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)
    return np.clip((soft - soft.mean()) * 4 + 128, 0, 255).astype(np.uint8)


def view(number, pan=0, enters=None, speed=5):
    """A frame of a camera that pans, into which a square of 24 pixels comes from the left at a frame."""
    frame = texture(0)[:, 20 + pan * number : 20 + pan * number + WIDTH].copy()
    if enters is not None and number >= enters:
        right = min(speed * (number - enters + 1), WIDTH)
        left = max(right - 24, 0)
        frame[20:44, left:right] = texture(1)[:24, 24 - (right - left) : 24]
    return frame


def still(frame_HW3):
    return np.zeros(frame_HW3.shape[:2], np.uint8)


def test_a_pan_is_the_backgrounds_motion():
    step = step_between(view(0, pan=3), view(1, pan=3))
    middle = (slice(8, -8), slice(8, -12))
    assert np.abs(step.backward_HW2[middle] - [3, 0]).max() < 0.3  # what is shown now was three pixels to the right
    assert np.abs(step.own_backward_HW2[middle]).max() < 0.3
    assert np.abs(step.own_forward_HW2[middle]).max() < 0.3
    assert not step.inside_HW[:, -1].any()
    assert step.inside_HW[middle].all()
    assert np.quantile(step.error_HW[middle], 0.99) < 0.2


@pytest.mark.parametrize("pan", [0, 2])
def test_what_enters_moves_by_itself_and_came_from_outside(pan):
    frames = [view(number, pan, enters=1) for number in range(7)]
    motion = motion_of(frames, still(frames[0]))
    square = (5, slice(24, 40), slice(10, 26))  # within it in the last frame
    apart = (5, slice(24, 40), slice(60, 90))
    assert motion.backward_THW[square] == pytest.approx(5 + pan, abs=0.6)
    assert np.median(motion.own_THW2[square], (0, 1)) == pytest.approx([-5 - pan, 0], abs=0.3)
    assert motion.backward_THW[apart].max() < 0.5
    came = motion.entered_THW | motion.lost_THW  # the way back of what came first breaks off at the frame's border
    assert came[square].mean() > 0.75
    assert not motion.entered_THW[apart].any()
    assert not motion.lost_THW[apart].any()
    assert np.median(motion.changed_THW[square]) > 5 * np.median(motion.changed_THW[apart])


def test_what_a_pan_uncovers_is_unseen_and_entered():
    frames = [view(number, pan=3) for number in range(5)]
    motion = motion_of(frames, still(frames[0]))
    assert motion.unseen_THW[3, 10:-10, -10:].all()
    assert motion.entered_THW[3, 10:-10, -10:].all()
    assert not motion.unseen_THW[3, :, : WIDTH // 2].any()
    assert (motion.changed_THW[motion.unseen_THW] == 0).all()


def test_pending_pixels_stay_entered_and_keep_their_age():
    frames = [view(number, enters=-2) for number in range(3)]
    age = still(frames[0])
    age[20:44, :15] = 2
    motion = motion_of(frames, age)
    inside = (1, slice(24, 40), slice(8, 20))
    assert motion.entered_THW[inside].all()
    assert (motion.age_THW[inside] == 2).all()
    assert not motion.age_THW[:, :, 60:].any()


def test_cells_are_means():
    values = np.arange(2 * 8 * 12).reshape(2, 8, 12)
    cells = of_cells(values)
    assert cells.shape == (2, 8 // CELL, 12 // CELL)
    assert cells[1, 1, 2] == values[1, 4:8, 8:12].mean()
