"""Videos in which objects enter late, and such in which none does, with the truth of every pixel.

Some are generated scenes, easy and hard ones in turn; the others are DAVIS sequences into which objects of other
sequences come in, cut out by their masks. Every other sequence, by name, is for validation. All have 35 frames of
128x224. Training has scenes of its own, and the sequences of validation, turned and pasted otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from zsvss.data.images import list_images, read_mask, read_rgb
from zsvss.data.scenes import Scene, scene_split

HEIGHT, WIDTH, NUM_FRAMES, CLIP_LENGTH = 128, 224, 35, 14
_NUM_GENERATED, _NUM_QUIET, _LATE_A_SCENE = 20, 8, 4
_FIRST_SEED, _FIRST_QUIET_SEED = 100, 300  # within the split's seeds; no other experiment uses them
_NUM_TO_TRAIN, _NUM_QUIET_TO_TRAIN, _NUM_DAVIS_TO_TRAIN = 472, 8, 48
_NOTHING_PASTED = range(24, 32)  # numbers of DAVIS videos to train on
_FIRST_SEED_TO_TRAIN, _FIRST_QUIET_SEED_TO_TRAIN = 5000, 6000

UInt8 = npt.NDArray[np.uint8]
Split = Literal["train", "val", "test"]


class LateVideo(NamedTuple):
    """A video and what is known of it.

    Attributes:
        name: unique in its split.
        kind: `normal` or `hard` generated scene with late objects, `davis` sequence with pasted ones, `quiet` scene or
            `own` sequence into which nothing comes.
        frames_THW3: uint8 RGB.
        classes_THW: uint8 class of each pixel; of DAVIS 1 for the sequence's own object and 0 elsewhere.
        objects_THW: uint8 number of the object that each pixel shows; 0 for what is none.
    """

    name: str
    kind: str
    frames_THW3: UInt8
    classes_THW: UInt8
    objects_THW: UInt8


class Sequence(NamedTuple):
    """Frames of a DAVIS sequence and where its object is."""

    frames_THW3: UInt8
    inside_THW: npt.NDArray[np.bool_]


def videos(root: Path, split: Split) -> Iterator[LateVideo]:
    """All videos of a split; ``root`` holds `frames/<sequence>/*.jpg` and `masks/<sequence>/*.png` of DAVIS."""
    if split == "train":
        yield from _generated(split, _FIRST_SEED_TO_TRAIN, _NUM_TO_TRAIN)
        yield from _quiet(split, _FIRST_QUIET_SEED_TO_TRAIN, _NUM_QUIET_TO_TRAIN)
        yield from _davis_to_train(root)
    else:
        yield from _generated(split, _FIRST_SEED, _NUM_GENERATED)
        yield from _quiet(split, _FIRST_QUIET_SEED, _NUM_QUIET)
        yield from _davis(root, split)


def _generated(split: Split, first_seed: int, num_scenes: int) -> Iterator[LateVideo]:
    for number in range(num_scenes):
        hard = number % 2 == 1
        scene = _scene(split, first_seed + number, hard, _LATE_A_SCENE)
        yield _rendered(f"generated_{number:02d}", "hard" if hard else "normal", scene)


def _quiet(split: Split, first_seed: int, num_scenes: int) -> Iterator[LateVideo]:
    """The first scenes in which no tree, car, person or animal comes in after the first clip."""
    found = 0
    for seed in itertools.count(first_seed):
        scene = _rendered(f"quiet_{found:02d}", "quiet", _scene(split, seed, found % 2 == 1, 0))
        first = np.unique(scene.objects_THW[:CLIP_LENGTH])
        if np.isin(scene.objects_THW, first).all():
            yield scene
            found += 1
        if found == num_scenes:
            return


def _scene(split: Split, number: int, hard: bool, num_late: int) -> Scene:
    seed = scene_split(split)[number]
    return Scene(seed, num_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH, hard=hard, num_late=num_late)


def _rendered(name: str, kind: str, scene: Scene) -> LateVideo:
    frames, classes = zip(*(scene.render(number) for number in range(scene.num_frames)), strict=True)
    objects = [scene.objects(number) for number in range(scene.num_frames)]
    return LateVideo(name, kind, np.stack(frames), np.stack(classes), np.stack(objects))


def _davis(root: Path, split: Split) -> Iterator[LateVideo]:
    names = sorted(path.name for path in (root / "frames").iterdir())[0 if split == "val" else 1 :: 2]
    sequences = {name: read_sequence(root, name, (HEIGHT, WIDTH)) for name in names}
    number = 0
    for name, ground in sequences.items():
        own = ground.inside_THW.astype(np.uint8)
        yield LateVideo(f"own_{name}", "own", ground.frames_THW3, own, np.zeros_like(own))
        others = [other for other in names if other != name]
        for pair in itertools.combinations(others, 2):
            generator = np.random.default_rng([number, split == "test"])
            frames, objects = ground.frames_THW3.copy(), np.zeros_like(own)
            for value, other in enumerate(pair, 1):
                paste(frames, objects, sequences[other], value, generator)
            yield LateVideo(f"davis_{number:02d}_{name}", "davis", frames, own, objects)
            number += 1


def _davis_to_train(root: Path) -> Iterator[LateVideo]:
    """Sequences of validation, mirrored or played backwards by chance, with objects pasted into all but eight."""
    names = sorted(path.name for path in (root / "frames").iterdir())[::2]
    sequences = {name: read_sequence(root, name, (HEIGHT, WIDTH)) for name in names}
    for number in range(_NUM_DAVIS_TO_TRAIN):
        generator, name = np.random.default_rng([1000 + number]), names[number % len(names)]
        kind = "own" if number in _NOTHING_PASTED else "davis"
        ground = _turned(sequences[name], generator)
        own = ground.inside_THW.astype(np.uint8)
        frames, objects = ground.frames_THW3.copy(), np.zeros_like(own)
        pair = generator.permutation([other for other in names if other != name])[:2] if kind == "davis" else ()
        for value, other in enumerate(pair, 1):
            paste(frames, objects, _turned(sequences[str(other)], generator), value, generator)
        yield LateVideo(f"{kind}_{number:02d}_{name}", kind, frames, own, objects)


def _turned(sequence: Sequence, generator: np.random.Generator) -> Sequence:
    """By chance mirrored, and played backwards."""
    across, in_time = (int(step) for step in generator.choice([-1, 1], 2))
    return Sequence(*(np.ascontiguousarray(values[::in_time, :, ::across]) for values in sequence))


def read_sequence(root: Path, name: str, size: tuple[int, int], num_frames: int = NUM_FRAMES) -> Sequence:
    """The first frames of a DAVIS sequence and its masks, resized to a height and width."""
    images, masks = (list_images(root / kind / name)[:num_frames] for kind in ("frames", "masks"))
    shape = (size[1], size[0])
    frames = [cv2.resize(read_rgb(path), shape, interpolation=cv2.INTER_AREA) for path in images]
    inside = [cv2.resize(read_mask(path), shape, interpolation=cv2.INTER_NEAREST) > 0 for path in masks]
    return Sequence(np.stack(frames).astype(np.uint8), np.stack(inside))


def paste(frames_THW3: UInt8, objects_THW: UInt8, source: Sequence, value: int, generator: np.random.Generator) -> None:
    """Let the object of a sequence come in from a side, in place, and mark its pixels by a value.

    It enters between frames 15 and 20, is 3 to 10 % of the frame large, where it is whole, and has come a quarter to
    six tenths of the frame's width far when the video ends.
    """
    num_frames, height, width = objects_THW.shape
    side, entry = int(generator.choice([-1, 1])), int(generator.integers(15, 21))
    share = generator.uniform(0.03, 0.1)
    ys, xs = np.nonzero(source.inside_THW[0])
    scale = float(np.clip(np.sqrt(share * height * width / len(ys)), 0.3, 1.5))
    start = -scale * (xs.max() - xs.min() + 1) / 2
    down, end = generator.uniform(0.35, 0.75) * height, generator.uniform(0.25, 0.6) * width
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    for number in range(entry, num_frames):
        x = start + (end - start) * (number - entry + 1) / (num_frames - entry)
        x = x if side > 0 else width - x
        move = np.array([[scale, 0, x - scale * xs.mean()], [0, scale, down - scale * ys.mean()]], np.float32)
        mask = source.inside_THW[number - entry].astype(np.float32)
        inside = cv2.warpAffine(mask, move, (width, height), flags=cv2.INTER_LINEAR)
        moved = cv2.warpAffine(
            source.frames_THW3[number - entry], move, (width, height), flags=shrinks, borderMode=cv2.BORDER_REPLICATE
        )
        alpha = inside[..., None]
        frames_THW3[number] = np.round(alpha * moved + (1 - alpha) * frames_THW3[number]).astype(np.uint8)
        objects_THW[number][inside > 0.5] = value
