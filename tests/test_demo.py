"""The demo gives the numbers that its config promises, and finds them again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
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
