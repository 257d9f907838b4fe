"""Write generated videos in the on-disk layout of a benchmark, to try its datamodule without the benchmark.

Usage::

    python experiments/procedural/export.py --layout vspw --root data/procedural_vspw --num-videos 7 --num-frames 40 27
    python -m zsvss.run test --config vspw_embedded.yaml --data.root data/procedural_vspw
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from zsvss.data.camvid import CAMVID_32
from zsvss.data.cityscapes import LABELLED_FRAME, SNIPPET_LENGTH
from zsvss.data.images import ByteArray
from zsvss.data.scenes import CLASSES, Scene, scene_split
from zsvss.data.vspw import VSPW_SHIFTED

# What each generated class is called in a benchmark; None where it has no such class.
VSPW_CLASS = dict(zip(CLASSES, CLASSES, strict=True)) | {"hills": "mountain", "animal": "other_animal"}
CITYSCAPES_ID = {
    "sky": 23, "hills": 22, "road": 7, "grass": 22, "water": 0, "building": 11, "tree": 21, "car": 26, "person": 24,
    "animal": 5,
}  # fmt: skip
CAMVID_11_ID = {"sky": 0, "building": 1, "road": 3, "tree": 5, "car": 8, "person": 9}
CAMVID_32_CLASS = {
    "sky": "Sky", "hills": "VegetationMisc", "road": "Road", "grass": "VegetationMisc", "building": "Building",
    "tree": "Tree", "car": "Car", "person": "Pedestrian", "animal": "Animal",
}  # fmt: skip
CAMVID_11_UNLABELLED = 11


class Frame(NamedTuple):
    """A frame of a generated video, and the classes of its pixels."""

    video: int
    number: int
    image_HW3: ByteArray
    class_HW: ByteArray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", required=True, choices=sorted(LAYOUTS))
    parser.add_argument("--root", required=True, type=Path, help="folder to write into")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"], help="of the generated scenes")
    parser.add_argument("--num-videos", type=int, default=7)
    parser.add_argument("--num-frames", type=int, nargs="+", default=[42], help="in turn, if several are given")
    parser.add_argument("--size", type=int, nargs=2, default=[128, 224], metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    num_frames = list(islice(cycle(options.num_frames), options.num_videos))
    export(options.layout, options.root, num_frames, tuple(options.size), options.split)
    print(f"{options.num_videos} videos, {sum(num_frames)} frames in {options.root}")


def export(layout: str, root: Path, num_frames: list[int], size: tuple[int, int], split: str = "test") -> None:
    """Write one video for each entry of ``num_frames``, as the benchmark's val split."""
    LAYOUTS[layout](root, render(num_frames, size, split))


def render(num_frames: list[int], size: tuple[int, int], split: str) -> Iterator[Frame]:
    """All frames of the videos."""
    for video, (seed, length) in enumerate(zip(scene_split(split), num_frames, strict=False)):
        scene = Scene(seed, num_frames=length, height=size[0], width=size[1], hard=seed % 2 == 1)
        for number in range(length):
            yield Frame(video, number, *scene.render(number))


def export_vspw(root: Path, frames: Iterator[Frame]) -> None:
    """``data/<video>/{origin,mask}``; frame numbers do not start at 0, as in VSPW."""
    classes = VSPW_SHIFTED.classes
    raw = lookup(lambda name: classes.index(VSPW_CLASS[name]) + 1)
    names = []
    for frame in frames:
        name, number = f"video_{frame.video:03d}", f"{frame.number + 101:08d}"
        save(root / "data" / name / "origin" / f"{number}.jpg", frame.image_HW3, quality=95)
        save(root / "data" / name / "mask" / f"{number}.png", raw[frame.class_HW])
        names += [name] if frame.number == 0 else []
    (root / "val.txt").write_text("".join(f"{name}\n" for name in names))


def export_cityscapes(root: Path, frames: Iterator[Frame]) -> None:
    """Snippets of 30 frames, the 20th labelled; longer videos are cut, shorter ones refused."""
    raw = lookup(CITYSCAPES_ID.__getitem__)
    lengths: dict[int, int] = {}
    for frame in frames:
        lengths[frame.video] = frame.number + 1
        if frame.number >= SNIPPET_LENGTH:
            continue
        stem = f"generated_{frame.video:06d}_{frame.number:06d}"
        folder = Path("val") / "generated"
        save(root / "leftImg8bit_sequence" / folder / f"{stem}_leftImg8bit.png", frame.image_HW3)
        if frame.number == LABELLED_FRAME:
            save(root / "gtFine" / folder / f"{stem}_gtFine_labelIds.png", raw[frame.class_HW])
    short = {video: length for video, length in lengths.items() if length < SNIPPET_LENGTH}
    if short:
        raise SystemExit(f"a Cityscapes snippet has {SNIPPET_LENGTH} frames; --num-frames gives {min(short.values())}")


def export_camvid(root: Path, frames: Iterator[Frame]) -> None:
    """Both releases: 11 classes as split ``val``, 32 colours as split ``all``."""
    raw = lookup(lambda name: CAMVID_11_ID.get(name, CAMVID_11_UNLABELLED))
    colours = dict(zip(CAMVID_32.classes, CAMVID_32.palette, strict=True))
    rgb = np.array([colours.get(CAMVID_32_CLASS.get(name, "Void"), (0, 0, 0)) for name in CLASSES], np.uint8)
    for frame in frames:
        stem = f"G{frame.video:03d}_{frame.number:05d}"
        save(root / "val" / f"{stem}.png", frame.image_HW3)
        save(root / "valannot" / f"{stem}.png", raw[frame.class_HW])
        save(root / "701_StillsRaw_full" / f"{stem}.png", frame.image_HW3)
        save(root / "LabeledApproved_full" / f"{stem}_L.png", rgb[frame.class_HW])


def lookup(raw_of: Callable[[str], int]) -> ByteArray:
    """Raw value of each generated class."""
    return np.array([raw_of(name) for name in CLASSES], np.uint8)


def save(path: Path, pixels: ByteArray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


LAYOUTS = {"vspw": export_vspw, "cityscapes": export_cityscapes, "camvid": export_camvid}


if __name__ == "__main__":
    main()
