"""Deterministic procedural videos with exact class labels.

A `Scene` is one video of a landscape or street with moving figures, drawn with NumPy and OpenCV from a seed. Any frame
can be rendered at any time. Half of the scenes used in training and evaluation are `hard`: all their classes draw from
one shared palette with multi-coloured textures and cast shadows, so that colour alone does not tell classes apart.

Shape suffixes: H W pixels of the frame (or of a canvas, where said), 3 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zsvss.data.scenes import ground
from zsvss.data.scenes.camera import Camera
from zsvss.data.scenes.figures import Figure, draw_building, draw_tree, make_figure
from zsvss.data.scenes.pasting import cast_shadow, cast_silhouette, paste
from zsvss.data.scenes.textures import ByteArray, Colours, FloatArray, smooth_noise

CLASSES: tuple[str, ...] = ("sky", "hills", "road", "grass", "water", "building", "tree", "car", "person", "animal")
PALETTE: tuple[tuple[int, int, int], ...] = (
    (135, 190, 235),
    (140, 110, 85),
    (128, 64, 128),
    (120, 190, 80),
    (30, 100, 190),
    (190, 180, 170),
    (20, 100, 40),
    (220, 60, 50),
    (250, 200, 60),
    (240, 130, 200),
)
MOST_LATE = 200  # with classes and a scene's own trees and figures as many as a byte can number

_BUILDING, _TREE, _CAR, _PERSON, _ANIMAL = range(5, 10)
_FIGURE_LABELS = {"car": _CAR, "person": _PERSON, "animal": _ANIMAL}
# Height of a figure at the front of the scene, in units of the frame's shorter side, and speed in units a frame.
_FIGURE_HEIGHTS = {"car": (0.20, 0.36), "person": (0.34, 0.62), "animal": (0.22, 0.42)}
_FIGURE_SPEEDS = {"car": (0.004, 0.035), "person": (0.004, 0.012), "animal": (0.004, 0.018)}
_FIGURE_SURFACES = {"car": (ground.ROAD,), "person": (ground.ROAD, ground.GRASS), "animal": (ground.GRASS, ground.ROAD)}


@dataclass(frozen=True)
class _Layer:
    """A canvas behind the figures; `parallax` is how much of the camera's pan it follows."""

    colours: ByteArray  # HW3
    labels: ByteArray  # HW, 255 where empty
    parallax: float


@dataclass(frozen=True)
class _Sprite:
    """A tree or figure that stands on the ground: feet at (`x`, `y`) of the ground canvas, `height` pixels tall."""

    x: float
    y: float
    height: float
    label: int
    figure: Figure | None = None
    picture: tuple[ByteArray, NDArray[np.bool_]] | None = None
    speed: float = 0.0  # pixels a frame, signed
    rest: float = 0.0  # fraction of time that it stands still
    entry: int = 0  # first frame that may show it or its shadow


class Scene:
    """One procedural video.

    Args:
        seed: Determines everything, together with `hard` and the sizes.
        num_frames: Length of the video; objects that enter late do so within it.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        hard: Draw all classes from one palette, with patchy textures and cast shadows.
        num_late: Cars, people and animals that come in beside those of the scene, between two fifths and three fifths
            of the video, at most `MOST_LATE`; everything else stays as it is without them.

    Raises:
        ValueError: If a size is too small to hold a scene, or `num_late` is out of range.
    """

    def __init__(
        self,
        seed: int,
        *,
        num_frames: int = 42,
        height: int = 128,
        width: int = 224,
        hard: bool = False,
        num_late: int = 0,
    ) -> None:
        if num_frames < 1 or min(height, width) < 32:
            raise ValueError(
                f"a scene needs 1 frame or more of 32 pixels or more a side, got {num_frames=} {height=} {width=}"
            )
        if not 0 <= num_late <= MOST_LATE:
            raise ValueError(f"a scene can have 0 to {MOST_LATE} late figures, got {num_late=}")
        self.seed, self.num_frames, self.height, self.width, self.hard = seed, num_frames, height, width, hard
        self._rng = np.random.default_rng([seed, int(hard)])
        self._unit = float(min(height, width))
        self._colours = Colours(self._rng, hard)
        self._camera = Camera(self._rng, height, width, num_frames)
        self._shape = self._camera.canvas
        self._horizon = self._camera.margin_y + height * self._rng.uniform(0.28, 0.52)
        self._place_land()
        self._sprites: list[_Sprite] = []
        self._place_trees()
        self._place_figures()
        self._plan_light()
        self._place_late_figures(num_late)
        # Layers are drawn with class ids, sprites with numbers of their own behind them.
        self._class_of_id = np.array([*range(len(CLASSES)), *(sprite.label for sprite in self._sprites)], np.uint8)

    def render(self, index: int) -> tuple[ByteArray, ByteArray]:
        """Draw one frame.

        Args:
            index: Frame number, 0 to `num_frames` - 1.

        Returns:
            The image, uint8 RGB `HW3`, and the class ids, uint8 `HW`, indices into `CLASSES`.

        Raises:
            IndexError: If `index` is outside the video.
        """
        image_HW3, ids_HW = self._draw(index)
        return self._expose(index, image_HW3), self._class_of_id[ids_HW]

    def objects(self, index: int) -> ByteArray:
        """Which tree, car, person or animal each pixel shows, so that its first frame tells when it enters.

        Returns:
            uint8 `HW`: 0 for what is none of them, else a number from 1 that an object has in every frame.
        """
        ids_HW = self._draw(index)[1]
        objects_HW: ByteArray = np.where(ids_HW < len(CLASSES), np.uint8(0), ids_HW - np.uint8(len(CLASSES) - 1))
        return objects_HW

    # ---- planning, once a scene

    def _place_land(self) -> None:
        rng, shape, unit, horizon = self._rng, self._shape, self._unit, self._horizon
        empty = np.uint8(255)
        self._layers = [_Layer(ground.sky_canvas(rng, self._colours, shape, unit), np.zeros(shape, np.uint8), 0.15)]
        if rng.random() < 0.6:
            colour_HW3, mask_HW = ground.hills_canvas(rng, self._colours, shape, horizon, unit)
            self._layers.append(_Layer(colour_HW3, np.where(mask_HW, np.uint8(ground.HILLS), empty), 0.4))
        self._has_road, has_water, has_buildings = rng.random() < 0.75, rng.random() < 0.4, rng.random() < 0.65
        labels_HW, marks_HW = ground.ground_labels(rng, shape, horizon, unit, self._has_road, has_water)
        colour_HW3 = ground.ground_canvas(rng, self._colours, labels_HW, marks_HW, unit)
        labels_HW[
            np.arange(shape[0])[:, None] < horizon + 0.015 * unit * smooth_noise(rng, (1, shape[1]), (1, unit * 0.3))
        ] = empty
        if has_buildings:
            self._place_buildings(colour_HW3, labels_HW)
        self._layers.append(_Layer(colour_HW3, labels_HW, 1.0))

    def _place_buildings(self, colour_HW3: ByteArray, labels_HW: ByteArray) -> None:
        rng, unit = self._rng, self._unit
        x, stop = rng.uniform(-0.2, 0.6) * unit, self._shape[1] * rng.uniform(0.6, 1.05)
        foot = int(self._horizon + rng.uniform(0.01, 0.10) * unit)
        gap = rng.choice([0.0, 0.02, 0.3])
        while x < stop:
            tall, wide = int(unit * rng.uniform(0.18, 0.62)), int(unit * rng.uniform(0.2, 0.55))
            picture_hw3, mask_hw = draw_building(rng, self._colours, tall, wide, unit)
            if self.hard:
                cast_shadow(colour_HW3, int(x), foot, wide, int(0.14 * unit))
            paste(colour_HW3, labels_HW, picture_hw3, mask_hw, int(x), foot - picture_hw3.shape[0], _BUILDING)
            x += wide + gap * unit * rng.uniform(0.2, 2)

    def _place_trees(self) -> None:
        rng, unit = self._rng, self._unit
        num_trees = int(rng.choice([0, 2, 4, 7], p=[0.2, 0.25, 0.35, 0.2]))
        labels_HW = self._layers[-1].labels
        for _ in range(num_trees):
            depth = float(rng.beta(0.8, 1.6))
            y, x = (
                self._horizon + (self._shape[0] - self._horizon) * (0.04 + 0.9 * depth),
                rng.uniform(0, self._shape[1]),
            )
            if labels_HW[min(int(y), self._shape[0] - 1), int(x)] not in (ground.GRASS, ground.ROAD):
                continue
            tall = unit * (0.22 + 0.55 * depth) * rng.uniform(0.8, 1.3)
            picture = draw_tree(rng, self._colours, int(tall), unit)
            self._sprites.append(_Sprite(x, y, tall, _TREE, picture=picture))

    def _place_figures(self) -> None:
        rng = self._rng
        kinds = [kind for kind in _FIGURE_LABELS if rng.random() < (0.62 if kind != "car" or self._has_road else 0.15)]
        if not kinds:
            kinds = [str(rng.choice(["person", "animal"]))]
        for kind in kinds:
            late = rng.random() < 0.35
            for _ in range(int(rng.integers(1, 4))):
                self._place_figure(kind, late)
        self._sprites.sort(key=lambda sprite: sprite.y)

    def _place_figure(self, kind: str, late: bool) -> None:
        rng, unit = self._rng, self._unit
        labels_HW = self._layers[-1].labels
        for _ in range(12):
            depth, x = rng.uniform(0.12, 0.92), rng.uniform(0.05, 0.95) * self._shape[1]
            y = self._horizon + (self._shape[0] - self._horizon) * depth
            if labels_HW[int(y), int(x)] in _FIGURE_SURFACES[kind]:
                break
        tall = unit * rng.uniform(*_FIGURE_HEIGHTS[kind]) * (0.45 + 0.75 * depth)
        speed = unit * rng.uniform(*_FIGURE_SPEEDS[kind]) * rng.choice([-1, 1])
        rest = float(rng.choice([0.0, 0.5, 1.0], p=[0.7, 0.15, 0.15]))
        if late:  # outside the view until it enters
            entry, rest = int(self.num_frames * rng.uniform(0.3, 0.65)), 0.0
            speed = max(abs(speed), unit * 0.008) * np.sign(speed)
            pan, _, zoom = self._camera.at(entry)
            edge = self._shape[1] / 2 + pan - np.sign(speed) * (self.width / 2 / zoom + 1.2 * tall)
            x = edge - speed * entry
        figure = make_figure(rng, kind, self._colours)
        self._sprites.append(
            _Sprite(float(x), y, tall, _FIGURE_LABELS[kind], figure=figure, speed=float(speed), rest=rest)
        )

    def _plan_light(self) -> None:
        rng = self._rng
        self._light = (rng.uniform(0.05, 0.3), rng.uniform(25, 90), rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.3))
        self._tint_3 = rng.uniform(-0.10, 0.10, 3)
        self._noise = rng.uniform(2, 9)
        self._noise_bank = np.clip(
            rng.standard_normal((self.height + 32, self.width + 32, 3), np.float32) * self._noise, -40, 40
        )
        self._noise_bank = self._noise_bank.astype(np.int16)
        self._ripple_HW = (
            smooth_noise(rng, (self.height, self.width * 2), (2.5 * self._unit / 128, 16 * self._unit / 128)) * 26
        ).astype(np.int16)
        cell = self._unit * 0.5
        self._clouds_HW: FloatArray | None = None
        if self.hard:
            cover_HW = smooth_noise(rng, (self.height, self.width * 2), (cell, cell * 1.5))
            self._clouds_HW = (0.62 + 0.38 * (np.clip(cover_HW * 3 + 0.8, 0, 1))).astype(np.float32)

    def _place_late_figures(self, num_late: int) -> None:
        """Figures whose way leads from beyond a side, at their entry, to a place in view at the end.

        Before their entry they are not drawn: a camera that pans or sways would show some of them, and the shadow of
        others.
        """
        rng, unit, last = self._rng, self._unit, self.num_frames - 1
        for _ in range(num_late):
            kind = str(rng.choice(["car", "person", "animal"]))
            depth, side, inside = rng.uniform(0.55, 0.95), rng.choice([-1, 1]), rng.uniform(0.2, 0.6)
            y = self._horizon + (self._shape[0] - self._horizon) * depth
            tall = unit * rng.uniform(*_FIGURE_HEIGHTS[kind]) * (0.45 + 0.75 * depth)
            figure, entry = make_figure(rng, kind, self._colours), int(self.num_frames * rng.uniform(0.4, 0.6))
            from_x = self._camera.beside(entry, side) + side * tall * figure.aspect / 2
            speed = (self._camera.beside(last, side * (1 - 2 * inside)) - from_x) / max(last - entry, 1)
            x, label = from_x - speed * entry, _FIGURE_LABELS[kind]
            self._sprites.append(_Sprite(x, y, tall, label, figure=figure, speed=speed, entry=entry))
        self._sprites.sort(key=lambda sprite: sprite.y)

    # ---- drawing, once a frame

    def _draw(self, index: int) -> tuple[ByteArray, ByteArray]:
        """Image before exposure `HW3`, and ids `HW`: those of classes, or behind them the number of the sprite."""
        if not 0 <= index < self.num_frames:
            raise IndexError(f"frame {index} of a scene of {self.num_frames} frames")
        image_HW3 = np.zeros((self.height, self.width, 3), np.uint8)
        ids_HW = np.zeros((self.height, self.width), np.uint8)
        for layer in self._layers:
            self._draw_layer(layer, index, image_HW3, ids_HW)
        self._ripple(index, image_HW3, ids_HW)
        for number, sprite in enumerate(self._sprites, len(CLASSES)):
            self._draw_sprite(sprite, number, index, image_HW3, ids_HW)
        return image_HW3, ids_HW

    def _draw_layer(self, layer: _Layer, index: int, image_HW3: ByteArray, labels_HW: ByteArray) -> None:
        matrix, size = self._camera.matrix(index, layer.parallax), (self.width, self.height)
        border = cv2.BORDER_REPLICATE
        colour_HW3 = cv2.warpAffine(layer.colours, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
        new_HW = cv2.warpAffine(layer.labels, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
        mask_HW = cv2.compare(new_HW, 255, cv2.CMP_NE)
        cv2.copyTo(colour_HW3, mask_HW, image_HW3)
        cv2.copyTo(new_HW, mask_HW, labels_HW)

    def _ripple(self, index: int, image_HW3: ByteArray, labels_HW: ByteArray) -> None:
        water_HW = labels_HW == ground.WATER
        if water_HW.any():
            offset = (3 * index) % self.width
            waves_HW = self._ripple_HW[:, offset : offset + self.width]
            image_HW3[water_HW] = np.clip(image_HW3[water_HW] + waves_HW[water_HW][:, None], 0, 255)

    def _position(self, sprite: _Sprite, index: int) -> float:
        """Canvas x of a sprite's feet; a figure that has left on one side comes back on the other in a long video."""
        moving = index * sprite.speed * (1 - sprite.rest)
        if sprite.speed == 0:
            return sprite.x
        span = self._shape[1] * 2.4 + abs(sprite.speed) * self.num_frames * 0.7
        start = self._shape[1] / 2 - span / 2
        return float((sprite.x + moving - start) % span + start)

    def _draw_sprite(self, sprite: _Sprite, number: int, index: int, image_HW3: ByteArray, ids_HW: ByteArray) -> None:
        if index < sprite.entry:
            return
        matrix = self._camera.matrix(index)
        zoom = float(matrix[0, 0])
        x = zoom * self._position(sprite, index) + float(matrix[0, 2])
        y = zoom * sprite.y + float(matrix[1, 2])
        tall = round(sprite.height * zoom)
        if x < -1.5 * tall or x > self.width + 1.5 * tall:
            return
        if sprite.figure is not None:
            moves = sprite.rest < 1
            stride = abs(sprite.speed) * (1 - sprite.rest) / sprite.height
            phase = index * (2.2 * stride * (3 if sprite.label != _CAR else 4)) if moves else 0.4
            picture_hw3, parts_hw = sprite.figure.draw(tall, phase, sprite.speed < 0)
            mask_hw = parts_hw > 0
        else:
            assert sprite.picture is not None
            source_hw3, source_mask_hw = sprite.picture
            size = (max(1, round(source_hw3.shape[1] * zoom)), max(1, round(source_hw3.shape[0] * zoom)))
            picture_hw3 = cv2.resize(source_hw3, size, interpolation=cv2.INTER_LINEAR)
            mask_hw = cv2.resize(source_mask_hw.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        left, top = round(x - picture_hw3.shape[1] / 2), round(y) - picture_hw3.shape[0]
        if self.hard:
            cast_silhouette(image_HW3, mask_hw, left, round(y))
        paste(image_HW3, ids_HW, picture_hw3, mask_hw, left, top, number)

    def _expose(self, index: int, image_HW3: ByteArray) -> ByteArray:
        """Drifting light, cloud shadows, lens blur and sensor noise."""
        depth, period, phase, level = self._light
        swing = np.sin(2 * np.pi * index / period + phase)
        gain_3 = level * (1 + depth * swing) * (1 + self._tint_3 * swing)
        table = np.clip(np.arange(256)[:, None] * gain_3, 0, 255)
        table = np.where(table > 200, 200 + (table - 200) * 0.6, table).astype(np.uint8)
        lit_HW3 = cv2.LUT(image_HW3, table.reshape(1, 256, 3))
        if self._clouds_HW is not None:
            offset = (2 * index) % self.width
            cover_HW = self._clouds_HW[:, offset : offset + self.width]
            lit_HW3 = cv2.multiply(lit_HW3, cv2.merge([cover_HW] * 3), dtype=cv2.CV_8U)
        soft_HW3 = cv2.GaussianBlur(lit_HW3, (3, 3), 0.55)
        row, column = np.random.default_rng([self.seed, index, 7]).integers(0, 32, 2)
        grain_HW3 = self._noise_bank[row : row + self.height, column : column + self.width]
        return np.asarray(cv2.add(soft_HW3, np.ascontiguousarray(grain_HW3), dtype=cv2.CV_8U))
