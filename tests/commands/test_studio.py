"""``zsvss studio`` from the command line."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from studio_video import write_video

from zsvss.backbones.embedded import Embedded
from zsvss.commands import studio
from zsvss.commands.studio import main, segmenter_of
from zsvss.stages.joint_features import JointFeatures
from zsvss.stages.upsampling import GuidedUpsampling


def refused(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    assert leaving.value.code in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(studio, "find_spec", lambda name: None if name == "uvicorn" else object())
    assert 'pip install "zsvss[studio]"' in refused([tmp_path], capsys)


def test_what_is_no_run_and_no_video_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere not found" in refused([tmp_path / "nowhere"], capsys)
    assert "holds no frames" in refused([tmp_path], capsys)
    folder = write_video(tmp_path)
    run = folder.parents[1]
    assert "is a run, which is segmented already" in refused([run, "--model.input_size", "[64,128]"], capsys)
    (tmp_path / "names.txt").write_text("swan\n\u202elake\n")
    assert "U+202E" in refused([run, "--classes", tmp_path / "names.txt"], capsys)
    (folder / "segments.json").write_text("{}")
    assert "version 1" in refused([run], capsys)


def test_a_run_of_another_video_or_of_a_part_is_not_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_video(tmp_path)
    run, video = folder.parents[1], tmp_path / "frames" / "bands"
    shutil.copytree(video, tmp_path / "others" / "bands")
    said = refused([tmp_path / "others" / "bands", "--output", run], capsys)
    assert f"holds the segments of {video}" in said
    assert "--output" in said
    content = json.loads((folder / "segments.json").read_text())
    assert studio._is_segmented(folder, video)
    (folder / "segments.json").write_text(json.dumps(content | {"complete": False, "video_length": 9}))
    assert not studio._is_segmented(folder, video)
    (folder / "studio").mkdir()
    (folder / "studio" / "studio.jsonl").touch()
    assert "holds 6 of 9 frames, and your annotation" in refused([video, "--output", run], capsys)


def test_own_classes_come_first(tmp_path: Path) -> None:
    for name, content in [
        ("a.txt", "swan\nlake shore\n"),
        ("b.yaml", "[swan, lake shore]"),
        ("c.json", '{"1": "swan", "2": "lake shore"}'),
    ]:
        (tmp_path / name).write_text(content)
        known = studio._taxonomies(tmp_path / name)
        assert list(known) == [name, "COCO", "VSPW", "Cityscapes", "CamVid"]
        assert known[name] == ["swan", "lake shore"]
    assert [len(names) for names in known.values()][1:] == [80, 124, 34, 32]


def test_the_shipped_model_looks_as_the_studio_s_config_says(tmp_path: Path, parsing_quietly: None) -> None:
    segmenter = segmenter_of(write_video(tmp_path))()
    assert isinstance(segmenter.backbone, Embedded)
    assert isinstance(segmenter.features, JointFeatures)
    assert isinstance(segmenter.modulation, GuidedUpsampling)
    assert tuple(segmenter.backbone.native_size) == (512, 896)
    assert any(True for _ in segmenter.backbone.parameters())


def test_the_config_is_that_of_the_run_alone(tmp_path: Path) -> None:
    content = "model: {backbone: {class_path: StableDiffusion}}"
    (tmp_path / "config.yaml").write_text(content)
    video = tmp_path / "run" / "predictions" / "city" / "street"
    assert studio._config_of(video).name == "predict_masks_embedded.yaml"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(content)
    assert studio._config_of(video) == tmp_path / "run" / "config.yaml"


def test_a_studio_opens_answers_and_closes(tmp_path: Path) -> None:
    run = write_video(tmp_path).parents[1]
    command = [sys.executable, "-m", "zsvss.run", "studio", str(run), "--no-browser"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as at_last,
    ):
        at_last.callback(process.kill)
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.partition("?")[0], timeout=30)
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"Studio" in browser.open(address, timeout=30).read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        said = process.stderr.read()
    assert "the same command goes on with what was annotated" in said
    assert "Traceback" not in said


def test_the_segmentation_ends_with_the_studio(tmp_path: Path) -> None:
    """At any moment, here while it is still importing; a closed terminal comes to what Ctrl-C does."""
    write_video(tmp_path)
    code = (
        "import os, signal, sys; from argparse import Namespace; from pathlib import Path\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # a caller may have it ignored, as nohup does
        "from zsvss.commands.studio import _of_video\n"
        "video, output = map(Path, sys.argv[1:])\n"
        "_, segmenting = _of_video(Namespace(source=video, output=output), [])\n"
        "slow = {'lightning', 'torchmetrics'} & set(sys.modules)\n"
        "print(segmenting._process.pid, segmenting.is_running, *slow, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGHUP); signal.pause()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "frames" / "bands"), str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 128 + signal.SIGHUP, done.stderr
    assert "the studio is closed" in done.stderr
    pid, was_running, *slow = done.stdout.split()
    assert was_running == "True"
    assert not slow, "what takes seconds to import is not needed to open"
    deadline = time.monotonic() + 120
    while _runs(int(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "new" / "predictions").exists()


def _runs(pid: int) -> bool:
    """Whether a process is there, and not only the entry of one that has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
