"""The land of a procedural scene: sky, hills, and a ground of grass, roads and water.

Shape suffixes: H W pixels of the canvas, which is wider and taller than the frame so that the camera can move.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zsvss.data.scenes.textures import ByteArray, Colours, FloatArray, class_texture, paint, smooth_noise

SKY, HILLS, ROAD, GRASS, WATER = range(5)


def sky_canvas(rng: np.random.Generator, colours: Colours, shape: tuple[int, int], unit: float) -> ByteArray:
    """Sky: a vertical gradient of two colours under clouds, `HW3`."""
    top_3, bottom_3, cloud_3 = colours.pick("sky", 3)
    height_H11 = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None]
    base_HW3 = top_3 * (1 - height_H11) + bottom_3 * height_H11
    cloud_HW1 = np.clip(class_texture(rng, "sky", shape, unit) * 2.5, 0, 1)[..., None]
    lit_3 = cloud_3 if colours.hard else np.float32(0.5) * cloud_3 + np.float32(110)
    return np.asarray(np.clip(base_HW3 * (1 - cloud_HW1) + lit_3 * cloud_HW1, 0, 255), np.uint8)


def hills_canvas(
    rng: np.random.Generator, colours: Colours, shape: tuple[int, int], horizon: float, unit: float
) -> tuple[ByteArray, NDArray[np.bool_]]:
    """One to three ridges, as colours `HW3` and mask `HW`."""
    colour_HW3 = np.zeros((*shape, 3), np.float32)
    mask = np.zeros(shape, np.bool_)
    rows_H1 = np.arange(shape[0])[:, None]
    num_ridges = int(rng.integers(1, 4))
    for ridge in range(num_ridges):
        rise = unit * rng.uniform(0.10, 0.32) * (1 - 0.25 * ridge)
        wave_W = smooth_noise(rng, (1, shape[1]), (1, unit * rng.uniform(0.25, 0.6)))[0]
        jag_W = smooth_noise(rng, (1, shape[1]), (1, unit * 0.06))[0]
        crest_W = horizon - rise * (0.65 + 0.5 * wave_W + 0.08 * jag_W)
        inside = rows_H1 >= crest_W[None]
        texture_HW = class_texture(rng, "hills", shape, unit)
        layer_HW3 = paint(rng, colours.pick("hills", 3), texture_HW, unit / 5, colours.hard)
        colour_HW3[inside] = layer_HW3[inside] * np.float32(0.82 + 0.12 * ridge)
        mask |= inside
    return np.clip(colour_HW3, 0, 255).astype(np.uint8), mask


def ground_labels(
    rng: np.random.Generator, shape: tuple[int, int], horizon: float, unit: float, has_road: bool, has_water: bool
) -> tuple[ByteArray, NDArray[np.bool_]]:
    """Where grass, road and water lie.

    Args:
        rng: Source of randomness.
        shape: Size of the canvas.
        horizon: Row of the horizon.
        unit: Shorter side of the frame in pixels.
        has_road: Whether there is a road or square.
        has_water: Whether there is a river, lake or sea.

    Returns:
        Class ids `HW` (meaningful below the horizon) and the road's lane marks `HW`.
    """
    rows_H1, columns_1W = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]
    depth_H1 = np.clip((rows_H1 - horizon) / (shape[0] - horizon), 0, 1)
    wobble_HW = smooth_noise(rng, shape, (unit * 0.15, unit * 0.35))
    labels: ByteArray = np.full(shape, GRASS, np.uint8)
    marks = np.zeros(shape, np.bool_)
    if has_water:
        style = int(rng.integers(3))
        if style == 0:  # far shore of a lake or the sea
            inside = depth_H1 + 0.06 * wobble_HW < rng.uniform(0.2, 0.45)
        elif style == 1:  # river across
            low = rng.uniform(0.05, 0.55)
            inside = np.abs(depth_H1 + 0.10 * wobble_HW - low - 0.15) < rng.uniform(0.10, 0.2)
        else:  # river towards us
            centre = shape[1] * rng.uniform(0.2, 0.8) + rng.uniform(-1, 1) * shape[1] * 0.4 * depth_H1
            inside = np.abs(columns_1W - centre + 0.25 * unit * wobble_HW) < unit * (
                0.06 + rng.uniform(0.2, 0.6) * depth_H1
            )
        labels[np.broadcast_to(inside, shape)] = WATER
    if has_road:
        style = int(rng.choice(3, p=[0.55, 0.3, 0.15]))
        if style == 0:  # street across
            low = rng.uniform(0.15, 0.6)
            half = rng.uniform(0.12, 0.24)
            across_HW = (depth_H1 - low - half + 0.02 * wobble_HW) / half
            dash_1W = (columns_1W / (unit * 0.12)).astype(np.int64) % 2 == 0
        elif style == 1:  # avenue towards the horizon
            centre = shape[1] * rng.uniform(0.3, 0.7) + rng.uniform(-0.5, 0.5) * shape[1] * depth_H1
            across_HW = (columns_1W - centre) / (unit * (0.05 + rng.uniform(0.4, 0.8) * depth_H1))
            dash_1W = (8 * np.sqrt(depth_H1)).astype(np.int64) % 2 == 0
        else:  # square
            across_HW = np.broadcast_to((0.5 - depth_H1 - 0.05 * wobble_HW) * 2, shape)
            dash_1W = np.zeros_like(columns_1W, np.bool_)
        inside = np.abs(across_HW) < 1 if style != 2 else across_HW < 0.7
        labels[inside] = ROAD
        edge = np.abs(np.abs(across_HW) - 0.9) < 0.04
        marks = inside & ((edge & bool(rng.random() < 0.6)) | ((np.abs(across_HW) < 0.05) & dash_1W))
    return labels, marks


def ground_canvas(
    rng: np.random.Generator, colours: Colours, labels_HW: ByteArray, marks_HW: NDArray[np.bool_], unit: float
) -> ByteArray:
    """Colour the ground by its labels, `HW3`."""
    shape = labels_HW.shape[0], labels_HW.shape[1]
    colour_HW3: FloatArray = np.zeros((*shape, 3), np.float32)
    for label, name in ((GRASS, "grass"), (ROAD, "road"), (WATER, "water")):
        inside = labels_HW == label
        if inside.any():
            texture_HW = class_texture(rng, name, shape, unit)
            colour_HW3[inside] = paint(rng, colours.pick(name, 3), texture_HW, unit / 4, colours.hard)[inside]
    paint_3 = colours.pick("road", 1)[0] * 0.5 + 120 if not colours.hard else colours.pick("road", 1)[0]
    colour_HW3[marks_HW & (labels_HW == ROAD)] = paint_3
    return np.clip(colour_HW3, 0, 255).astype(np.uint8)
