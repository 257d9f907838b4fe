"""Footage as it comes: whole runs over cut videos."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from numbered_videos import encode
from warm_python import WarmPython, command_line

from zsvss.results.predictions import Predictions, Shot, find_predictions

CONFIG = """\
model:
  backbone: Embedded
  context: {num_clusters: 6, initialization: {class_path: WardInitialization, init_args: {stop: 0.05}}}
  refinement: null
  features: {class_path: JointFeatures, init_args: {parts: [{class_path: LabFeatures}, {class_path: PositionFeatures}]}}
  input_size: [128, 192]
  modulation: null
data: {class_path: VideoFolder, init_args: {clip_length: 6, shots: ShotDetector}}
trainer: {accelerator: cpu, devices: 1, enable_progress_bar: false}
"""
"""No network is run for colours, so that a frame takes milliseconds."""


def scene(seed: int, num_frames: int) -> list[np.ndarray]:
    """A coloured disc that moves over coloured ground."""
    rng = np.random.default_rng(seed)
    ground, disc = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    ground[seed % 3], disc[seed % 3] = 220, 20
    grid = np.stack(np.mgrid[:64, :96], -1)
    frames = []
    for number in range(num_frames):
        is_disc = np.square(grid - (32, 20 + 2 * number)).sum(-1) < 18**2
        frames.append(np.where(is_disc[..., None], disc, ground).astype(np.uint8))
    return frames


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "tiny.yaml"


def predict(python: WarmPython, folder: Path, *arguments: object) -> None:
    (done,) = python.run(command_line(["predict", "--config", "tiny.yaml", *arguments], folder))
    assert done.returncode == 0, done.stderr


def test_a_cut_video_has_shots_and_each_scene_labels_of_its_own(
    tmp_path: Path, config: Path, warm_python: WarmPython
) -> None:
    encode(tmp_path / "cut.mp4", scene(0, 20) + scene(1, 15) + scene(0, 20)[10:], crf="12")
    predict(warm_python, tmp_path, "--data.input", "cut.mp4", "--output", "run")
    video = Predictions.read(tmp_path / "run" / "predictions" / "cut")
    assert video.shots == (Shot(0, 20), Shot(20, 15), Shot(35, 10))
    ids = [set(np.unique(video.mask(frame)).tolist()) for frame in range(45)]
    first, second = set().union(*ids[:20]), set().union(*ids[20:35])
    assert not first & second
    assert set().union(*ids[35:]) <= first


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which a server on the loopback has it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_a_stream_is_segmented_until_it_ends(
    tmp_path: Path, config: Path, served: tuple[Path, str], warm_python: WarmPython
) -> None:
    encode(served[0] / "cut.ts", scene(0, 20) + scene(1, 15), crf="12")
    url = served[1].replace("//", "//me:secret@")
    predict(warm_python, tmp_path, f"{url}/cut.ts", "--output", "run")
    (folder,) = find_predictions(tmp_path / "run")
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path for path in written if b"secret" in path.read_bytes()], "no password is written"
    video = Predictions.read(folder)
    assert video.complete
    assert (video.num_frames, video.shots) == (35, (Shot(0, 20), Shot(20, 15)))
    np.testing.assert_allclose(video.frame_times, np.arange(35) / 25, atol=1e-4)
    with av.open(str(folder / "overlay.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(35) / 25, atol=1e-3)


KILL = str(Path(__file__).with_name("kill.py"))


def test_a_killed_run_goes_on_in_mid_video_with_the_same_bits(
    tmp_path: Path, config: Path, warm_python: WarmPython
) -> None:
    encode(tmp_path / "cut.mp4", scene(0, 20) + scene(1, 15) + scene(0, 20)[10:], crf="12")
    options = ["predict", "--config", "tiny.yaml", "--data.input", "cut.mp4", "--output"]
    drawn = ["--model.context.initialization", "null"]  # K-means draws numbers
    whole, killed = warm_python.run(
        command_line([*options, "whole", *drawn], tmp_path),
        command_line([*options, "run", *drawn], tmp_path, (KILL, "at_clip", [6])),
    )
    assert (whole.returncode, killed.returncode) == (0, -9), whole.stderr + killed.stderr
    folder = tmp_path / "run" / "predictions" / "cut"
    assert not (folder / "segments.json").exists()
    num_masks = len(list((folder / "masks").glob("*.png")))
    assert num_masks >= 24, "at most the clip before is lost"
    with av.open(str(folder / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= num_masks - 2

    (again,) = warm_python.run(command_line([*options, "run", *drawn], tmp_path))
    assert again.returncode == 0, again.stderr
    assert "cut goes on at frame" in (tmp_path / "run" / "log.txt").read_text() + again.stderr
    other = tmp_path / "whole" / "predictions" / "cut"
    for mask in sorted((other / "masks").iterdir()):
        assert mask.read_bytes() == (folder / "masks" / mask.name).read_bytes(), mask.name
    assert (folder / "segments.json").read_text() == (other / "segments.json").read_text()
    movies = []
    for place in (folder, other):
        with av.open(str(place / "overlay.mp4")) as container:
            movies.append([frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)])
    assert len(movies[0]) == len(movies[1]) == 45
    assert max(np.abs(a - b).mean() for a, b in zip(*movies, strict=True)) < 3
    assert not list((tmp_path / "run" / "records" / "predict" / "midway").iterdir())
    assert not (folder / "segments.jsonl").exists()


def test_ctrl_c_ends_a_stream_with_whole_files(
    tmp_path: Path, config: Path, served: tuple[Path, str], warm_python: WarmPython
) -> None:
    encode(served[0] / "long.ts", scene(0, 20) * 10, crf="12")
    hook = (str(Path(__file__).parent / "commands" / "interrupt.py"), "behind")
    words = ["predict", "--config", "tiny.yaml", f"{served[1]}/long.ts", "--output", "run"]
    step = ["zsvss.callbacks.prediction_writer", "PredictionWriter", "on_clip_end"]
    (done,) = warm_python.run(command_line(words, tmp_path, (*hook, step)))
    assert done.returncode == 130, done.stderr
    assert "stopped: run holds what was segmented of the stream" in done.stderr
    (folder,) = find_predictions(tmp_path / "run")
    video = Predictions.read(folder)
    assert (video.num_frames, video.complete) == (6, True)
    assert video.mask(5).shape == (64, 96)
    with av.open(str(folder / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 6


def test_a_video_of_one_frame(tmp_path: Path, config: Path, warm_python: WarmPython) -> None:
    encode(tmp_path / "one.mp4", scene(0, 1))
    predict(warm_python, tmp_path, "--data.input", "one.mp4", "--output", "run")
    video = Predictions.read(tmp_path / "run" / "predictions" / "one")
    assert (video.num_frames, video.complete, video.shots) == (1, True, (Shot(0, 1),))
    ids_HW = video.mask(0)
    assert ids_HW[32, 20] not in {ids_HW[2, 90], ids_HW[60, 90]}, "the disc is not the ground"
