"""Each family of models through the commands: its shipped config over real frames, with tiny random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from PIL import Image
from warm_python import ROOT, WarmPython, command_line

SMALL = ["--model.input_size", "[64,64]", "--model.context.num_clusters", "2", "--model.context.num_restarts", "1"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
SCORED = {"sd3": "StableDiffusion3", "wan": "Wan"}


@pytest.mark.parametrize(
    ("model", "write", "options"),
    [
        # Places that the tiny network is not deep enough for, and a variant that it has not.
        ("sdxl", tiny_models.write_sdxl, ["--model.features", "null", "--model.backbone.variant", "null"]),
        ("sd3", tiny_models.write_sd3, []),
        ("pixart", tiny_models.write_pixart, []),
        ("cogvideox", tiny_models.write_cogvideox, []),
        ("wan", tiny_models.write_wan, []),
        ("flux", tiny_models.write_flux, ["--model.features.places", "[block.2:image.query]"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_predict_and_test(
    model: str, write: Callable[[Path], Path], options: list[str], warm_python: WarmPython, tmp_path: Path
) -> None:
    """Two frames of the swan by ``predict``; of an image and a video model a generated video by ``test`` as well."""
    folder, swan = tmp_path / "weights", tmp_path / "swan"
    folder.mkdir()
    swan.mkdir()
    weights = ["--model.backbone.weights", str(write(folder))]
    for path in sorted((ROOT / "docs" / "swan").glob("*.jpg"))[:2]:
        (swan / path.name).write_bytes(path.read_bytes())
    config = ["--config", f"predict_{model}", "--data.input", str(swan), "--output", "own"]
    starts = [command_line(["predict", *config, *weights, *options, *SMALL], tmp_path)]
    if model in SCORED:
        demo = ["--config", "demo", "--model.backbone", SCORED[model], "--model.windows", "[2]", "--output", "demo"]
        video = ["--data.num_videos", "1", "--data.num_frames", "3"]
        starts.append(command_line(["test", *demo, *weights, *video, *SMALL], tmp_path))
    for done in warm_python.run(*starts):
        assert done.returncode == 0, done.stdout + done.stderr
    masks = sorted((tmp_path / "own/predictions/swan/masks").glob("*.png"))
    with Image.open(next(swan.iterdir())) as frame:
        assert [np.asarray(Image.open(mask)).shape for mask in masks] == [frame.size[::-1]] * 2
    assert {int(value) for mask in masks for value in np.unique(np.asarray(Image.open(mask)))} <= {1, 2}
    if model in SCORED:
        numbers = json.loads((tmp_path / "demo/metrics.json").read_text())["numbers"]
        assert numbers["test/num_frames"] == 3
        assert 0 <= numbers["test/mIoU"] <= 1
