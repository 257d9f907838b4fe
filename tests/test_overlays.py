"""Overlays on the stages, each through the real command line on two short clips of tiny frames."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from zsvss.run import main

CONFIG = """\
model:
  backbone: {{class_path: StableDiffusion, init_args: {{weights: {weights}}}}}
  context: {{class_path: KNNSceneContext, init_args: {{num_clusters: 4, num_restarts: 1}}}}
  windows: [2]
data:
  class_path: ProceduralVideos
  init_args: {{num_videos: 1, num_frames: 4, height: 64, width: 64, clip_length: 2}}
trainer: {{accelerator: cpu, devices: 1, enable_progress_bar: false}}
"""

OVERLAYS = {
    "ablations/ward": [],
    "ablations/diffseg": ["--model.context.initialization.head_channels", "8"],
    "ablations/diffcut": [],
    "ablations/rgb_xy": [],
    "ablations/enhanced": [],
    "baselines/emerdiff_sd": ["--model.context.num_clusters", "4"],
}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A folder of its own and the loggers as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    handlers = list(logging.getLogger("zsvss").handlers)
    yield
    logging.captureWarnings(capture=False)
    logging.getLogger("zsvss").handlers[:] = handlers


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_runs(overlay: str, tiny_weights: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(weights=tiny_weights))
    weights = ["--model.backbone", "StableDiffusion", "--model.backbone.weights", str(tiny_weights)]
    options = ["--config", str(config), "--config", f"{overlay}.yaml", *weights, *OVERLAYS[overlay]]
    assert main(["test", *options, "--output", "out"]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["numbers"]["test/num_frames"] == 4


@pytest.mark.usefixtures("quiet")
def test_the_baselines_differ_in_the_backbone_alone(capsys: pytest.CaptureFixture[str]) -> None:
    models = []
    for name in ("sd", "svd"):
        configs = ["--config", "procedural_embedded.yaml", "--config", f"baselines/emerdiff_{name}.yaml"]
        with pytest.raises(SystemExit):
            main(["test", *configs, "--print_config"])
        models.append(yaml.safe_load(capsys.readouterr().out)["model"])
    backbones = [model.pop("backbone")["class_path"].rpartition(".")[2] for model in models]
    assert backbones == ["StableDiffusion", "StableVideoDiffusion"]
    assert models[0] == models[1]
    assert models[0]["modulation"]["init_args"]["strength"] == 10
    assert models[0]["refinement"] is None
