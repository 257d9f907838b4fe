"""Every config on top goes through the real parser on a config that it fits, and sets what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden import GOLDEN

from zsvss.commands.config_files import PACKAGED_CONFIGS
from zsvss.commands.lightning import Rehearsal

pytestmark = pytest.mark.usefixtures("parsing_quietly")
FOLDERS = ("ablations", "baselines")
ON_TOP = sorted(path for folder in FOLDERS for path in (PACKAGED_CONFIGS / folder).glob("*.yaml"))
ON_TOP += [PACKAGED_CONFIGS / f"{name}.yaml" for name in ("fast", "fit_16gb", "paper")]
# Whole systems; any other config on top is one change of at most three lines.
SYSTEMS = {"enhanced", "paper", "published", "emerdiff_sd", "emerdiff_svd"}
VIDEO_MODEL = ["--model.backbone.weights", str(GOLDEN / "svd" / "weights")]
# What goes beside a config on top: a video model's weights, a model that is at hand, the width of its attention heads.
BESIDE = {
    "svd": VIDEO_MODEL,
    "emerdiff_svd": VIDEO_MODEL,
    "emerdiff_sd": ["--model.backbone", "Embedded"],
    "diffseg": ["--model.context.initialization.head_channels", "32"],
}


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key, whether ``init_args`` and ``class_path`` are spelt out or not."""
    for key, value in settings.items():
        path = prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from leaves(value, path)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                yield from leaves(item, f"{path}.{number}")
        else:
            yield path, value.rpartition(".")[2] if key != "weights" and isinstance(value, str) else value


@pytest.mark.parametrize("path", ON_TOP, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_on_top(path: Path) -> None:
    base = PACKAGED_CONFIGS / "procedural_embedded.yaml"
    beside = BESIDE.get(path.stem, [])
    command = Rehearsal(["test", "--config", str(base), "--config", str(path), *beside]).build()
    found = dict(leaves(command._settings()))
    for key, value in leaves(yaml.safe_load(path.read_text())):
        if f"--{key}" not in beside:
            assert found[key] == value, key

    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "it opens with what it shows"
    if path.stem not in SYSTEMS:
        assert sum(not line.startswith("#") for line in lines) <= 3
