"""How many cuts and dissolves between real sequences are found, and how many false alarms there are."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from zsvss.data.images import list_images, read_rgb
from zsvss.data.shots import ShotDetector

Frames = list[npt.NDArray[np.uint8]]
_SIZE = (170, 96)  # what the detector reduces DAVIS's 854x480 to
_LENGTH = 30


def read(folder: Path) -> Frames:
    return [cv2.resize(read_rgb(path), _SIZE, interpolation=cv2.INTER_AREA) for path in list_images(folder)]


def shots_of(frames: Frames) -> list[int]:
    finder = ShotDetector().start()
    return [cut for frame in frames for cut in finder.feed(frame)] + finder.finish()


def dissolved(first: Frames, second: Frames, length: int) -> Frames:
    shares = np.linspace(0, 1, length + 2)[1:-1]
    pairs = zip(first[-length:], second[:length], shares, strict=True)
    mixed = [((1 - share) * a + share * b).astype(np.uint8) for a, b, share in pairs]
    return [*first[:-length], *mixed, *second[length:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    videos = {path.name: read(path) for path in sorted(parser.parse_args().folder.iterdir()) if path.is_dir()}
    generator = np.random.default_rng(0)
    cuts = dissolves = others = pairs = 0
    for first, second in itertools.permutations(videos.values(), 2):
        pairs += 1
        found = shots_of(first[:_LENGTH] + second[:_LENGTH])
        cuts += _LENGTH in found
        others += len(set(found) - {_LENGTH})
        length = int(generator.integers(8, 25))
        found = shots_of(dissolved(first[:_LENGTH], second[:_LENGTH], length) + second[_LENGTH : _LENGTH + 10])
        dissolves += any(_LENGTH - length - 2 <= cut <= _LENGTH + 2 for cut in found)
    false = {name: found for name, frames in videos.items() if (found := shots_of(frames))}
    num_frames = sum(map(len, videos.values()))
    print(f"{pairs} pairs: {cuts} cuts and {dissolves} dissolves found, {others} cuts elsewhere")
    print(f"{num_frames} uncut frames: {sum(map(len, false.values()))} false alarms {false or ''}")


if __name__ == "__main__":
    main()
