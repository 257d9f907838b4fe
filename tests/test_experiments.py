"""What the experiments count, against counts that can be done by hand; their tables are tested with the tables."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from zsvss.tables import fill_in

ROOT = Path(__file__).parents[1]


@pytest.fixture
def enhanced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    return runpy.run_path(str(ROOT / "experiments" / "enhanced" / "make.py"))


def test_late_objects(enhanced: dict[str, Any]) -> None:
    """Classes 0 and 1 are there from the start; 2 enters and is found, 3 enters and is not; a label is false."""
    count = enhanced["LateObjects"]()
    first = torch.zeros(2, 20, 30, dtype=torch.int64)
    first[:, 10:] = 1
    count.update(first, first, is_first=True)
    truth = first[:1].clone()
    truth[0, :, :15] = 2  # 300 pixels
    truth[0, :, 15:25] = 3  # 200 pixels
    truth[0, 0, 29] = 4  # a pixel is not an object
    truth[0, 19, 29] = -1  # void
    labels = first[:1].clone()
    labels[0, :, :10] = 256  # on 200 pixels of class 2
    labels[0, :5, 26:28] = 300  # on 10 pixels of class 0
    count.update(labels, truth, is_first=False)
    expected = {"late": 2, "found": 1, "late_pixels": 500, "found_pixels": 200, "new": 2, "false": 1}
    assert count.counts() == expected


def test_near_border(enhanced: dict[str, Any]) -> None:
    classes = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    classes = classes.repeat_interleave(6, 1).repeat_interleave(6, 2)
    ours = enhanced["near_border"](classes)
    reach = enhanced["BORDER"]
    for t, y, x in torch.cartesian_prod(*map(torch.arange, classes.shape)).tolist():
        around = classes[t, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        assert ours[t, y, x] == bool((around != classes[t, y, x]).any())


def test_a_table_takes_its_place_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- numbers -->\nold\n<!-- end of numbers -->\nbelow\n")
    fill_in(page, "numbers", "new")
    fill_in(page, "numbers", "newer")
    assert page.read_text() == "above\n<!-- numbers -->\nnewer\n<!-- end of numbers -->\nbelow\n"
    page.write_text("<!-- end of numbers --> <!-- numbers -->")
    with pytest.raises(ValueError, match=r"README\.md must have the lines '<!-- numbers -->'"):
        fill_in(page, "numbers", "new")


def test_systems_come_from_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run: one run is finished, and the data and weights of the others are not given."""
    page = ROOT / "experiments" / "compare_systems" / "make.py"
    script = tmp_path / "make.py"
    script.write_text(page.read_text())
    (tmp_path / "README.md").write_text("<!-- systems -->\n<!-- end of systems -->\n")
    for name in ("sd_ours_procedural", "sd_emerdiff_procedural"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        numbers = {"test/mIoU": 0.5, "test/VC8": 0.25, "test/VC16": None, "test/num_frames": 18}
        run = {"commit": "abc", "device": "a core", "date": "2026-11-22T00:00:00"}
        metrics = {"numbers": numbers, "frames_per_second": 0.5, "run": run}
        (tmp_path / "runs" / name / "metrics.json").write_text(json.dumps(metrics))
    monkeypatch.delenv("ZSVSS_GOLDEN", raising=False)
    monkeypatch.setattr("sys.argv", ["make.py", "--runs", str(tmp_path / "runs")])
    runpy.run_path(str(script), run_name="__main__")
    text = (tmp_path / "README.md").read_text()
    assert "| SD ours | procedural | 18 | 50.00 | 25.00 | – | 0.50 | embedded | `procedural_embedded` | `abc` |" in text
    assert "| SD emerdiff |" in text
    assert "`procedural_embedded` + `baselines/emerdiff_sd`" in text
    assert "Not run: svd_ours_procedural, svd_emerdiff_procedural, sd_ours_camvid" in text
