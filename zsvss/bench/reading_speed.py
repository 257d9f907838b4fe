"""``zsvss.run bench --data-only``: how fast frames and masks come from disk, beside plain Pillow and OpenCV loops.

All of them also resize the frames to the network's input.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from zsvss.backbones.input_size import NetworkSize
from zsvss.commands.allocator import keep_freed_memory
from zsvss.data.reader import Decoder, has_decord
from zsvss.data.scenes import Scene, scene_split
from zsvss.data.video import FileVideo
from zsvss.data.vspw import VSPW

_RENDERED = 2  # rendering takes longer than all measurements


class Measurement(NamedTuple):
    """Speed of one way of reading.

    Attributes:
        name: what was measured.
        frames_per_second: by the wall clock, median over the repeats.
        frames_per_cpu_second: by the processor time of all processes, median over the repeats.
        checksum: sum of all pixels and mask values.
    """

    name: str
    frames_per_second: float
    frames_per_cpu_second: float
    checksum: int


def run(options: argparse.Namespace) -> int:
    """Measure and print the table; returns the exit code."""
    keep_freed_memory()  # as runs on a CPU do
    with tempfile.TemporaryDirectory(prefix="zsvss-bench-") as scratch:
        root = options.root or Path(scratch)
        if options.root is None:
            write_videos(root, options.num_videos, options.num_frames, (options.size[0], options.size[1]))
        try:
            input_size = (options.input_size[0], options.input_size[1])
            measurements = measure(root, options.num_videos, options.num_frames, options.repeats, input_size)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    Console().print(table(measurements))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in measurements], indent=2) + "\n")
    return 0


def measure(
    root: Path, num_videos: int, num_frames: int, repeats: int, input_size: tuple[int, int]
) -> list[Measurement]:
    """Read the videos of VSPW's val split in every way; all ways read them once before, so that the cache is warm."""

    def data(num_workers: int, decoder: Decoder) -> VSPW:
        chosen = VSPW(root, num_workers=num_workers, decoder=decoder, limit_videos=num_videos, limit_frames=num_frames)
        chosen.network_size = NetworkSize(input_size, multiple=1, padding=0)
        return chosen

    def load(num_workers: int, decoder: Decoder) -> tuple[int, int]:
        return _load(data(num_workers, decoder))

    videos = [video for video in data(0, "auto").videos() if isinstance(video, FileVideo)]
    files: list[tuple[Path, Path]] = []
    for video in videos:
        assert isinstance(video.frames, tuple)
        pairs = zip(video.frames[: video.num_frames], video.labels or (), strict=False)
        files += [(frame, mask) for frame, mask in pairs if mask is not None]
    ways: dict[str, Callable[[], tuple[int, int]]] = {
        "Pillow, plain loop": lambda: _loop(files, partial(_read_pillow, input_size)),
        "OpenCV, plain loop": lambda: _loop(files, partial(_read_opencv, input_size)),
    }
    decoders: tuple[Decoder, ...] = ("decord", "pillow") if has_decord() else ("pillow",)
    for decoder in decoders:
        for num_workers in (0, 1, 2):
            workers = f"{num_workers} worker{'s' * (num_workers != 1)}" if num_workers else "no worker"
            ways[f"ClipLoader, {decoder}, {workers}"] = partial(load, num_workers, decoder)
    cv2.setNumThreads(1)
    return [_measured(name, way, repeats) for name, way in ways.items()]


def table(measurements: Sequence[Measurement]) -> Table:
    """The measurements as a table."""
    rows = Table(title=f"Frames with their masks, {os.cpu_count()} cores", title_justify="left")
    rows.add_column("reader")
    for name in ("frames/s", "frames/s a core"):
        rows.add_column(name, justify="right")
    for row in measurements:
        rows.add_row(row.name, f"{row.frames_per_second:.1f}", f"{row.frames_per_cpu_second:.1f}")
    return rows


def write_videos(root: Path, num_videos: int, num_frames: int, size: tuple[int, int]) -> None:
    """Generated videos in VSPW's layout: JPEGs of quality 90 and masks; from the third on, the first ones again."""
    names = [f"video_{number:03d}" for number in range(num_videos)]
    for number, name in enumerate(names[_RENDERED:]):
        (root / "data").mkdir(exist_ok=True)
        (root / "data" / name).symlink_to(names[number % _RENDERED])
    for name, seed in zip(names[:_RENDERED], scene_split("test"), strict=False):
        scene = Scene(seed, num_frames=num_frames, height=size[0], width=size[1])
        for kind in ("origin", "mask"):
            (root / "data" / name / kind).mkdir(parents=True)
        for number in range(num_frames):
            image_HW3, class_HW = scene.render(number)
            Image.fromarray(image_HW3).save(root / "data" / name / "origin" / f"{number:08d}.jpg", quality=90)
            Image.fromarray(class_HW + np.uint8(1)).save(root / "data" / name / "mask" / f"{number:08d}.png")
    (root / "val.txt").write_text("".join(f"{name}\n" for name in names))


def _measured(name: str, way: Callable[[], tuple[int, int]], repeats: int) -> Measurement:
    way()
    speeds, cpu_speeds, checksum = [], [], 0
    for _ in range(repeats):
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        num_frames, checksum = way()
        speeds.append(num_frames / (time.perf_counter() - start))
        cpu_speeds.append(num_frames / (_cpu_seconds() - cpu_start))
    return Measurement(name, statistics.median(speeds), statistics.median(cpu_speeds), checksum)


def _load(data: VSPW) -> tuple[int, int]:
    num_frames = checksum = 0
    for clip in data.test_dataloader():
        num_frames += clip.num_final
        assert clip.labels_THW is not None
        checksum += _checksum(clip.frames_THW3[: clip.num_final].numpy(), clip.labels_THW[: clip.num_final].numpy())
    return num_frames, checksum


def _loop(files: Sequence[tuple[Path, Path]], read: Callable[[Path, Path], tuple[Any, Any, Any]]) -> tuple[int, int]:
    checksum = 0
    for frame, mask in files:
        frame_HW3, _, labels_HW = read(frame, mask)
        checksum += _checksum(frame_HW3, labels_HW)
    return len(files), checksum


def _checksum(frames: Any, labels: Any) -> int:
    """Touch what was read, cheaply: every 16th row."""
    return int(frames[..., ::16, :, :].sum(dtype=np.int64) + labels[..., ::16, :].sum(dtype=np.int64))


def _read_pillow(input_size: tuple[int, int], frame: Path, mask: Path) -> tuple[Any, Any, Any]:
    with Image.open(frame) as image, Image.open(mask) as labels:
        frame_HW3 = image.convert("RGB")
        resized_HW3 = np.asarray(frame_HW3.resize(input_size[::-1], Image.Resampling.BICUBIC))
        return np.asarray(frame_HW3), resized_HW3, np.asarray(labels)


def _read_opencv(input_size: tuple[int, int], frame: Path, mask: Path) -> tuple[Any, Any, Any]:
    frame_HW3 = cv2.cvtColor(cv2.imread(str(frame)), cv2.COLOR_BGR2RGB)
    resized_HW3 = cv2.resize(frame_HW3, input_size[::-1], interpolation=cv2.INTER_CUBIC)  # without antialiasing
    with Image.open(mask) as labels:  # OpenCV's libpng fails in a process that has loaded another zlib
        return frame_HW3, resized_HW3, np.asarray(labels)


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
