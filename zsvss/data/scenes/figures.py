"""Things that stand and move in the procedural scenes: buildings, trees, cars, people and animals.

A figure is drawn as a map of part numbers (0 is empty), then coloured: part p takes one of two colours by the figure's
own pattern, so that a figure can be striped, spotted or plain. Coordinates in the drawing functions run 0..1 across
the figure's box, y downwards.

Shape suffixes: H W pixels of the figure's box, P parts, 3 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zsvss.data.scenes.textures import ByteArray, Colours, FloatArray, class_texture, paint, smooth_noise

NUM_PARTS = 8
_PATTERN_SIZE = 96


class _Pen:
    """Draws numbered parts in the unit square of a box."""

    def __init__(self, height: int, width: int, mirrored: bool) -> None:
        self.parts_HW: ByteArray = np.zeros((height, width), np.uint8)
        self._mirrored = mirrored
        self._scale = np.array([width, height], np.float64)

    def _points(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        array = np.array(points, np.float64)
        if self._mirrored:
            array[:, 0] = 1 - array[:, 0]
        return np.round(array * self._scale - 0.5).astype(np.int32)

    def polygon(self, part: int, *points: tuple[float, float]) -> None:
        cv2.fillPoly(self.parts_HW, [self._points(points)], part)

    def ellipse(self, part: int, centre: tuple[float, float], radius_x: float, radius_y: float) -> None:
        x, y = self._points([centre])[0]
        axes = (max(1, round(radius_x * self._scale[0])), max(1, round(radius_y * self._scale[1])))
        cv2.ellipse(self.parts_HW, (int(x), int(y)), axes, 0, 0, 360, part, -1)

    def limb(self, part: int, width: float, *points: tuple[float, float]) -> None:
        thickness = max(1, round(width * self._scale[0]))
        cv2.polylines(self.parts_HW, [self._points(points)], False, part, thickness)


@dataclass(frozen=True)
class Figure:
    """Looks of one moving thing.

    Attributes:
        kind: `car`, `person` or `animal`.
        aspect: Width of the box over its height.
        shape: Four numbers in 0..1 that choose build and outfit.
        first: First colour of each part, `P3`.
        second: Second colour of each part, `P3`.
        pattern: Where the second colour shows, square.
    """

    kind: str
    aspect: float
    shape: tuple[float, float, float, float]
    first: FloatArray
    second: FloatArray
    pattern: NDArray[np.bool_]

    def draw(self, height: int, phase: float, mirrored: bool) -> tuple[ByteArray, ByteArray]:
        """Draw the figure.

        Args:
            height: Height of the box in pixels.
            phase: Position in the gait or of the wheels, in radians.
            mirrored: Whether it faces left.

        Returns:
            Colours `HW3` and part numbers `HW`, 0 where the box is empty.
        """
        height = max(height, 4)
        width = max(round(height * self.aspect), 3)
        pen = _Pen(height, width, mirrored)
        {"car": _draw_car, "person": _draw_person, "animal": _draw_animal}[self.kind](pen, self.shape, phase)
        pattern = cv2.resize(self.pattern.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        colour_HW3 = np.where(pattern[..., None] > 0, self.second[pen.parts_HW], self.first[pen.parts_HW])
        shade_H11 = np.linspace(1.12, 0.78, height, dtype=np.float32)[:, None, None]
        return np.clip(colour_HW3 * shade_H11, 0, 255).astype(np.uint8), pen.parts_HW


def make_figure(rng: np.random.Generator, kind: str, colours: Colours) -> Figure:
    """A random car, person or animal."""
    first_P3 = colours.pick(kind, NUM_PARTS)
    if kind == "animal" and not colours.hard:
        first_P3[1:] = first_P3[1] + rng.normal(0, 14, (NUM_PARTS - 1, 3))
    if not colours.hard:
        if kind == "person":  # skin
            first_P3[1] = np.array([225, 185, 155]) * rng.uniform(0.35, 1.1)
        if kind == "car":  # windows and tyres
            first_P3[2] = rng.uniform(30, 200) * np.array([0.9, 1.0, 1.1])
            first_P3[3] = rng.uniform(15, 60)
    busy = colours.hard or rng.random() < 0.4
    second_P3 = colours.pick(kind, NUM_PARTS) if busy else first_P3 * rng.uniform(0.75, 1.2)
    grid = np.arange(_PATTERN_SIZE)
    style = rng.integers(4)
    if style == 0:
        pattern = smooth_noise(rng, (_PATTERN_SIZE, _PATTERN_SIZE), (16, 16)) > 0.1
    elif style == 1:
        pattern = np.broadcast_to((grid // rng.integers(6, 14) % 2 == 0)[:, None], (_PATTERN_SIZE, _PATTERN_SIZE))
    elif style == 2:
        pattern = np.broadcast_to((grid // rng.integers(6, 14) % 2 == 0)[None], (_PATTERN_SIZE, _PATTERN_SIZE))
    else:
        pattern = smooth_noise(rng, (_PATTERN_SIZE, _PATTERN_SIZE), (7, 7)) > 0.3
    a, b, c, d = (float(value) for value in rng.random(4))
    aspect = {"car": 1.75 + 1.0 * a, "person": 0.46, "animal": 1.25 + 0.45 * a}[kind]
    return Figure(
        kind, aspect, (a, b, c, d), first_P3, np.asarray(second_P3, np.float32), np.ascontiguousarray(pattern)
    )


def _draw_car(pen: _Pen, shape: tuple[float, float, float, float], phase: float) -> None:
    long, tall, split, _ = shape
    hood = 0.30 if tall < 0.6 else 0.12  # saloon or van
    roof = 0.04 + 0.10 * split
    pen.polygon(1, (0.0, 0.50), (hood * 0.6, 0.46), (1 - 0.04, 0.44), (1, 0.62), (1, 0.84), (0, 0.84))
    pen.polygon(4, (0.05, 0.48), (hood, roof), (0.80, roof), (0.94, 0.48))
    pen.polygon(2, (hood * 0.5 + 0.08, 0.44), (hood + 0.03, roof + 0.08), (0.50, roof + 0.08), (0.50, 0.44))
    pen.polygon(2, (0.55, 0.44), (0.55, roof + 0.08), (0.77, roof + 0.08), (0.86, 0.44))
    pen.polygon(5, (0.0, 0.68), (1, 0.68), (1, 0.74), (0, 0.74))
    pen.ellipse(6, (0.03, 0.57), 0.035, 0.06)
    pen.ellipse(7, (0.97, 0.57), 0.03, 0.06)
    radius = 0.17
    for x in (0.2, 0.79):
        pen.ellipse(3, (x, 0.82), radius / (1.75 + long), radius)
        pen.ellipse(5, (x, 0.82), 0.45 * radius / (1.75 + long), 0.45 * radius)
        tip = (x + 0.8 * radius / (1.75 + long) * np.cos(phase), 0.82 + 0.8 * radius * np.sin(phase))
        pen.limb(5, 0.02, (x, 0.82), tip)


def _draw_person(pen: _Pen, shape: tuple[float, float, float, float], phase: float) -> None:
    stout, outfit, hair, load = shape
    swing = np.sin(phase)
    girth = 0.15 + 0.08 * stout
    for sign, part in ((-1, 7), (1, 4)):
        stride = sign * swing
        knee = (0.5 + 0.16 * stride, 0.76)
        foot = (0.5 + 0.34 * stride - 0.05 * max(0.0, -stride), 0.975 - 0.05 * max(0.0, stride * np.cos(phase)))
        pen.limb(part, 0.17, (0.5, 0.55), knee, foot)
        pen.limb(5, 0.15, foot, (foot[0] + 0.1, foot[1]))
    hand = (0.5 - 0.36 * swing, 0.54)
    pen.limb(3, 0.13, (0.5, 0.25), (0.5 - 0.24 * swing, 0.40), hand)
    top, bottom = (0.19, 0.58) if outfit < 0.6 else (0.19, 0.72)
    flare = girth + (0.10 if outfit >= 0.6 else 0.0)
    pen.polygon(
        2,
        (0.5 - girth - 0.05, top + 0.03),
        (0.5, top),
        (0.5 + girth + 0.05, top + 0.03),
        (0.5 + flare, bottom),
        (0.5 - flare, bottom),
    )
    pen.limb(3, 0.13, (0.5, 0.25), (0.5 + 0.24 * swing, 0.40), (0.5 + 0.36 * swing, 0.54))
    pen.ellipse(1, (0.52, 0.105), 0.16, 0.085)
    pen.ellipse(6, (0.47, 0.065), 0.17, 0.055 if hair < 0.7 else 0.035)
    if load > 0.6:  # rucksack
        pen.ellipse(7, (0.26, 0.34), 0.13, 0.12)


def _draw_animal(pen: _Pen, shape: tuple[float, float, float, float], phase: float) -> None:
    _, leg, neck, ears = shape
    belly = 0.70 - 0.16 * leg
    head_y = 0.30 - 0.20 * neck
    for index, x in enumerate((0.24, 0.32, 0.64, 0.72)):
        stride = np.sin(phase + (0, np.pi, np.pi * 0.6, np.pi * 1.6)[index])
        part = 4 if index % 2 else 7
        pen.limb(
            part,
            0.075,
            (x, belly - 0.08),
            (x + 0.05 * stride, 0.5 + belly / 2),
            (x + 0.12 * stride, 0.975 - 0.05 * max(0.0, stride)),
        )
    pen.limb(5, 0.045, (0.14, belly - 0.25), (0.05, belly - 0.12 + 0.06 * np.sin(phase)), (0.03, belly + 0.08))
    pen.ellipse(1, (0.47, belly - 0.16), 0.34, 0.19)
    pen.polygon(2, (0.64, belly - 0.28), (0.80, head_y), (0.90, head_y + 0.10), (0.80, belly - 0.06))
    pen.ellipse(3, (0.86, head_y + 0.04), 0.115, 0.115)
    pen.ellipse(6, (0.95, head_y + 0.08), 0.05, 0.065)
    pen.polygon(6, (0.76, head_y), (0.78, head_y - 0.10 - 0.08 * ears), (0.84, head_y - 0.04))


def draw_tree(
    rng: np.random.Generator, colours: Colours, height: int, unit: float
) -> tuple[ByteArray, NDArray[np.bool_]]:
    """A tree as colours `HW3` and mask `HW`; broad-leaved, conifer or tall-stemmed."""
    height = max(height, 8)
    width = max(round(height * rng.uniform(0.5, 0.85)), 6)
    crown: ByteArray = np.zeros((height, width), np.uint8)
    trunk: ByteArray = np.zeros((height, width), np.uint8)
    kind = rng.integers(3)
    middle = width // 2
    stem = max(2, round(height * rng.uniform(0.05, 0.10)))
    cv2.line(trunk, (middle, height // 2), (middle + int(rng.integers(-1, 2)), height), 1, stem)
    if kind == 1:
        for level in range(4):
            half = width * (0.22 + 0.09 * level)
            top, bottom = height * 0.19 * level, height * (0.19 * level + 0.30)
            points = np.array([[middle, top], [middle - half, bottom], [middle + half, bottom]])
            cv2.fillPoly(crown, [points.astype(np.int32)], 1)
    else:
        low = 0.62 if kind == 0 else 0.40
        for _ in range(14):
            x, y = rng.uniform(0.22, 0.78) * width, rng.uniform(0.18, low) * height
            cv2.circle(crown, (int(x), int(y)), max(2, int(width * rng.uniform(0.12, 0.22))), 1, -1)
        for _ in range(10):  # holes through which the background shows
            x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, low + 0.1) * height
            cv2.circle(crown, (int(x), int(y)), max(1, int(width * 0.035)), 0, -1)
    shape = (height, width)
    leaves_HW3 = paint(rng, colours.pick("tree", 3), class_texture(rng, "tree", shape, unit), height / 5, colours.hard)
    leaves_HW3 *= np.linspace(1.2, 0.75, width, dtype=np.float32)[None, :, None]
    bark = (
        colours.pick("tree", 1)[0]
        if colours.hard
        else np.array([95, 70, 50], np.float32) * np.float32(rng.uniform(0.5, 1.5))
    )
    grain_HW = smooth_noise(rng, shape, (9, 1.5))
    bark_HW3 = bark * (1 + 0.35 * grain_HW[..., None])
    colour_HW3 = np.where(crown[..., None] > 0, leaves_HW3, bark_HW3)
    return np.clip(colour_HW3, 0, 255).astype(np.uint8), (crown | trunk) > 0


def draw_building(
    rng: np.random.Generator, colours: Colours, height: int, width: int, unit: float
) -> tuple[ByteArray, NDArray[np.bool_]]:
    """A building with windows, a roof and perhaps a door, as colours `HW3` and mask `HW`."""
    height, width = max(height, 8), max(width, 8)
    shape = (height, width)
    wall_C3, window_C3 = colours.pick("building", 3), colours.pick("building", 3)
    if not colours.hard:
        wall_C3[1:] = wall_C3[0] + rng.normal(0, 10, (2, 3))
        window_C3 *= np.float32(rng.uniform(0.3, 0.6))
    bricks = np.float32(0.10) * np.float32((np.arange(height) % max(2, round(unit / 42)) == 0)[:, None])
    texture_HW = class_texture(rng, "building", shape, unit) - bricks
    colour_HW3 = paint(rng, wall_C3, texture_HW, unit / 6, colours.hard)
    mask = np.ones(shape, np.bool_)
    roof = round(height * rng.uniform(0.05, 0.28))
    if rng.random() < 0.5:  # pitched roof
        slope = np.abs(np.arange(width) - width / 2) / (width / 2)
        mask[:roof] = np.arange(roof)[:, None] >= roof * slope[None] * 0.95
        colour_HW3[:roof] = colours.pick("building", 1)[0] * (
            1 + 0.2 * np.float32(np.arange(roof)[:, None, None] % 3 == 0)
        )
    pitch_y, pitch_x = (max(5.0, unit * rng.uniform(0.07, 0.12)), max(5.0, unit * rng.uniform(0.06, 0.11)))
    fill_y, fill_x = rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.7)
    columns = max(1, int(width / pitch_x))
    offset = (width - columns * pitch_x) / 2
    rows = max(1, int((height - roof - 2) / pitch_y))
    for row in range(rows):
        top = roof + 2 + int(row * pitch_y)
        for column in range(columns):
            left = int(offset + (column + (1 - fill_x) / 2) * pitch_x)
            bottom, right = top + max(2, int(fill_y * pitch_y)), left + max(2, int(fill_x * pitch_x))
            colour_HW3[top:bottom, left:right] = window_C3[0 if rng.random() < 0.7 else int(rng.integers(1, 3))]
    colour_HW3 *= np.linspace(1.06, 0.9, width, dtype=np.float32)[None, :, None]
    return np.clip(colour_HW3, 0, 255).astype(np.uint8), mask
