"""Time and peak memory of one run on several numbers of processes, and whether their numbers are the same.

Usage::

    python experiments/procedural/export.py --layout vspw --root data/procedural_vspw --num-videos 4 --num-frames 14
    python experiments/scaling/measure.py --processes 1 2 -- \
        --config vspw_embedded.yaml --data.root data/procedural_vspw
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("arguments", nargs="+", help="of `zsvss.run test`")
    options = parser.parse_args()
    print("| processes | seconds in all | seconds of the videos | peak memory of all | of the largest |")
    print("|---:|---:|---:|---:|---:|")
    numbers = []
    for processes in options.processes:
        with tempfile.TemporaryDirectory() as folder:
            row, metrics = measure(processes, options.threads, options.arguments, Path(folder) / "run")
        numbers.append(metrics["numbers"])
        print(
            f"| {processes} | {row['wall']:.1f} | {row['videos']:.1f} "
            f"| {row['memory'] / 2**20:,.0f} MiB | {row['largest'] / 2**20:,.0f} MiB |"
        )
    same = all(other == numbers[0] for other in numbers)
    print(f"\nnumbers {'equal to the last bit' if same else 'DIFFER'}; mIoU {numbers[0]['test/mIoU']!r}")


def measure(processes: int, threads: int, arguments: list[str], output: Path) -> tuple[dict[str, float], Any]:
    """Run once; memory is what each process has for itself and its part of what is shared (PSS), sampled."""
    strategy = ["--trainer.strategy", "ddp"] if processes > 1 else []
    command = [sys.executable, "-m", "zsvss.run", "test", *arguments, "--output", output]
    command += ["--trainer.devices", processes, "--trainer.enable_progress_bar", "false", *strategy]
    start, peak, largest = time.perf_counter(), 0, 0
    with Path(os.devnull).open("w") as nowhere:
        process = psutil.Popen(
            list(map(str, command)), env=os.environ | {"OMP_NUM_THREADS": str(threads)}, stdout=nowhere
        )
        while process.poll() is None:
            sizes = [size_of(member) for member in (process, *children(process))]
            peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
            time.sleep(0.2)
    wall = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    metrics = json.loads((output / "metrics.json").read_text())
    return {"wall": wall, "videos": metrics["seconds"], "memory": peak, "largest": largest}, metrics


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def size_of(process: psutil.Process) -> int:
    try:
        size: int = process.memory_full_info().pss
    except psutil.Error:
        return 0
    return size


if __name__ == "__main__":
    main()
