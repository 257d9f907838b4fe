"""The paper's tables from run folders, by the scripts that write them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FULL = {
    "context": {"class_path": "zsvss.stages.context.KNNSceneContext", "init_args": {}},
    "refinement": {"class_path": "zsvss.stages.refinement.CorrespondenceRefinement", "init_args": {}},
    "modulation": {
        "class_path": "zsvss.stages.modulation.MaskedModulation",
        "init_args": {"blend": True, "inject": True},
    },
}


def write_run(
    folder: Path, dataset: str, scores: dict[str, float | None], failures: dict[str, str] | None = None, **model: Any
) -> Path:
    """A run folder with what the tables read."""
    numbers = {f"test/{name}": value for name, value in scores.items()}
    metrics = {
        "numbers": numbers | {"test/num_videos": 2.0, "test/num_frames": 40.0},
        "num_videos_expected": 2,
        "failures": failures or {},
        "unfinished": [],
        "dataset": dataset,
        "taxonomy": dataset,
        "naming": {"name": "first_frame", "note": "uses the first frame's ground truth inside the method"},
        "consistency": "official",
        "backbone": "Embedded",
        "run": {"commit": "0123abc", "device": "a laptop", "date": "2026-11-22T10:00:00+00:00"},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": FULL | model}))
    return folder


def written(script: str, output: Path, *arguments: object) -> tuple[int, list[str]]:
    """Run a script of `experiments`; returns its exit code and the lines of the page."""
    sys.argv[:] = [script, *map(str, arguments), "--output", str(output)]
    try:
        runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, output.read_text().splitlines() if output.exists() else []


@pytest.fixture(autouse=True)
def _arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)


def test_ablation(tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "procedural"
    write_run(sweep / "a", "procedural", {"mIoU": 0.41234, "VC8": 0.9, "VC16": None}, refinement=None, modulation=None)
    unblended = {
        "class_path": "zsvss.stages.modulation.MaskedModulation",
        "init_args": {"blend": False, "inject": True},
    }
    write_run(sweep / "b", "procedural", {"mIoU": 0.5, "VC8": 0.8, "VC16": 0.7}, modulation=unblended)
    write_run(sweep / "half", "procedural", {"mIoU": 0.9, "VC8": 0.9, "VC16": 0.9}, failures={"south": "no memory"})
    folders = {"only_context": "a", "no_blending": "b", "x": "c", "lacking": "half"}
    cells = [{"name": name, "folder": folder} for name, folder in folders.items()]
    (sweep / "sweep.json").write_text(json.dumps({"name": "components", "cells": cells}))
    options = ["--only-tabulate", "--runs", tmp_path / "runs", "--camvid", tmp_path / "nowhere"]
    code, lines = written("table_ablation/make.py", tmp_path / "page.md", *options)
    assert code == 0
    assert "| ✓ | – | – | – | – | 41.23 | 90.00 | – | `only_context` |" in lines
    assert "| ✓ | ✓ | ✓ | – | ✓ | 50.00 | 80.00 | 70.00 | `no_blending` |" in lines
    assert "- naming protocol `first_frame`: uses the first frame's ground truth inside the method" in lines
    assert "- commit 0123abc, a laptop, 2026-11-22" in lines
    assert any("2 videos, 40 frames" in line for line in lines)
    assert "CamVid was not at hand." in lines
    assert "Failed: x on generated, lacking on generated." in lines
    assert not any("90.00 | 90.00 | 90.00" in line for line in lines)


def test_ablation_without_a_finished_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--runs", tmp_path / "runs", "--camvid", tmp_path / "nowhere"]
    assert written("table_ablation/make.py", tmp_path / "page.md", "--only-tabulate", *options) == (1, [])
    assert "is no folder of `zsvss.run sweep`" in capsys.readouterr().err
    sweep = tmp_path / "runs" / "procedural"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"name": "components", "cells": [{"name": "full", "folder": "full"}]}))
    assert written("table_ablation/make.py", tmp_path / "page.md", "--only-tabulate", *options) == (1, [])
    assert "no cell of the sweep is finished" in capsys.readouterr().err
    for code, told in [(1, "procedural_embedded.yaml ended with exit code 1"), (3, "no cell of the sweep is finished")]:
        ended = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(subprocess, "run", lambda *_, ended=ended, **__: ended)
        assert written("table_ablation/make.py", tmp_path / "page.md", *options) == (1, [])
        assert told in capsys.readouterr().err


def test_main_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_frame = {"class_path": "zsvss.stages.context.PerFrameClustering", "init_args": {}}
    runs = [
        write_run(tmp_path / "a", "procedural", {"mIoU": 0.5, "VC8": 0.8, "VC16": None}),
        write_run(tmp_path / "b", "camvid-11", {"mIoU": 0.3, "VC8": 0.7, "VC16": 0.6}),
        write_run(
            tmp_path / "c", "camvid-11", {"mIoU": 0.2, "VC8": 0.4, "VC16": 0.3}, context=per_frame, refinement=None
        ),
    ]
    code, lines = written("table_main/make.py", tmp_path / "page.md", *runs)
    assert code == 0
    head = (
        "| system | backbone | clusters named by | camvid-11 mIoU | camvid-11 VC8 | camvid-11 VC16 | procedural mIoU |"
    )
    assert f"{head} procedural VC8 |" in lines, "the paper's benchmarks first, no column without a number"
    full = "| scene context + refinement + masked modulation | Embedded | first_frame |"
    assert f"{full} 30.00 | 70.00 | 60.00 | 50.00 | 80.00 |" in lines
    assert (
        "| per-frame clustering + masked modulation | Embedded | first_frame | 20.00 | 40.00 | 30.00 |  |  |" in lines
    )

    twin = write_run(tmp_path / "d", "camvid-11", {"mIoU": 0.3})
    assert written("table_main/make.py", tmp_path / "page.md", *runs, twin)[0] == 1
    assert "b and d are both scene context + refinement + masked modulation on camvid-11" in capsys.readouterr().err
    assert written("table_main/make.py", tmp_path / "page.md", tmp_path)[0] == 1
    assert "holds no finished test run" in capsys.readouterr().err
    half = write_run(tmp_path / "e", "camvid-11", {"mIoU": 0.3}, failures={"south": "no memory"})
    assert written("table_main/make.py", tmp_path / "page.md", half)[0] == 1
    assert "is not finished: 1 of 2 videos are missing (south: no memory)" in capsys.readouterr().err
