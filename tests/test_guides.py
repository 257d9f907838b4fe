"""The guides of `docs/` are followed to the letter: what they say to write is written, what they say to run is run.

A code block belongs to the file that the line before it names last, in backticks, ahead of a colon; without one, a
Python block is a script. Lines `+` of a diff go after its other line.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from warm_python import Start, WarmPython

from zsvss.data.scenes import Scene, scene_split
from zsvss.viz.browser_video import BrowserVideo

ROOT = Path(__file__).parent.parent
# The commands of a guide are for real videos; here they see small ones.
SMALL = "--model.input_size [64,128]"
FEW_CLUSTERS = "--model.context.num_clusters 3 --model.context.num_restarts 1"
DEMO = "--data.num_videos 1 --data.num_frames 4"


class Block(NamedTuple):
    language: str
    place: str | None
    text: str


def blocks(guide: str) -> list[Block]:
    text = (ROOT / "docs" / f"{guide}.md").read_text()
    found = re.findall(r"([^\n]*)\n\n```(\w+)\n(.*?)```", text, re.DOTALL)
    places = [re.findall(r"`([\w/.]+\.py)`:$", before) for before, _, _ in found]
    return [Block(language, (p or [None])[-1], code) for (_, language, code), p in zip(found, places, strict=True)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the guides change and run."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("zsvss", "tests", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored, copy_function=os.link)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    """Starts Python without this repository's package: the guides change a copy of it."""
    python = WarmPython(package=False)
    yield python
    python.close()


def follow(guide: str, folder: Path, python: WarmPython) -> str:
    """Follow a guide in a folder; returns what its commands printed."""
    place, said = None, []
    for block in blocks(guide):
        place = block.place or place
        if block.language == "python" and block.place:
            (folder / block.place).write_text(block.text)
        elif block.language == "python":
            said.append(run(["-c", block.text], folder, python))
        elif block.language == "diff":
            assert place is not None
            insert(folder / place, block.text)
        elif block.language == "console":
            lines = block.text.replace("\\\n", "").splitlines()
            said += [command(line.removeprefix("$ "), folder, python) for line in lines]
    return "\n".join(said)


def insert(path: Path, diff: str) -> None:
    above = "".join(line[1:] + "\n" for line in diff.splitlines() if line.startswith(" "))
    added = "".join(line[1:] + "\n" for line in diff.splitlines() if line.startswith("+"))
    text = path.read_text()
    assert text.count(above) == 1, f"{path.name} no longer has the line {above!r}"
    path.unlink()  # a link to the checkout's own
    path.write_text(text.replace(above, above + added))


def command(line: str, folder: Path, python: WarmPython) -> str:
    words = line.split() if '"' not in line else [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
    assert words[:2] == ["python", "-m"], f"a guide shows a command of another kind: {line}"
    if words[2] == "zsvss.run" and words[3] != "report":
        # Masks that are given are not clustered.
        clusters = "--data.masks" not in line or (words[3] == "test" and "GivenFirstFrameNaming" not in line)
        words += SMALL.split() + clusters * FEW_CLUSTERS.split() + ("demo.yaml" in line) * DEMO.split()
    return run(words[1:], folder, python)


def run(words: list[str], folder: Path, python: WarmPython) -> str:
    (done,) = python.run(Start(words, str(folder), environment={"PYTHONPATH": str(folder), "COLUMNS": "200"}))
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def scene(num_frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generated = Scene(scene_split("val")[0], num_frames=num_frames, height=64, width=96)
    return [generated.render(number) for number in range(num_frames)]


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_adding_a_stage(checkout: Path, python: WarmPython) -> None:
    said = follow("adding_a_stage", checkout, python)
    assert "mIoU" in said
    assert re.search(r"[1-9]\d* passed", said)


def test_adding_a_dataset(checkout: Path, python: WarmPython) -> None:
    for number, (frame, classes) in enumerate(scene(3)):
        root = checkout / "data" / "youtube_vos"
        write(root / "JPEGImages/bear" / f"{number:05d}.jpg", frame)
        write(root / "Annotations/bear" / f"{number:05d}.png", (classes == classes[32, 48]).astype(np.uint8))
    said = follow("adding_a_dataset", checkout, python)
    assert "classes youtube-vos" in said
    assert "over 1 videos, 3 frames (3 labelled)" in said


def test_adding_a_backbone(checkout: Path, python: WarmPython) -> None:
    said = follow("adding_a_backbone", checkout, python)
    assert "procedural: StableDiffusion15" in said
    assert len(re.findall(r"[1-9]\d* passed", said)) == 2
    assert len((checkout / "zsvss/backbones/unprompted.py").read_text().splitlines()) < 120


def test_adding_a_metric(checkout: Path, python: WarmPython) -> None:
    said = follow("adding_a_metric", checkout, python)
    assert "mean_class_accuracy" in said
    assert "1 passed" in said


def test_own_video(checkout: Path, python: WarmPython) -> None:
    frames = scene(3)
    with BrowserVideo(checkout / "video.mp4", 10) as video:
        for frame, _ in frames:
            video.write(frame)
    for number, (frame, classes) in enumerate(frames):
        write(checkout / "frames" / f"{number:05d}.png", frame)
        write(checkout / "truth" / f"{number:05d}.png", classes.astype(np.uint8))
    write(checkout / "drawn" / "00000.png", frames[0][1].astype(np.uint8))
    said = follow("own_video", checkout, python)
    assert re.search(r"00002 \d+% of the frame", said)
    assert "video: 3 frames, " in said
    assert "segment 1" in (checkout / "masks" / "report.html").read_text()
    assert "mIoU" in said
