"""A long video of small frames: discs that move over coloured ground, in shots of 60 to 140 frames that come back."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

_SIZE = (64, 96)
_NUM_SCENES, _PERIOD = 40, 20


def scene(seed: int) -> list[npt.NDArray[np.uint8]]:
    """One period of a scene."""
    generator = np.random.default_rng(seed)
    ground, disc = generator.integers(0, 256, 3), generator.integers(0, 256, 3)
    ground[seed % 3], disc[seed % 3] = 220, 20
    grid = np.stack(np.mgrid[: _SIZE[0], : _SIZE[1]], -1)
    is_disc = [np.square(grid - (32, 20 + 2 * number)).sum(-1) < 18**2 for number in range(_PERIOD)]
    return [np.where(inside[..., None], disc, ground).astype(np.uint8) for inside in is_disc]


def write(path: Path, num_frames: int) -> None:
    scenes = [scene(seed) for seed in range(_NUM_SCENES)]
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "18", "g": "50"})
        stream.height, stream.width = _SIZE
        stream.pix_fmt = "yuv420p"
        written = 0
        while written < num_frames:
            length = min(int(generator.integers(60, 140)), num_frames - written)
            frames = scenes[int(generator.integers(_NUM_SCENES))]
            there_and_back = frames + frames[::-1]
            for number in range(length):
                image = there_and_back[number % len(there_and_back)]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            written += length
        container.mux(stream.encode(None))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--frames", type=int, default=20_000)
    arguments = parser.parse_args()
    write(arguments.path, arguments.frames)
