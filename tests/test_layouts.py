"""The shipped benchmark configs over generated videos in each benchmark's layout, through the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warm_python import ROOT, WarmPython, command_line

from zsvss.data.camvid import CAMVID_32
from zsvss.data.cityscapes import CITYSCAPES_19

WEIGHTS = ROOT / "zsvss" / "backbones" / "embedded"


@pytest.fixture(scope="module")
def export() -> Any:
    spec = importlib.util.spec_from_file_location("export", ROOT / "experiments" / "procedural" / "export.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def score(python: WarmPython, config: str, root: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """``metrics.json`` and the records of a run of the whole method, of one step, with the embedded weights."""
    output = root.parent / "run"
    small = ["--model.backbone.weights", WEIGHTS, "--model.context.num_clusters", 3, "--model.context.num_restarts", 1]
    small += ["--model.backbone.first_step", 24, "--model.input_size", [64, 128], "--data.clip_length", 3]
    trainer = ["--trainer.accelerator", "cpu", "--trainer.devices", 1, "--trainer.precision", "32-true"]
    command = ["test", "--config", config, "--data.root", root, "--output", output, *small, *trainer, *options]
    (done,) = python.run(command_line(command, root.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text().splitlines()[1]) for path in (output / "records/test/videos").iterdir()]
    metrics = json.loads((output / "metrics.json").read_text())
    return metrics, {record["video"]: record["result"] for record in records}


def test_cityscapes_is_scored_on_the_20th_frame_alone(export: Any, warm_python: WarmPython, tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    export.export("cityscapes", root, [33], (48, 80))
    metrics, records = score(warm_python, "cityscapes_sd", root, "--model.context.num_clusters", "2")
    numbers = metrics["numbers"]
    assert (numbers["test/num_videos"], numbers["test/num_frames"], numbers["test/num_labelled_frames"]) == (1, 30, 1)
    assert not [name for name in numbers if name.startswith("test/VC")]
    assert 0 <= numbers["test/self_consistency8"] <= 1
    assert metrics["naming"]["name"] == "labelled_frame"
    masks = sorted((root / "gtFine").rglob("*_labelIds.png"))
    assert len(masks) == 1
    for mask, name in zip(masks, sorted(records), strict=True):
        assert mask.name.startswith(name)
        assert name.endswith("_000019")
        raw = np.asarray(Image.open(mask))
        scored = sum(int((raw == value).sum()) for value in CITYSCAPES_19.class_of_raw)
        assert sum(count for _, _, count in records[name]["confusion"]) == scored > 0


def test_camvid_with_32_colours(export: Any, warm_python: WarmPython, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    export.export("camvid", root, [3, 4], (48, 80))
    options = ["--data.labels", "32", "--data.split", "all", "--model.windows", "[2]"]
    metrics, records = score(warm_python, "camvid_sd", root, *options)
    assert metrics["taxonomy"] == "camvid-32"
    assert metrics["numbers"]["test/num_labelled_frames"] == 7
    assert "test/VC2" in metrics["numbers"]
    colours = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in root.glob("Labeled*/*.png")])
    pixels = {row["name"]: row["num_ground_truth"] for row in metrics["per_class"] if row["num_ground_truth"]}
    expected = {
        name: int((colours == colour).all(1).sum())
        for name, colour in zip(CAMVID_32.classes, CAMVID_32.palette, strict=True)
    }
    assert pixels == {name: count for name, count in expected.items() if count}
    assert "Road" in pixels
    assert sorted(records) == ["G000", "G001"]


def test_camvid_with_11_classes(export: Any, warm_python: WarmPython, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    export.export("camvid", root, [3], (48, 80))
    metrics, _ = score(warm_python, "camvid_sd", root, "--model.windows", "[2]")
    assert metrics["taxonomy"] == "camvid-11"
    raw = np.concatenate([np.asarray(Image.open(path)).ravel() for path in root.glob("valannot/*.png")])
    assert [row["num_ground_truth"] for row in metrics["per_class"]] == np.bincount(raw, minlength=12)[:11].tolist()


def test_vspw_with_both_readings(export: Any, warm_python: WarmPython, tmp_path: Path) -> None:
    root = tmp_path / "shifted" / "vspw"
    export.export("vspw", root, [3], (48, 80))
    options = ["--model.windows", "[2]"]
    shifted, _ = score(warm_python, "vspw_sd", root, *options)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "vspw").symlink_to(root)
    raw, _ = score(warm_python, "vspw_sd", tmp_path / "raw" / "vspw", *options, "--data.protocol", "raw")
    assert (shifted["taxonomy"], raw["taxonomy"]) == ("vspw-shifted", "vspw-raw")
    # The readings differ by one in the ids; without void and train, nothing else does.
    assert shifted["numbers"] == raw["numbers"]
    pixels = [row["num_ground_truth"] for row in shifted["per_class"]]
    assert [row["num_ground_truth"] for row in raw["per_class"]] == [0, *pixels[:-1]]


def test_short_videos_are_no_cityscapes(export: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has 30 frames; --num-frames gives 29"):
        export.export("cityscapes", tmp_path, [29], (64, 64))
