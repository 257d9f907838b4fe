"""The sbatch file on a real SLURM of one node; `make test-slurm` runs this. Needs root, slurm-wlm and munge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT, bits

pytestmark = pytest.mark.slurm
SCRIPT = Path(__file__).with_name("slurm.sh")
SBATCH = ROOT / "experiments" / "cluster" / "evaluate.sbatch"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of SLURM's clients."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found; apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs for other users and has to be root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stdout + started.stderr
    yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([SCRIPT, "stop", folder], check=True)


def submit(slurm: dict[str, str], config: Path, output: Path, *options: object) -> tuple[int, str]:
    """Submit the sbatch file with two tasks and wait; returns its exit code and its screen."""
    variables = {"PYTHON": sys.executable, "ACCELERATOR": "cpu", "OUTPUT": str(output), "PYTHONPATH": str(ROOT)}
    screen = output.parent / "job.log"
    command = ["sbatch", "--wait", "--nodes", 1, "--ntasks-per-node", 2, "--cpus-per-task", 1, "--output", screen]
    done = subprocess.run(
        [*map(str, command), str(SBATCH), "--config", str(config), *map(str, options)],
        env=slurm | variables,
        cwd=output.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr + screen.read_text()


def test_two_tasks_give_the_bits_of_one_process(
    slurm: dict[str, str], undisturbed: Path, config: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    code, screen = submit(slurm, config, output)
    assert code == 0, screen
    assert '"num_processes": 2' in (output / "metrics.json").read_text()
    assert bits(output) == bits(undisturbed)
    assert (output / "log-1.txt").exists(), "the second task wrote no log of its own"


def test_submitted_again_goes_on(slurm: dict[str, str], undisturbed: Path, config: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    code, screen = submit(slurm, config, output, "--trainer.limit_test_batches", 3)
    assert code == 0, screen
    num_recorded = len(list((output / "records/test/videos").iterdir()))
    assert 0 < num_recorded < 7
    code, screen = submit(slurm, config, output)
    assert code == 0, screen
    assert f"{num_recorded} of 7 videos were finished by an earlier start" in screen
    assert bits(output) == bits(undisturbed)


def test_another_run_is_refused(slurm: dict[str, str], config: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert submit(slurm, config, output)[0] == 0
    code, screen = submit(slurm, config, output, "--model.seed", 1)
    assert code != 0
    assert "model.seed: recorded 0, now 1" in screen


def test_sweep_in_two_jobs(slurm: dict[str, str], config: Path, tmp_path: Path) -> None:
    (tmp_path / "cells.yaml").write_text(
        "method: grid\nparameters: {config: {values: [ablations/full.yaml, ablations/no_refinement.yaml]}}\n"
    )
    command = ["sweep", "--config", config, "--sweep", "cells.yaml", "--output", "sweep", "--data.limit_videos", 2]
    jobs = ["--launcher", "slurm", "--workers", 2, "--slurm", "timeout_min=10", "--slurm", "cpus_per_task=1"]
    done = subprocess.run(
        [sys.executable, "-m", "zsvss.run", *map(str, [*command, *jobs])],
        env=slurm | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 workers (")
    for name in ("full", "no_refinement"):
        assert f"{name}: mIoU" in done.stdout
        (run,) = (tmp_path / "sweep").glob(f"{name}-*")
        assert '"test/num_videos": 2' in (run / "metrics.json").read_text()
    assert len(list((tmp_path / "sweep" / "jobs").glob("*_result.pkl"))) == 2
