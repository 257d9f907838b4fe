"""Seven generated videos of uneven length in VSPW's layout, and whole runs over them in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NUM_FRAMES = [3, 5, 7, 4, 8, 6, 2]
CONFIG = """\
model:
  backbone: {{class_path: StableDiffusion, init_args: {{weights: {weights}}}}}
  context: {{class_path: KNNSceneContext, init_args: {{num_clusters: 4, num_restarts: 1}}}}
  modulation: null
  windows: [2, 3]
data:
  class_path: VSPW
  init_args: {{root: {root}, clip_length: 3}}
trainer: {{accelerator: cpu, devices: 1, enable_progress_bar: false}}
predictions: {{in_test: true, video: false}}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def load_export() -> Any:
    spec = importlib.util.spec_from_file_location("export", ROOT / "experiments" / "procedural" / "export.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def vspw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vspw")
    load_export().export("vspw", root, NUM_FRAMES, (64, 64))
    return root


@pytest.fixture(scope="session")
def config(vspw: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "seven.yaml"
    path.write_text(CONFIG.format(weights=tiny_weights, root=vspw))
    return path


@pytest.fixture(scope="session")
def run(config: Path) -> Run:
    """Run the config as a user does."""

    def run(output: Path, *options: object, code: int = 0, script: tuple[object, ...] = ("-m", "zsvss.run"),
            task: str = "test", processes: int = 1) -> subprocess.CompletedProcess[str]:  # fmt: skip
        devices = ["--trainer.devices", processes, "--trainer.strategy", "ddp"] if processes > 1 else []
        command = [*script, task, "--config", config, "--output", output, *devices, *options]
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=output.parent,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of one process that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    run(output)
    return output


def bits(output: Path) -> dict[str, Any]:
    """Everything that must be the same: the benchmark's numbers, each video's confusion and windows, predictions."""
    records = {}
    for path in (output / "records" / "test" / "videos").glob("*.json"):
        result = json.loads(path.read_text().splitlines()[1])["result"]
        records[result["name"]] = {**result, "seconds": None}
    masks = {
        str(path.relative_to(output)): path.read_bytes() for path in (output / "predictions").glob("*/masks/*.png")
    }
    metrics = json.loads((output / "metrics.json").read_text())
    return {"records": records, "masks": masks, "numbers": metrics["numbers"], "per_class": metrics["per_class"]}
