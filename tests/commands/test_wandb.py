"""W&B for real: a run that wandb's own agent starts, offline, and what is in its run file afterwards."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import pytest
import yaml
from jsonargparse import Namespace
from tiny_run import CONFIG
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.launch.sweeps import utils as wandb_sweeps
from wandb.wandb_agent import Agent

from zsvss.commands.config_files import PACKAGED_CONFIGS
from zsvss.commands.wandb_mode import prepare_wandb

_BLOCK, _FULL, _FIRST, _LAST = 32768, 1, 2, 4


def records(path: Path) -> Iterator[Record]:
    """The records of a run file: a header of 7 bytes, then LevelDB's log format."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(content):
        if _BLOCK - position % _BLOCK < 7:
            position += _BLOCK - position % _BLOCK  # too short for a header: padding
            continue
        checksum, length, kind = struct.unpack("<IHB", content[position : position + 7])
        part = content[position + 7 : position + 7 + length]
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
        position += 7 + length


class Tracked(NamedTuple):
    """A run folder, and what its run file says."""

    output: Path
    files: Path
    run: Any
    config: dict[str, Any]
    logged: dict[str, Any]
    summary: dict[str, Any]


def put(into: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value of nested dictionaries."""
    for key in keys[:-1]:
        into = into.setdefault(key, {})
    into[keys[-1]] = value


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """One cell of the shipped sweep on a tiny benchmark, as `wandb agent` runs it without a key."""
    folder = tmp_path_factory.mktemp("agent")
    (folder / "tiny.yaml").write_text(CONFIG + "media: {videos: 1}\n")
    settings = wandb_sweeps.load_sweep_config(str(PACKAGED_CONFIGS / "sweeps" / "components.yaml"))
    sweep = [str(folder / "tiny.yaml") if part == "camvid_sd.yaml" else part for part in settings["command"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("NETRC", str(folder / "none"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setenv("WANDB_SWEEP_ID", "components")
        patch.setenv("WANDB_DIR", str(folder))
        patch.setenv("WANDB_RUN_ID", "cell")
        patch.setenv("WANDB_SWEEP_PARAM_PATH", "")
        agent = Agent(None, None, sweep_id="components", in_jupyter=False)
        agent._sweep_command = sweep
        cell = {"config": {"value": "ablations/no_refinement.yaml"}}
        agent._command_run({"type": "run", "run_id": "cell", "program": settings["program"], "args": cell})
        process = agent._run_processes["cell"]
        process.wait(timeout=300)
        assert process.poll() == 0
    (output,) = (folder / "runs").iterdir()
    (run_file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    config: dict[str, Any] = {}
    logged: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    run: Any = None
    for record in records(run_file):
        if record.HasField("run"):
            run = record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        for items, into in ((record.history.item, logged), (record.summary.update, summary)):
            for item in items:
                put(into, [*(item.nested_key or [item.key])], json.loads(item.value_json))
    return Tracked(output, run_file.parent / "files", run, config, logged, summary)


def test_names(tracked: Tracked) -> None:
    assert tracked.run.display_name == tracked.output.name
    assert tracked.run.run_group == "tiny"
    assert list(tracked.run.tags) == ["tiny", "no_refinement"]


def test_config(tracked: Tracked) -> None:
    resolved = yaml.safe_load((tracked.output / "config.yaml").read_text())
    assert tracked.config["model"] == resolved["model"]
    assert tracked.config["data"] == resolved["data"]
    written = json.loads((tracked.output / "metrics.json").read_text())["run"]
    for key in ("commit", "device", "torch", "command"):
        assert tracked.config["run"][key] == written[key]


def test_metrics(tracked: Tracked) -> None:
    numbers = json.loads((tracked.output / "metrics.json").read_text())["numbers"]
    assert {"test/mIoU", "test/VC2", "test/fwIoU"} <= set(numbers)
    assert {name: tracked.summary[name] for name in numbers} == numbers, "exact, not in Lightning's single precision"


def test_tables(tracked: Tracked) -> None:
    metrics = json.loads((tracked.output / "metrics.json").read_text())
    classes = json.loads((tracked.files / tracked.logged["classes"]["path"]).read_text())
    rows = [dict(zip(classes["columns"], row, strict=True)) for row in classes["data"]]
    assert [row["name"] for row in rows] == [row["name"] for row in metrics["per_class"]]
    assert [row["num_correct"] for row in rows] == [row["num_correct"] for row in metrics["per_class"]]
    videos = json.loads((tracked.files / tracked.logged["videos"]["path"]).read_text())
    scores = [dict(zip(videos["columns"], row, strict=True))["mIoU"] for row in videos["data"]]
    assert sum(scores) / len(scores) == pytest.approx(metrics["numbers"]["test/mIoU_video_mean"])


def test_video_of_the_stages(tracked: Tracked) -> None:
    """Three panels of 128 pixels and two gaps of 4, as many frames as the video has; one video was asked for."""
    (key,) = [key for key in tracked.logged if key.startswith("stages/")]
    uploaded = tracked.files / tracked.logged[key]["path"]
    written = tracked.output / "stages" / f"{key.removeprefix('stages/')}.mp4"
    assert uploaded.read_bytes() == written.read_bytes()
    with av.open(str(uploaded)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 3 * 128 + 2 * 4, 3)] * 3
    coarse, refined, final = (frames[0][:, start : start + 128].astype(int) for start in (0, 132, 264))
    assert abs(coarse - refined).mean() < 3, "without refinement both are the same, up to compression"
    assert frames[0][:, 128:132].mean() > 200, "the gap is white"
    assert final.shape == coarse.shape


def test_time_and_memory(tracked: Tracked) -> None:
    timing = json.loads((tracked.output / "timing.json").read_text())
    for stage in ("kmeans", "knn", "refinement", "modulation"):
        assert tracked.logged[f"time/{stage}"] == timing["seconds_per_frame"][stage]
    assert sum(timing["seconds_per_frame"].values()) * timing["num_frames"] <= timing["seconds"]
    assert tracked.logged["memory/process"] == timing["peak_memory_mib"]["process"] > 100


def test_names_that_the_user_has_given_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")

    def prepared(**given: object) -> Namespace:
        keys = dict.fromkeys(("save_dir", "project", "name", "group", "tags"))
        logger = Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace(**keys | given))
        prepare_wandb(logger, "runs/demo-1", ["demo", "ward"])
        return logger.init_args

    assert prepared() == Namespace(
        save_dir="runs/demo-1", project=None, name="demo-1", group="demo", tags=["demo", "ward"]
    )
    assert prepared(group="paper", name="a").group == "paper"
    monkeypatch.delenv("WANDB_PROJECT")
    assert prepared().project == "zsvss"


def test_a_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "")  # so that it is restored
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        logger = Namespace(class_path="lightning.pytorch.loggers.WandbLogger", init_args=Namespace())
        with caplog.at_level("INFO", "zsvss.commands.wandb_mode"):
            prepare_wandb(logger, "runs/demo-1")
    assert os.environ["WANDB_MODE"] == "offline"
    assert "127.0.0.1 cannot be reached" in caplog.text
