"""Seven generated videos of uneven length in VSPW's layout, and the whole method over them in processes of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_python import ROOT, WarmPython, command_line, ranks

from .killed_run import Moment

KILLED_RUN = Path(__file__).with_name("killed_run.py")
NUM_FRAMES = [2, 3, 4, 2, 3, 5, 2]
NUM_CLIPS = sum(-(-num_frames // 2) for num_frames in NUM_FRAMES)
CONFIG = """\
model:
  backbone: {{class_path: Embedded, init_args: {{first_step: 24}}}}
  context: {{class_path: KNNSceneContext, init_args: {{num_clusters: 4, num_restarts: 1}}}}
  input_size: [64, 128]
  windows: [2, 3, 9]
data:
  class_path: VSPW
  init_args: {{root: {root}, clip_length: 2}}
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
    load_export().export("vspw", root, NUM_FRAMES, (48, 80))
    return root


@pytest.fixture(scope="session")
def config(vspw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "seven.yaml"
    path.write_text(CONFIG.format(root=vspw))
    return path


@pytest.fixture(scope="session")
def run(config: Path, warm_python: WarmPython) -> Run:
    """Run the config; returns what its first process says."""

    def run(output: Path, *options: object, code: int = 0, killed: tuple[str, Moment] | None = None,
            task: str = "test", processes: int = 1) -> subprocess.CompletedProcess[str]:  # fmt: skip
        devices = ["--trainer.devices", processes, "--trainer.strategy", "ddp"] if processes > 1 else []
        arguments = [task, "--config", config, "--output", output, *devices, *options]
        before = None if killed is None else (str(KILLED_RUN), "arm", [killed[0], *killed[1]])
        environments = ranks(processes) if processes > 1 else [{}]
        starts = [command_line(arguments, output.parent, before, environment) for environment in environments]
        done = warm_python.run(*starts)
        screens = "\n".join(process.stdout + process.stderr for process in done)
        assert done[0].returncode == code, screens
        assert not any(process.returncode for process in done[1:]), screens
        return done[0]

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
