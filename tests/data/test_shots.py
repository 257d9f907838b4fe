"""Where shots begin: cuts, dissolves, fades; and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsvss.data.shots import ShotDetector


def picture(seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3))
    return np.kron(cells, np.ones((16, 16, 1))).astype(np.uint8)


A, B = picture(0), picture(1)
SWAN = Path(__file__).parents[2] / "docs" / "swan"
BLACK = np.zeros_like(A)


def mixed(first: np.ndarray, second: np.ndarray, num_frames: int) -> list[np.ndarray]:
    shares = np.linspace(0, 1, num_frames + 2)[1:-1]
    return [((1 - share) * first + share * second).astype(np.uint8) for share in shares]


def shots_of(frames: list[np.ndarray], detector: ShotDetector | None = None) -> list[int]:
    finder = (detector or ShotDetector()).start()
    cuts: list[int] = []
    for number, frame in enumerate(frames):
        cuts += finder.feed(np.ascontiguousarray(frame))
        assert finder.settled <= number + 1
    cuts += finder.finish()
    assert finder.settled == len(frames)
    return cuts


def test_a_cut() -> None:
    assert shots_of([A] * 20 + [B] * 20) == [20]


def test_a_static_camera_and_a_single_frame() -> None:
    noise = np.random.default_rng(2)
    noisy = [np.clip(A.astype(int) + noise.integers(-6, 7, A.shape), 0, 255).astype(np.uint8) for _ in range(60)]
    assert shots_of(noisy) == []
    assert shots_of([A] * 60) == []
    assert shots_of([A]) == []
    assert shots_of([BLACK] * 40) == []


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_a_flash_is_no_cut(num_frames: int) -> None:
    bright = np.clip(A.astype(int) + 150, 0, 255).astype(np.uint8)
    for flash in (bright, np.full_like(A, 255), B):
        assert shots_of([A] * 20 + [flash] * num_frames + [A] * 20) == []


def test_black_frames_end_a_shot_where_another_picture_follows() -> None:
    assert shots_of([A] * 20 + [BLACK] * 7 + [A] * 20) == []
    assert shots_of([A] * 20 + [BLACK] * 7 + [B] * 20) == [27]
    assert shots_of([BLACK] * 7 + [A] * 20) == [7]
    assert shots_of([BLACK] * 4 + mixed(BLACK, A, 9) + [A] * 20) == [4]
    assert shots_of([BLACK] * 3 + [A] * 20) == []
    assert shots_of([BLACK] * 7 + [A] * 20 + [B] * 20) == [7, 27]
    assert shots_of([A] * 20 + [BLACK] * 30) == []


def test_fades_through_black() -> None:
    out = mixed(A, BLACK, 9)
    assert shots_of([A] * 20 + out + [BLACK] * 3 + out[::-1] + [A] * 20) == []
    (cut,) = shots_of([A] * 20 + out + [BLACK] * 3 + mixed(BLACK, B, 9) + [B] * 20)
    assert 29 <= cut <= 34


@pytest.mark.parametrize("num_frames", [6, 10, 16, 24, 32, 40])
def test_a_dissolve_is_one_cut_within_it(num_frames: int) -> None:
    (cut,) = shots_of([A] * 20 + mixed(A, B, num_frames) + [B] * 20)
    assert 20 <= cut <= 20 + num_frames
    if num_frames > 8:
        assert not shots_of([A] * 20 + mixed(A, B, num_frames) + [B] * 20, ShotDetector(longest_dissolve=0))


def test_a_camera_that_pans_makes_no_cut() -> None:
    with Image.open(SWAN / "00000.jpg") as image:
        wide = np.asarray(image.convert("RGB").resize((854, 480)))
    views = [wide[150:294, x : x + 256] for x in range(0, wide.shape[1] - 256, 6)]
    assert shots_of([views[0]] * 10 + views + [views[-1]] * 10) == []


def test_two_hundred_cuts_in_a_minute() -> None:
    lengths = [7 + number % 2 for number in range(201)]  # 1507 frames, a minute at 25 a second
    frames = [picture(number) for number, length in enumerate(lengths) for _ in range(length)]
    assert shots_of(frames) == np.cumsum(lengths)[:-1].tolist()


def test_uncut_footage_has_none() -> None:
    frames = []
    for path in sorted(SWAN.glob("*.jpg")):
        with Image.open(path) as image:
            frames.append(np.asarray(image.convert("RGB")))
    assert shots_of(frames + frames[::-1]) == []


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.shots\.threshold = 1"):
        ShotDetector(threshold=1)
    with pytest.raises(ValueError, match="shortest_shot = 0"):
        ShotDetector(shortest_shot=0)
