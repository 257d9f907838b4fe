"""Runs over seven videos: on several processes, killed and resumed, with a corrupt video, in another run's folder."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_python import Start, WarmPython, command_line, ranks

from .conftest import NUM_CLIPS, NUM_FRAMES, Run, bits
from .killed_run import MOMENTS, Moment, draw

OFFLOAD = ("--model.backbone.offload", "true")
# Another one in every run; set the variable to a seed that a failure has printed.
KILL_SEED = int(os.environ.get("ZSVSS_KILL_SEED") or random.SystemRandom().randrange(1 << 32))


def recorded(output: Path) -> dict[str, int]:
    """Records and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "records/test/videos").glob("*.json")}


def report(output: Path) -> Start:
    """Fold a run's records."""
    return command_line(["report", output], output.parent)


def test_numbers_are_those_of_a_loop_over_files(undisturbed: Path, vspw: Path) -> None:
    num_classes, windows = 124, (2, 3)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    scores: dict[int, list[float]] = {window: [] for window in windows}
    for name in (vspw / "val.txt").read_text().split():
        paths = sorted((vspw / "data" / name / "mask").iterdir())
        truth = [np.asarray(Image.open(path)).astype(int) for path in paths]
        predicted = [
            np.asarray(Image.open(undisturbed / "predictions" / name / "masks" / path.name)).astype(int) - 1
            for path in paths
        ]
        for truth_HW, predicted_HW in zip(truth, predicted, strict=True):
            for wanted, found in zip(truth_HW.ravel().tolist(), predicted_HW.ravel().tolist(), strict=True):
                if 1 <= wanted <= num_classes:
                    confusion[wanted - 1, found] += 1
        for window in windows:
            for start in range(len(truth) - window):
                span = range(start, start + window)
                same_truth = np.all([truth[t] == truth[start] for t in span], axis=0)
                same_both = same_truth & np.all([predicted[t] == predicted[start] for t in span], axis=0)
                scores[window].append(same_both.sum() / same_truth.sum())

    numbers = bits(undisturbed)["numbers"]
    assert numbers["test/VC9"] is None, "all videos are shorter than that"
    truth_sum, hits = confusion.sum(1), confusion.diagonal()
    iou = hits[truth_sum > 0] / (truth_sum + confusion.sum(0) - hits)[truth_sum > 0]
    assert numbers["test/mIoU"] == pytest.approx(iou.mean(), rel=1e-12)
    assert numbers["test/pixel_accuracy"] == hits.sum() / truth_sum.sum()
    for window in windows:
        assert numbers[f"test/VC{window}"] == pytest.approx(np.mean(scores[window]), rel=1e-12)
    total = np.zeros_like(confusion)
    for record in bits(undisturbed)["records"].values():
        for row, column, count in record["confusion"]:
            total[row, column] += count
    assert np.array_equal(total, confusion)
    assert numbers["test/num_frames"] == sum(NUM_FRAMES)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_change_no_bit(processes: int, undisturbed: Path, run: Run, tmp_path: Path) -> None:
    """Nor do networks in turns, which of two processes each has."""
    done = run(tmp_path / "run", *(OFFLOAD if processes == 2 else ()), processes=processes)
    assert done.stderr.count("VC9 is NaN") == 1
    assert bits(tmp_path / "run") == bits(undisturbed)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_resumed_changes_no_bit(moment: str, undisturbed: Path, run: Run, tmp_path: Path) -> None:
    output = tmp_path / "run"
    when = draw(moment, KILL_SEED, len(NUM_FRAMES), NUM_CLIPS)
    print(f"ZSVSS_KILL_SEED={KILL_SEED}: {moment}, {when}")
    run(output, killed=(moment, when), code=-signal.SIGKILL)
    assert (output / "metrics.json").exists() <= (moment == "end")
    before = recorded(output)
    possible = {"record": {when.count - 1, when.count}, "between": {when.count}, "end": {7}}
    assert len(before) in possible.get(moment, range(7))

    # Where fewer videos are left than processes, some have nothing to do; at the end, none has.
    processes = {"decoding": 1, "clip": 2, "record": 1, "between": 3, "end": 2}[moment]
    resumed = run(output, processes=processes)
    after = recorded(output)
    assert len(after) == 7
    assert {name: after[name] for name in before} == before, "what was finished was computed again"
    if before:
        assert f"{len(before)} of 7 videos were finished by an earlier start" in resumed.stderr
    assert bits(output) == bits(undisturbed)
    assert not list((output / "records").rglob(".tmp-*"))


def test_killed_at_any_time_on_two_processes(
    undisturbed: Path, run: Run, config: Path, warm_python: WarmPython, tmp_path: Path
) -> None:
    """Both processes and their decoders die at a moment that nobody chose, after the first record.

    What is left is done by a run whose networks take turns.
    """
    print(f"ZSVSS_KILL_SEED={KILL_SEED}")
    output = tmp_path / "run"
    command = ["test", "--config", config, "--output", output, "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    starts = [command_line(command, tmp_path, environment=rank, own_session=True) for rank in ranks(2)]
    processes = [warm_python.start(start) for start in starts]
    deadline = time.monotonic() + 200
    while not (recorded(output) or any(process.has_ended() for process in processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.Random(KILL_SEED).random() / 2)
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
    screens = [process.wait() for process in processes]
    assert recorded(output), screens
    run(output, *OFFLOAD)
    assert bits(output) == bits(undisturbed)


def test_a_corrupt_video_does_not_sink_the_run(
    undisturbed: Path, vspw: Path, run: Run, warm_python: WarmPython, tmp_path: Path
) -> None:
    broken = tmp_path / "vspw"
    subprocess.run(["cp", "-r", vspw, broken], check=True)
    victim = sorted((broken / "data" / "video_005" / "origin").iterdir())[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:200])
    output = tmp_path / "run"

    done = run(output, "--data.root", broken, code=3)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["numbers"]["test/num_videos"] == 6
    assert metrics["num_videos_expected"] == 7
    assert list(metrics["failures"]) == ["video_005"]
    assert str(victim.parent) in metrics["failures"]["video_005"]
    assert "ONLY 6 of 7 videos" in done.stdout
    assert "Failures" in done.stdout
    assert "video_005" in done.stdout
    whole_run = bits(undisturbed)["records"]
    assert bits(output)["records"] == {name: whole_run[name] for name in whole_run if name != "video_005"}

    (folded,) = warm_python.run(report(output))
    assert folded.returncode == 3, folded.stderr
    assert "ONLY 6 of 7 videos" in folded.stdout

    # Repaired, it is tried again, and the others are not.
    victim.write_bytes(whole)
    before = recorded(output)
    run(output, "--data.root", broken)
    after = recorded(output)
    assert {name: after[name] for name in before} == before
    assert bits(output) == bits(undisturbed)
    assert json.loads((output / "metrics.json").read_text())["failures"] == {}


@pytest.mark.parametrize("processes", [1, 2])
def test_all_videos_corrupt(processes: int, vspw: Path, run: Run, warm_python: WarmPython, tmp_path: Path) -> None:
    broken, output = tmp_path / "vspw", tmp_path / "run"
    subprocess.run(["cp", "-r", vspw, broken], check=True)
    names = sorted((broken / "val.txt").read_text().split())
    for name in names:
        first = min((broken / "data" / name / "origin").iterdir())
        first.write_bytes(first.read_bytes()[:200])
    done = run(output, "--data.root", broken, code=1, processes=processes)
    assert done.stderr.count("error:") == 1
    assert "error: no video has a result, so there is nothing to score; the first of 7: video 'video_0" in done.stderr
    assert "Failures" in done.stdout
    assert all(name in done.stdout for name in names)
    failures = json.loads((output / "records" / "test" / "failures.json").read_text())
    assert sorted(failures) == names
    assert "origin" in failures[names[0]]
    assert not (output / "metrics.json").exists()
    (folded,) = warm_python.run(report(output))
    assert folded.returncode == 1
    assert "no video is finished" in folded.stderr


def test_predict_goes_on_too(run: Run, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "run"
    run(whole, task="predict")
    # Within the third of seven videos or later.
    when = Moment(random.Random(KILL_SEED).randint(4, NUM_CLIPS), 0.5)
    print(f"ZSVSS_KILL_SEED={KILL_SEED}: {when}")
    run(output, task="predict", killed=("clip", when), code=-signal.SIGKILL)
    finished = sorted(path.stem for path in (output / "records/predict/videos").iterdir())
    assert finished
    resumed = run(output, task="predict")
    assert f"{len(finished)} of 7 videos were finished by an earlier start" in resumed.stderr
    files = sorted(path.relative_to(whole) for path in (whole / "predictions").rglob("*.*"))
    assert len(files) == sum(NUM_FRAMES) + 7
    for path in files:
        assert (output / path).read_bytes() == (whole / path).read_bytes(), path

    # Predictions that were deleted are made again, although their video is recorded.
    subprocess.run(["rm", "-r", output / "predictions" / finished[0]], check=True)
    run(output, task="predict")
    assert sorted(path.relative_to(output) for path in (output / "predictions").rglob("*.*")) == files


def test_full_disk(undisturbed: Path, run: Run, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        stopped = run(disk / "run", code=1)
        assert stopped.stderr.count("error:") == 1
        assert "error: the disk is full" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        before = recorded(disk / "run")
        assert 0 < len(before) < 7
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        resumed = run(disk / "run")
        assert f"{len(before)} of 7 videos were finished by an earlier start" in resumed.stderr
        after = recorded(disk / "run")
        assert {name: after[name] for name in before} == before
        assert bits(disk / "run") == bits(undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_folder_of_another_run(
    undisturbed: Path, run: Run, vspw: Path, warm_python: WarmPython, tmp_path: Path
) -> None:
    """Another run is refused, with what differs; a damaged record is computed again; the report needs no data."""
    output = tmp_path / "run"
    subprocess.run(["cp", "-rp", undisturbed, output], check=True)
    config_before = (output / "config.yaml").read_bytes()
    refused = run(output, "--model.seed", 1, "--model.context.num_clusters", 3, code=1)
    assert "model.seed: recorded 0, now 1" in refused.stderr
    assert "model.context.init_args.num_clusters: recorded 4, now 3" in refused.stderr
    assert refused.stderr.count("recorded ") == 2
    assert "fingerprint" in refused.stderr
    assert (output / "config.yaml").read_bytes() == config_before
    assert bits(output) == bits(undisturbed)

    damaged = output / "records/test/videos/video_002.json"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (incomplete,) = warm_python.run(report(output))
    assert incomplete.returncode == 3
    assert "video_002.json: damaged or half-written" in incomplete.stdout
    assert "not finished yet: video_002" in incomplete.stdout

    # Where the data lies and on how many workers it is read is not part of the fingerprint.
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", vspw, elsewhere], check=True)
    again = run(output, "--data.root", elsewhere, "--data.num_workers", 0)
    assert "video_002.json: damaged or half-written: its checksum is wrong; the video is computed again" in again.stderr
    assert bits(output) == bits(undisturbed)

    (output / "metrics.json").unlink()
    (offline,) = warm_python.run(report(output))
    assert offline.returncode == 0, offline.stderr
    assert bits(output) == bits(undisturbed)


@pytest.mark.parametrize("lock_name", ["lock", "lock-1"])
def test_a_folder_in_use_is_refused(
    lock_name: str, undisturbed: Path, warm_python: WarmPython, config: Path, tmp_path: Path
) -> None:
    """A start is told who has the folder, if only the second process of a killed run, and changes nothing in it."""
    output = tmp_path / "run"
    shutil.copytree(undisturbed, output)
    before = bits(output)
    with (output / "records" / "test" / lock_name).open("a+") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        (done,) = warm_python.run(command_line(["test", "--config", config, "--output", output], tmp_path))
    assert done.returncode == 1
    assert f"{output / 'records'} is in use by" in done.stderr
    assert bits(output) == before
