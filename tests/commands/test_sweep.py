"""Sweeps as a user starts them: processes of their own, killed and started again, and the files that W&B reads too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_run import CONFIG
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from zsvss.commands.config_files import PACKAGED_CONFIGS
from zsvss.commands.lightning import import_components
from zsvss.commands.sweep import grid, read_sweep, stopped
from zsvss.commands.sweep_cells import Cell
from zsvss.run import main

DATA = """\
import os
from zsvss.data.procedural import ProceduralVideos

class Mounted(ProceduralVideos):
    def __init__(self, disk: str, **settings):
        super().__init__(**settings)
        os.listdir(disk)  # so that nothing can be built without it
"""
SWEEP = """\
name: small
method: grid
parameters:
  config: {values: [ablations/full.yaml, ablations/nowhere.yaml, ablations/no_refinement.yaml]}
  model.seed: {value: 3}
"""
SWEEPS = sorted((PACKAGED_CONFIGS / "sweeps").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweeps of this module run."""
    folder = tmp_path_factory.mktemp("sweeps")
    mounted = CONFIG.replace("ProceduralVideos", "mounted.Mounted").replace("init_args: {", "init_args: {disk: disk, ")
    (folder / "small.yaml").write_text(mounted)
    (folder / "mounted.py").write_text(DATA)
    (folder / "disk").mkdir()
    (folder / "cells.yaml").write_text(SWEEP)
    return folder


def start(folder: Path, output: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "zsvss.run", "sweep", "--config", "small.yaml", "--sweep", "cells.yaml"]
    return subprocess.Popen(
        [*command, "--output", output, *options],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 300
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert happened(), process.communicate()[0]


def cell(folder: Path, name: str) -> Path:
    """Run folder of a cell, or a path that does not exist."""
    return next(folder.glob(f"{name}-*"), folder / "absent")


def finished_files(run: Path) -> dict[str, int]:
    """All that a finished run has written, and when."""
    return {
        str(path): path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "sweep.lock"
    }


@pytest.fixture(scope="module")
def killed_and_restarted(folder: Path) -> Path:
    """A sweep of one cell after another that was killed with everything it had started, and started again."""
    output = folder / "one"
    first = start(folder, "one")
    wait_for(first, lambda: (cell(output, "full") / "metrics.json").exists())
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (cell(output, "no_refinement") / "metrics.json").exists(), "it was killed half-way"
    assert not (output / "table.md").exists()
    before = finished_files(cell(output, "full"))

    second = start(folder, "one")
    screen, _ = second.communicate(timeout=300)
    assert second.returncode == 3, screen
    assert finished_files(cell(output, "full")) == before, "what was finished was touched again"
    return output


def test_killed_and_started_again(killed_and_restarted: Path) -> None:
    table = (killed_and_restarted / "table.md").read_text().splitlines()
    for line, name in ((2, "full"), (4, "no_refinement")):
        numbers = json.loads((cell(killed_and_restarted, name) / "metrics.json").read_text())["numbers"]
        scores = f"{100 * numbers['test/mIoU']:.2f} | {100 * numbers['test/VC2']:.2f}"
        assert table[line] == f"| {name} | {scores} | 2 | 6 | first_frame |"
    # A cell that cannot run does not stop the others, and says why.
    assert "nowhere failed: config 'ablations/nowhere.yaml' was not found" in table[-1]
    listed = json.loads((killed_and_restarted / "sweep.json").read_text())["cells"]
    assert [entry["name"] for entry in listed] == ["full", "nowhere", "no_refinement"]
    resolved = yaml.safe_load((killed_and_restarted / listed[2]["folder"] / "config.yaml").read_text())
    assert (resolved["model"]["refinement"], resolved["model"]["seed"]) == (None, 3)


def test_finished_cells_need_no_data(
    folder: Path, killed_and_restarted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", ["zsvss"])
    before = {path: path.read_text() for path in (killed_and_restarted / name for name in ("table.md", "sweep.json"))}
    command = ["sweep", "--config", "small.yaml", "--sweep", "cells.yaml", "--output"]
    (folder / "disk").rename(folder / "unmounted")
    try:
        assert main([*command, "one"]) == 3
        assert {path: path.read_text() for path in before} == before
        assert "[1/3] full: mIoU" in capsys.readouterr().out

        assert main([*command, "none"]) == 3
        said = capsys.readouterr().out
        assert said.count("No such file or directory: 'disk'") == 1, "of two cells"
        assert "2 of 3 cells cannot run (full, no_refinement): [Errno 2]" in said
    finally:
        (folder / "unmounted").rename(folder / "disk")


def test_missing_data_are_told_once_and_before_the_first_cell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["zsvss"])
    options = ["--sweep", "sweeps/components.yaml", "--output", "absent", "--data.root", "nowhere"]
    assert main(["sweep", "--config", "camvid_embedded.yaml", *options]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "components.yaml can run: nowhere/val not found; CamVid with 11 labels is read from nowhere/val/" in said.err
    assert said.err.count("nowhere/val not found") == 1
    assert not (folder / "absent").exists()


def test_a_sweep_that_is_stopped_says_what_is_kept(folder: Path, killed_and_restarted: Path) -> None:
    cells = [Cell(name, cell(killed_and_restarted, name), ()) for name in ("full", "nowhere", "no_refinement")]
    assert stopped(cells, killed_and_restarted) == (
        f"stopped: 2 of 3 cells finished and kept in {killed_and_restarted}, with every finished video of the others; "
        "the same command goes on with the rest"
    )


def test_two_workers_outlive_their_sweep(folder: Path, killed_and_restarted: Path) -> None:
    """The sweep dies, its workers go on; the next start waits for their cells and computes nothing twice."""
    options = ("--launcher", "local", "--workers", "2")
    output = folder / "two"
    first = start(folder, "two", *options)
    wait_for(first, lambda: all((cell(output, name) / "screen.txt").exists() for name in ("full", "no_refinement")))
    os.kill(first.pid, signal.SIGKILL)
    second = start(folder, "two", *options)
    screen, _ = second.communicate(timeout=300)
    assert second.returncode == 3, screen
    assert (output / "table.md").read_text() == (killed_and_restarted / "table.md").read_text()
    for name in ("full", "no_refinement"):
        log = (cell(output, name) / "log.txt").read_text()
        assert log.count("mIoU_video_mean") == 1, "the cell was run once"
        assert "finished by an earlier start" not in log


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweep_is_wandbs_too(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own code reads the file and makes each cell's command; this parser takes it, with the same settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zsvss"])
    settings = wandb_sweeps.load_sweep_config(str(path))
    assert settings == read_sweep(path)
    assert settings["metric"] == {"name": "test/mIoU", "goal": "maximize"}
    import_components()
    for _, ours in grid(settings["parameters"]):
        pairs = [argument.removeprefix("--").partition("=") for argument in ours]
        agents = {"args": {key: {"value": yaml.safe_load(value)} for key, _, value in pairs}}
        theirs = wandb_sweeps.create_sweep_command_args(agents)
        assert theirs["args"] == ours
        theirs |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [settings["program"]]}
        command: list[str] = []
        for part in wandb_sweeps.create_sweep_command(list(settings["command"])):
            macro = part.startswith("${") and part.endswith("}")
            command += theirs[part[2:-1]] if macro else [part]
        assert command[:4] == ["/usr/bin/env", "python", "-m", "zsvss.run"]
        assert command[-len(ours) :] == ours


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            "method: bayes\nparameters: {a: {values: [1]}}",
            "method is 'bayes'; this command runs every cell of a 'grid'",
        ),
        ("method: grid", "has no 'parameters'"),
        ("method: grid\nparameters: {a: {min: 1, max: 2}}", "parameters.a is {'min': 1, 'max': 2}; a grid needs"),
        ("method: grid\nparameters: {a: {values: []}}", "parameters.a is {'values': []}; a grid needs"),
        ("method: grid\nparameters: {config: {values: [a/x.yaml, b/x.yaml]}}", "more than one cell named x"),
        ("method: [", "is no YAML"),
    ],
)
def test_mistakes(
    sweep: str,
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(sweep)
    assert main(["sweep", "--config", str(folder / "small.yaml"), "--sweep", "wrong.yaml"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1


def test_workers_need_a_launcher(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sweep", "--config", "small.yaml", "--sweep", "cells.yaml", "--workers", "2"])
    assert "--launcher local or slurm" in capsys.readouterr().err
