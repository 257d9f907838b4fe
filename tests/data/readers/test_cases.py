"""Small files of many kinds with the frames that a player shows, which lie beside the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from zsvss.data.clip import clip_starts
from zsvss.data.reader import open_frames

CASES = Path(os.environ.get("ZSVSS_CASES") or Path(__file__).parents[3] / "../shared/cases/video").resolve()
REFERENCE = CASES / "reference.npz"
# Frames of the reference are a quarter as high and wide, and come from another decoder.
SCALE, LEVELS = 4, 4

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_file(), reason=f"no {REFERENCE}; set ZSVSS_CASES to the folder of reference.npz and its videos"
)


@cache
def reference() -> dict[str, np.ndarray]:
    """File name -> uint8 RGB [T, H/4, W/4, 3], and "<file name>|size" -> (H, W)."""
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def names() -> list[str]:
    return sorted(path.name for path in CASES.iterdir() if path.name != REFERENCE.name) if REFERENCE.is_file() else []


def quarter(frames_THW3: Tensor) -> np.ndarray:
    """Frames as the reference has them."""
    height, width = (length // SCALE for length in frames_THW3.shape[1:3])
    images = [Image.fromarray(frame) for frame in frames_THW3.numpy()]
    return np.stack([image.resize((width, height), Image.Resampling.BOX) for image in images])


def orders(num_frames: int) -> Iterator[list[tuple[int, int]]]:
    """Ranges to read: all at once, clips of 7 and 14 with the last one moved back, one by one from the end."""
    yield [(0, num_frames)]
    for length in (7, 14):
        yield [(start, start + length) for start, length, _ in clip_starts(num_frames, length)]
    yield [(number, number + 1) for number in reversed(range(num_frames))]


@pytest.mark.parametrize("name", names() or ["none"])
def test_frames_are_those_that_a_player_shows(name: str) -> None:
    expected, size = reference()[name], tuple(reference()[f"{name}|size"])
    for ranges in orders(len(expected)):
        reader = open_frames(CASES / name)
        assert (len(reader), reader.size) == (len(expected), size)
        for start, stop in ranges:
            differences = np.abs(quarter(reader.read(start, stop)).astype(int) - expected[start:stop])
            assert differences.mean((1, 2, 3)).max() <= LEVELS, (start, stop)
        reader.close()
