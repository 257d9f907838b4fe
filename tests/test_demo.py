"""The demo gives the numbers that its config promises, and finds them again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from warm_python import ROOT, WarmPython, command_line


def test_the_demo_gives_the_numbers_that_it_promises(warm_python: WarmPython, tmp_path: Path) -> None:
    said = re.search(r"mIoU ([\d.]+), VC8 ([\d.]+), VC16 ([\d.]+)", (ROOT / "configs" / "demo.yaml").read_text())
    assert said is not None
    promised = dict(zip(("test/mIoU", "test/VC8", "test/VC16"), map(float, said.groups()), strict=True))
    command = command_line(["test", "--config", "demo.yaml", "--output", tmp_path / "demo"], tmp_path)
    (first,) = warm_python.run(command)
    assert first.returncode == 0, first.stdout + first.stderr
    numbers = json.loads((tmp_path / "demo" / "metrics.json").read_text())["numbers"]
    # Other processors round otherwise.
    assert {name: 100 * numbers[name] for name in promised} == pytest.approx(promised, abs=0.5)
    assert len(list((tmp_path / "demo" / "predictions").rglob("*.png"))) == numbers["test/num_frames"] == 36

    (again,) = warm_python.run(command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 2 videos were finished by an earlier start" in again.stdout + again.stderr
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text())["numbers"] == numbers


def test_the_demo_segments_real_frames_cleanly(warm_python: WarmPython, tmp_path: Path) -> None:
    """As `predict` without settings: few segments, each a few large regions, none of them a frame along the border."""
    (line,) = re.findall(r"-m zsvss\.run (predict docs/swan .*)", (ROOT / "Makefile").read_text())
    words = [str(ROOT / word) if word == "docs/swan" else word for word in line.split()]
    options = ["--data.limit_frames", 3, "--output", tmp_path / "swan", "--predictions.video", "false"]
    (done,) = warm_python.run(command_line([*words, *options], tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    masks = sorted((tmp_path / "swan" / "predictions" / "swan" / "masks").iterdir())
    assert len(masks) == 3
    for path in masks:
        labels_HW = np.asarray(Image.open(path))
        found = np.unique(labels_HW)
        assert 4 <= len(found) <= 9
        for label in found:
            region_HW, num_regions = ndimage.label(labels_HW == label)
            assert num_regions <= 5
            assert np.bincount(region_HW.ravel())[1:].min() >= 0.0005 * labels_HW.size
            rows, columns = np.nonzero(labels_HW == label)
            middle = (np.abs(rows / 480 - 0.5) < 0.4) & (np.abs(columns / 854 - 0.5) < 0.4)
            assert middle.mean() > 0.2
