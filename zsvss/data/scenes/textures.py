"""Colours and textures of the procedural scenes.

Every class has a texture of its own (streaks, blades, bricks, leaves), and colours drawn from wide ranges. In a `hard`
scene all classes draw their colours from one palette, so that only texture, shape and context tell them apart.

Shape suffixes: H W pixels of the canvas at hand, 3 RGB, C colours.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

# Alternatives of (hue, saturation, value) ranges, in OpenCV's units: hue 0..180, the others 0..255.
HueRange = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_HSV_RANGES: dict[str, tuple[HueRange, ...]] = {
    "sky": (
        ((95, 115), (50, 170), (150, 250)),
        ((0, 25), (30, 140), (160, 250)),
        ((90, 120), (0, 40), (110, 230)),
        ((105, 135), (70, 160), (35, 100)),
    ),
    "hills": (((30, 80), (40, 140), (50, 150)), ((90, 130), (20, 100), (70, 170)), ((5, 25), (40, 130), (60, 170))),
    "road": (((0, 180), (0, 35), (50, 180)), ((8, 25), (30, 110), (80, 190))),
    "grass": (((28, 75), (50, 190), (60, 190)), ((14, 30), (60, 160), (100, 210))),
    "water": (((85, 120), (50, 190), (50, 200)), ((55, 90), (40, 120), (50, 160)), ((0, 180), (0, 40), (90, 200))),
    "building": (((0, 30), (20, 160), (80, 235)), ((0, 180), (0, 40), (80, 235)), ((90, 125), (20, 120), (70, 200))),
    "tree": (((28, 80), (60, 200), (30, 150)), ((4, 25), (90, 210), (70, 190)), ((150, 178), (30, 110), (120, 220))),
    "car": (((0, 180), (60, 230), (60, 235)), ((0, 180), (0, 30), (30, 240))),
    "person": (((0, 180), (30, 220), (40, 230)), ((0, 180), (0, 30), (25, 235))),
    "animal": (((5, 25), (30, 180), (35, 220)), ((0, 180), (0, 30), (25, 235))),
}


class Colours:
    """Draws the colours of one scene.

    Args:
        rng: Source of randomness.
        hard: Whether all classes share one palette of six colours.
    """

    def __init__(self, rng: np.random.Generator, hard: bool) -> None:
        self.hard = hard
        self._rng = rng
        hues = (rng.uniform(0, 180) + np.arange(6) * rng.uniform(8, 30)) % 180
        values = rng.permutation(np.linspace(60, 225, 6))
        self._shared_C3 = _rgb_from_hsv(np.stack([hues, rng.uniform(20, 170, 6), values], 1))

    def pick(self, name: str, count: int) -> FloatArray:
        """`count` RGB colours in 0..255 for one object or region of class `name`, as a float array `C3`."""
        if self.hard:
            chosen_C3 = self._shared_C3[self._rng.permutation(6)[np.arange(count) % 6]]
            return np.clip(chosen_C3 + self._rng.normal(0, 8, (count, 3)), 5, 250).astype(np.float32)
        ranges = _HSV_RANGES[name]
        low_high = np.array(ranges[self._rng.integers(len(ranges))], np.float32)
        spread = np.array([10, 35, 35]) if name not in ("car", "person") else np.array([60, 60, 60])
        hsv_C3 = self._rng.uniform(low_high[:, 0], low_high[:, 1]) + self._rng.uniform(-spread, spread, (count, 3))
        return _rgb_from_hsv(hsv_C3)


def _rgb_from_hsv(hsv_C3: NDArray[np.floating]) -> FloatArray:
    hsv = np.stack([hsv_C3[:, 0] % 180, np.clip(hsv_C3[:, 1], 0, 255), np.clip(hsv_C3[:, 2], 15, 250)], 1)
    return np.asarray(cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0], np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> FloatArray:
    """Random field in about -1..1 of size `shape` whose features measure `cell` (y, x) pixels."""
    height, width = shape
    rows, columns = int(height / max(cell[0], 1)) + 3, int(width / max(cell[1], 1)) + 3
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    scale_y, scale_x = (rows - 2) / height, (columns - 2) / width
    matrix = np.array([[scale_x, 0, 0.5], [0, scale_y, 0.5]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(grid, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT))


def class_texture(rng: np.random.Generator, name: str, shape: tuple[int, int], unit: float) -> FloatArray:
    """Brightness pattern of a region of class `name`, zero-mean and about -1..1.

    Args:
        rng: Source of randomness.
        name: One of the region classes.
        shape: Height and width of the pattern.
        unit: Shorter side of the frame in pixels; textures scale with it.
    """
    pixel = unit / 128
    strength = float(rng.uniform(0.7, 1.3))

    def noise(cell: tuple[float, float]) -> FloatArray:
        return smooth_noise(rng, shape, (cell[0] * pixel, cell[1] * pixel))

    if name == "sky":
        clouds = noise((14, 44)) + 0.5 * noise((6, 18))
        field, amplitude = np.clip(clouds, -0.3, 1), 0.30
    elif name == "hills":
        slope_HW = np.add.outer(np.arange(shape[0]) * 0.35, np.arange(shape[1]) * 0.22) / pixel
        field, amplitude = np.sin(slope_HW + 4 * noise((9, 9))) + 0.6 * noise((3, 3)), 0.22
    elif name == "grass":
        field, amplitude = noise((5, 1.3)) + 0.5 * noise((18, 26)), 0.32
    elif name == "road":
        field, amplitude = noise((1.2, 1.2)) + noise((5, 60)), 0.13
    elif name == "water":
        field, amplitude = noise((2.2, 18)) + 0.6 * noise((4, 40)), 0.30
    elif name == "tree":
        field, amplitude = noise((3, 3)) + 0.8 * noise((6, 6)), 0.42
    else:
        field, amplitude, strength = noise((4, 4)), 0.10, 1.0
    return np.asarray(amplitude * strength * field, np.float32)


def paint(
    rng: np.random.Generator, colours_C3: FloatArray, texture_HW: FloatArray, patch: float, patchy: bool
) -> FloatArray:
    """Colour a region: patches of several colours under a brightness texture.

    Args:
        rng: Source of randomness.
        colours_C3: The region's colours.
        texture_HW: From `class_texture`.
        patch: Size of the colour patches in pixels.
        patchy: Hard-edged patches instead of slow blends.

    Returns:
        `HW3` float32 colours, not clipped.
    """
    shape = texture_HW.shape[0], texture_HW.shape[1]
    field_HW = smooth_noise(rng, shape, (patch, patch)) * 0.5 + 0.5
    count = len(colours_C3)
    if patchy:
        index_HW = np.clip(field_HW * 1.5 * count - 0.25 * count, 0, count - 1).astype(np.int64)
        base_HW3 = (np.float32(0.7) * colours_C3 + np.float32(0.3) * colours_C3.mean(0))[index_HW]
        texture_HW = np.float32(1.35) * texture_HW
    else:
        position_HW = np.clip(field_HW, 0, 1) * (count - 1)
        low_HW = np.minimum(position_HW.astype(np.int64), max(count - 2, 0))
        weight_HW1 = (position_HW - low_HW)[..., None]
        base_HW3 = colours_C3[low_HW] * (1 - weight_HW1) + colours_C3[np.minimum(low_HW + 1, count - 1)] * weight_HW1
    return np.asarray(base_HW3 * (1 + texture_HW[..., None]), np.float32)
