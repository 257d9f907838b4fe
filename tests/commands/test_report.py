"""`zsvss.run report` as it is typed, over run folders made by hand and one that a test run left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from predicted import predict
from synthetic_run import write_run
from warm_python import WarmPython, command_line

from zsvss.run import main


def test_writes_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, lag) for name, lag in (("exact", 0), ("late", 1))]
    page = tmp_path / "pages" / "both.html"
    assert main(["report", *map(str, runs), "--output", str(page), "--names", "ours", "baseline"]) == 0
    assert str(page) in capsys.readouterr().out
    assert 'data-name="baseline"' in page.read_text()
    assert "| ours | ✓ | ✓ | ✓ | **100.0** |" in page.with_suffix(".md").read_text()
    assert "naming first_frame: uses the first frame's ground truth" in page.with_suffix(".md").read_text()
    assert page.with_suffix(".tex").read_text().count(r"\begin{tabular}") == 2
    assert json.loads((runs[1] / "metrics.json").read_text())["numbers"]["test/num_videos"] == 2


def test_numbers_over_some_videos_are_told_by_the_exit_code(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "whole", media=False), write_run(tmp_path / "half", media=False, unfinished=True)]
    assert main(["report", *map(str, runs)]) == 3
    assert (tmp_path / "whole" / "report.html").is_file()


def test_a_sweep_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "full-0", media=False)
    begun = write_run(tmp_path / "begun-0", media=False)
    for record in (begun / "records" / "test" / "videos").iterdir():
        record.unlink()
    cells = [{"name": name, "folder": f"{name}-0"} for name in ("full", "begun", "waiting")]
    (tmp_path / "sweep.json").write_text(json.dumps({"name": "three", "cells": cells}))
    assert main(["report", str(tmp_path)]) == 3
    told = capsys.readouterr().out
    assert f"left out: {begun}: no video is finished" in told
    assert "left out: " + str(tmp_path / "waiting-0") in told
    assert 'data-name="full"' in (tmp_path / "report.html").read_text()
    assert main(["report", str(begun)]) == 1


def test_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        predict(tmp_path / name / "predictions", "clip/01")
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two"), "--names", "ours", "theirs"]) == 0
    assert capsys.readouterr().out == (
        "clip/01: 6 frames, 6 segments\n" * 2 + f"page in {tmp_path / 'one' / 'report.html'}\n"
    )
    (stored,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "one" / "report.html").read_text(), flags=re.DOTALL)
    videos = json.loads(stored)["videos"]
    assert [(video["dataset"], video["name"], video["runs"]) for video in videos] == [
        ("ours", "clip/01", [0]),
        ("theirs", "clip/01", [1]),
    ]
    assert not (tmp_path / "one" / "report.md").exists(), "there are no scores"


def test_predictions_of_a_video_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = predict(tmp_path / "predictions").folder / "segments.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"complete": False, "video_length": 9}))
    assert main(["report", str(tmp_path)]) == 3
    assert "swan: 6 of 9 frames, 6 segments" in capsys.readouterr().out
    assert "The run was interrupted after 6 of 9 frames." in (tmp_path / "report.html").read_text()


def test_videos_that_have_no_frame_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none_THW = np.zeros((0, 8, 8), dtype=np.int64)
    path = predict(tmp_path / "run" / "predictions", "waiting", labels_THW=none_THW).folder / "segments.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"complete": False, "video_length": 9}))
    assert main(["report", str(tmp_path / "run")]) == 1
    assert "run: no frame is predicted yet, so there is nothing to show" in capsys.readouterr().err
    predict(tmp_path / "run" / "predictions")
    assert main(["report", str(tmp_path / "run")]) == 3
    assert "waiting: 0 of 9 frames, 0 segments" in capsys.readouterr().out


def test_predictions_without_masks(tmp_path: Path) -> None:
    video = predict(tmp_path / "predictions")
    path = video.folder / "segments.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"mask_files": None}))
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "The run wrote no masks (predictions.masks false)" in page
    assert '"0 final"' not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing holds no results of a test run, nor folders that do"),
        (["nothing"], "and no predictions (predictions/<video>/segments.json)"),
        (["run", "--names", "a", "b"], "--names has a, b; give 1 different names, for run"),
        (["run", "--max-side", "3"], "--max-side is 3"),
        (["run", "own"], "own holds predictions without ground truth and run the scores of a test run"),
        (["own", "--per-class"], "--per-class and --per-video print scores, and predictions have none"),
        (["own", "--names", "a", "b"], "--names has a, b; give 1 different names, for own"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", media=False)
    predict(tmp_path / "own" / "predictions")
    assert main(["report", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "report.html").exists()


def test_damaged_media(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "media" / "test" / "south" / "video.json").write_text("{")
    assert main(["report", str(folder)]) == 1
    assert "south/video.json is missing or damaged; delete" in capsys.readouterr().err


def test_report_of_a_real_run(tiny_weights: Path, warm_python: WarmPython, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(f"""\
model:
  backbone: {{class_path: StableDiffusion, init_args: {{weights: {tiny_weights}}}}}
  context: {{class_path: KNNSceneContext, init_args: {{num_clusters: 4, num_restarts: 1}}}}
  modulation: null
  naming: HungarianNaming
  windows: [2]
data:
  class_path: ProceduralVideos
  init_args: {{num_videos: 1, num_frames: 4, height: 64, width: 64, clip_length: 3}}
trainer: {{accelerator: cpu, devices: 1}}
""")
    (done,) = warm_python.run(command_line(["test", "--config", "tiny.yaml", "--output", "run"], tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{100 * metrics['numbers']['test/mIoU']:.2f}" in page
    assert "2000000_normal" in page
    assert '"frame_names": ["00000", "00001", "00002", "00003"]' in page
    assert "| run | ✓ | ✓ | – |" in (tmp_path / "run" / "report.md").read_text()
