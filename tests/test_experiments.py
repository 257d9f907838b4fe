"""What the experiments count, against counts that can be done by hand, and their tables, from run folders."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic_run import SETTINGS, write_run

from zsvss.results.run_folder import read_run

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


class Script:
    """A script of `experiments`, as it is typed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str, output: Path) -> None:
        self.monkeypatch, self.path, self.output = monkeypatch, str(ROOT / "experiments" / path), output

    def __call__(self, *arguments: object) -> int:
        """Run it; returns its exit code."""
        self.monkeypatch.setattr(sys, "argv", [self.path, *map(str, arguments), "--output", str(self.output)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(self.path, run_name="__main__")
        return int(stop.value.code or 0)

    @property
    def lines(self) -> list[str]:
        """Of the page that it wrote."""
        return self.output.read_text().splitlines()


def percent(folder: Path, *scores: str) -> str:
    """Scores of a run folder as columns of a table."""
    return " | ".join(f"{100 * read_run(folder).scores[score]:.2f}" for score in scores)


ABSENT = {
    part: {key: "absent" for key in SETTINGS if key.startswith(f"model.{part}.")} | {f"model.{part}": None}
    for part in ("context", "refinement", "modulation")
}

TABULATED = {"media": False, "num_frames": 12, "windows": (8, 16)}  # which make VC8 a number and VC16 none


def test_ablation_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "runs" / "procedural"
    script = Script(monkeypatch, "table_ablation/make.py", tmp_path / "page.md")
    bare = {**ABSENT["refinement"], **ABSENT["modulation"]}
    write_run(sweep / "a", 1, bare, dataset="procedural", **TABULATED)
    write_run(sweep / "b", 2, {"model.modulation.init_args.blend": False}, dataset="procedural", **TABULATED)
    write_run(sweep / "half", unfinished=True, dataset="procedural", **TABULATED)
    folders = {"only_context": "a", "no_blending": "b", "x": "c", "lacking": "half"}
    cells = [{"name": name, "folder": folder} for name, folder in folders.items()]
    (sweep / "sweep.json").write_text(json.dumps({"name": "components", "cells": cells}))
    assert script("--only-tabulate", "--runs", tmp_path / "runs", "--camvid", tmp_path / "nowhere") == 0
    scores = {name: percent(sweep / name, "mIoU", "VC8") for name in ("a", "b")}
    assert scores["a"] != scores["b"]
    assert f"| ✓ | – | – | – | – | {scores['a']} | – | `only_context` |" in script.lines
    assert f"| ✓ | ✓ | ✓ | – | ✓ | {scores['b']} | – | `no_blending` |" in script.lines
    assert not any("`lacking`" in line for line in script.lines)
    origin = "- procedural: 2 videos, 24 frames; backbone Handmade <b>; classes pond; video consistency `official`"
    assert origin in script.lines
    assert "- naming protocol `first_frame`: uses the first frame's ground truth inside the method" in script.lines
    assert "- commit 0123456789ab, abacus, 2026-11-22" in script.lines
    assert "CamVid was not at hand." in script.lines
    assert "Failed: x on generated, lacking on generated." in script.lines

    (tmp_path / "camvid" / "val").mkdir(parents=True)
    (tmp_path / "runs" / "camvid").mkdir()
    (tmp_path / "runs" / "camvid" / "sweep.json").write_text(json.dumps({"cells": cells[:1]}))
    assert script("--only-tabulate", "--runs", tmp_path / "runs", "--camvid", tmp_path / "camvid") == 0
    failed = "failed | failed | failed"
    assert f"| ✓ | – | – | – | – | {scores['a']} | – | {failed} | `only_context` |" in script.lines
    assert "Failed: x on generated, lacking on generated, only_context on CamVid." in script.lines


def test_ablation_table_without_a_finished_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(monkeypatch, "table_ablation/make.py", tmp_path / "page.md")
    options = ["--runs", tmp_path / "runs", "--camvid", tmp_path / "nowhere"]
    assert script("--only-tabulate", *options) == 1
    assert "holds no results of a test run, nor folders that do" in capsys.readouterr().err
    sweep = tmp_path / "runs" / "procedural"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"name": "components", "cells": [{"name": "full", "folder": "full"}]}))
    assert script("--only-tabulate", *options) == 1
    assert "no cell of the sweep is finished" in capsys.readouterr().err
    for code, told in [(1, "procedural_embedded.yaml ended with exit code 1"), (3, "no cell of the sweep is finished")]:
        ended = subprocess.CompletedProcess([], code)
        monkeypatch.setattr(subprocess, "run", lambda *_, ended=ended, **__: ended)
        assert script(*options) == 1
        assert told in capsys.readouterr().err
    assert not script.output.exists()


def test_main_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(monkeypatch, "table_main/make.py", tmp_path / "page.md")
    per_frame = {**ABSENT["context"], "model.context.class_path": "zsvss.PerFrameClustering", **ABSENT["refinement"]}
    runs = [
        write_run(tmp_path / "a", 0, dataset="procedural", **TABULATED),
        write_run(tmp_path / "b", 1, dataset="camvid-11", **TABULATED | {"windows": (4, 8)}),
        write_run(tmp_path / "c", 2, per_frame, dataset="camvid-11", **TABULATED | {"windows": (4, 8)}),
    ]
    assert script(*runs) == 0
    head = (
        "| system | backbone | clusters named by | camvid-11 mIoU | camvid-11 VC8 | camvid-11 VC4 | procedural mIoU |"
    )
    assert f"{head} procedural VC8 |" in script.lines, "the paper's benchmarks first, no column without a number"
    ours, camvid = percent(runs[0], "mIoU", "VC8"), [percent(run, "mIoU", "VC8", "VC4") for run in runs[1:]]
    full = "| scene context + refinement + masked modulation | Handmade <b> | first_frame |"
    assert f"{full} {camvid[0]} | {ours} |" in script.lines
    clustered = "| per-frame clustering + masked modulation | Handmade <b> | first_frame |"
    assert f"{clustered} {camvid[1]} |  |  |" in script.lines

    twin = write_run(tmp_path / "d", dataset="camvid-11", media=False)
    assert script(*runs, twin) == 1
    assert "b and d are both scene context + refinement + masked modulation on camvid-11" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert script(tmp_path / "empty") == 1
    assert "empty holds no results of a test run" in capsys.readouterr().err
    half = write_run(tmp_path / "e", unfinished=True, media=False)
    assert script(half) == 1
    assert "is not finished: 1 of 2 videos are missing (south)" in capsys.readouterr().err


@pytest.fixture
def newcomers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    return runpy.run_path(str(ROOT / "experiments" / "footage" / "newcomers.py"))


def tokens_of(num_frames: int, seed: int) -> torch.Tensor:
    """Two halves of a frame of 16x28 tokens, with noise."""
    noise = 0.02 * torch.randn(num_frames, 16, 28, 6, generator=torch.Generator().manual_seed(seed))
    noise[:, :, :14, 0] += 1
    noise[:, :, 14:, 1] += 1
    return noise.flatten(1, 2)


def test_a_late_object_gets_a_label_at_its_frame(newcomers: dict[str, Any]) -> None:
    features = tokens_of(35, 0).view(35, 16, 28, 6)
    inside = torch.zeros(35, 16, 28, dtype=torch.bool)
    inside[17:, 4:9, 10:16] = True
    features[inside] = torch.eye(6)[2]  # of neither half
    pixels = torch.stack([64 * ~inside, 64 * inside], -1).flatten(1, 2).numpy()
    case = newcomers["Case"]("normal", torch.zeros(35, 3, 128, 224), features.flatten(1, 2), pixels)
    assert case.late == {1: True}
    labels, first_new = newcomers["labels_of"](case, newcomers["RULES"]["Novelty, margin 2"]())
    assert set(labels[labels >= first_new].tolist()) == {first_new}
    assert ((labels >= first_new) == inside.flatten(1).numpy()).all(), "these tokens, from this frame on"
    assert newcomers["judge"](case, labels, first_new)[:4] == (1, 1, 0, 0)


@pytest.mark.parametrize("rule", ["Novelty, margin 2", "Newcomers, threshold 0.25"])
def test_where_nothing_enters_no_label_opens(rule: str, newcomers: dict[str, Any]) -> None:
    pixels = torch.full((35, 448, 1), 64).numpy()
    case = newcomers["Case"]("quiet", torch.zeros(35, 3, 128, 224), tokens_of(35, 1), pixels)
    labels, first_new = newcomers["labels_of"](case, newcomers["RULES"][rule]())
    assert labels.max() < first_new
    assert newcomers["judge"](case, labels, first_new) == (0, 0, 0, 0, 0.0, ())


def test_what_counts_as_found(newcomers: dict[str, Any]) -> None:
    """An object by one label with all of it; another by a label with a third of it, and a label of nothing."""
    pixels = torch.zeros(20, 448, 3, dtype=torch.int64)
    pixels[..., 0] = 64
    pixels[14:, :20] = torch.tensor([0, 64, 0])
    pixels[15:, 100:130] = torch.tensor([0, 0, 64])
    case = newcomers["Case"]("normal", torch.zeros(20, 3, 128, 224), tokens_of(20, 2), pixels.numpy())
    labels = torch.zeros(20, 448, dtype=torch.int64)
    labels[16:, :24] = 5
    labels[16:, 100:110] = 6
    labels[16:, 300:310] = 7
    score = newcomers["judge"](case, labels.numpy(), 5)
    assert score[:4] == (2, 1, 2, 1)
    assert score.delays == (2,)
    assert score.share == pytest.approx(4 * (24 + 10 + 10) / (20 * 448))
