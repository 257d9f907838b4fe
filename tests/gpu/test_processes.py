"""Runs in processes of their own on a GPU: killed and started again, and two at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.gpu

SECONDS = 180


def command(config: Path, output: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "zsvss.run", "test", "--config", str(config), "--output", str(output), *options]


def numbers(output: Path) -> Any:
    metrics = json.loads((output / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in ("run", "seconds", "frames_per_second")}


def start(arguments: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    return said


def test_a_run_killed_at_any_moment_goes_on_to_the_same_numbers(
    demo_config: Path, tmp_path: Path, device: torch.device
) -> None:
    ended(start(command(demo_config, tmp_path / "whole"), tmp_path))
    killed = start(command(demo_config, tmp_path / "killed"), tmp_path)
    records = tmp_path / "killed" / "records" / "test" / "videos"
    deadline = time.monotonic() + SECONDS
    while not list(records.glob("*.json")) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it had not ended by itself"
    said = ended(start(command(demo_config, tmp_path / "killed"), tmp_path))
    assert "were finished by an earlier start" in said
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_processes_give_one_s_numbers(
    demo_config: Path, tmp_path: Path, device: torch.device, backend: str
) -> None:
    """On one GPU for both with gloo; NCCL refuses two processes on one GPU."""
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL refuses two processes on one GPU: needs two GPUs")
    ended(start(command(demo_config, tmp_path / "one"), tmp_path))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    strategy = ("--trainer.strategy.class_path", "DDPStrategy", "--trainer.strategy.process_group_backend", backend)
    processes = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(max(1, torch.cuda.device_count()))))
    for rank in range(2):
        # Each sees one GPU as its first: their own, or the same one.
        seen = visible.split(",")[rank % len(visible.split(","))]
        environment = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "NODE_RANK": str(rank),
            "LOCAL_RANK": "0",
            "CUDA_VISIBLE_DEVICES": seen,
        }
        options = (*strategy, "--trainer.num_nodes", "2")
        processes.append(start(command(demo_config, tmp_path / "two", *options), tmp_path, **environment))
    for process in processes:
        ended(process)
    assert numbers(tmp_path / "two") == numbers(tmp_path / "one")
