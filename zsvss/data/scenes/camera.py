"""The camera of a procedural scene: still, panning or swaying, with shake and zoom."""

from __future__ import annotations

import numpy as np

from zsvss.data.scenes.textures import FloatArray


class Camera:
    """A random way of looking at a canvas that is larger than the frame.

    Args:
        rng: Source of randomness.
        height: Height of the frames in pixels.
        width: Width of the frames in pixels.
        num_frames: Length of the video.

    Attributes:
        canvas: Height and width of the ground canvas, the frame with margins for the camera's ways.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int, num_frames: int) -> None:
        self._frame, self._num_frames, unit = (height, width), num_frames, float(min(height, width))
        style = rng.choice(3, p=[0.25, 0.45, 0.30])  # still, pan, sway
        reach = unit * rng.uniform(0.2, 0.6)
        self._pan = (0.0, reach * rng.choice([-1, 1]), 0.0)[style]
        self._sway = (0.0, 0.0, reach)[style]
        self._sway_period = rng.uniform(30, 70)
        self._sway_phase = rng.uniform(0, 2 * np.pi)
        self._shake = unit * rng.choice([0.0, 0.004, 0.010])
        self._shake_phases = rng.uniform(0, 2 * np.pi, 2)
        self._zoom = 1 + rng.choice([0, 1]) * rng.uniform(0.05, 0.35), rng.uniform(40, 110), rng.uniform(0, 2 * np.pi)
        self.margin_x = int(max(abs(self._pan) / 2, self._sway) + unit * 0.05) + 2
        self.margin_y = int(unit * 0.04) + 2
        self.canvas = (height + 2 * self.margin_y, width + 2 * self.margin_x)

    def at(self, index: int) -> tuple[float, float, float]:
        """Offset x, y in canvas pixels from the middle of the canvas, and zoom (at least 1), in a frame."""
        time = index / max(self._num_frames - 1, 1) - 0.5
        x = self._pan * time + self._sway * np.sin(2 * np.pi * index / self._sway_period + self._sway_phase)
        x += self._shake * np.sin(1.3 * index + self._shake_phases[0])
        y = self._shake * np.sin(1.7 * index + self._shake_phases[1])
        most, period, phase = self._zoom
        return float(x), float(y), float(1 + (most - 1) * (0.5 + 0.5 * np.sin(2 * np.pi * index / period + phase)))

    def matrix(self, index: int, parallax: float = 1.0) -> FloatArray:
        """Affine map from a canvas to a frame; `parallax` is how much of the pan the canvas follows."""
        x, y, zoom = self.at(index)
        height, width = self._frame
        shift_x = width / 2 - zoom * (self.canvas[1] / 2 + parallax * x)
        shift_y = height / 2 - zoom * (self.canvas[0] / 2 + y)
        return np.array([[zoom, 0, shift_x], [0, zoom, shift_y]], np.float32)

    def beside(self, index: int, side: float) -> float:
        """Canvas x of what a frame shows at its left border (-1), in its middle (0) or at its right border (1)."""
        x, _, zoom = self.at(index)
        return self.canvas[1] / 2 + x + side * self._frame[1] / 2 / zoom
