from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicted import labels, predict

from zsvss.callbacks.video_predictions import Meaning
from zsvss.commands.export import main
from zsvss.results.predictions import PredictedClass


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("bear", "swan"):
        predict(tmp_path / "run/predictions", name)
    return tmp_path / "run"


def test_export_of_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--format", "davis", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert f"davis of 2 videos, 12 frames and 12 segments in {tmp_path / 'out'}" in said.out
    for name in ("bear", "swan"):
        path = tmp_path / f"out/Annotations/Full-Resolution/{name}/00002.png"
        np.testing.assert_array_equal(np.asarray(Image.open(path)), labels()[2] + 1)


def test_names_from_the_command_line(run: Path, tmp_path: Path) -> None:
    arguments = [str(run), "--format", "davis", "--videos", "swan", "--names", "1=sky", "2=a b=c"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    names = json.loads((tmp_path / "out/davis_semantics.json").read_text())
    assert list(names) == ["swan"]
    assert [names["swan"][key] for key in ("1", "2", "3")] == ["sky", "a b=c", "segment 3"]


@pytest.mark.parametrize("text", ["swan: {1: sky, 3: reed}", '{"swan": {"1": "sky", "3": "reed"}}'])
def test_names_from_a_file(run: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "names.yaml").write_text(text)
    arguments = [str(run), "--format", "davis", "--names", str(tmp_path / "names.yaml")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    names = json.loads((tmp_path / "out/davis_semantics.json").read_text())
    assert (names["swan"]["1"], names["swan"]["3"], names["bear"]["1"]) == ("sky", "reed", "segment 1")


def test_classes_of_a_test_run(tmp_path: Path) -> None:
    classes = (PredictedClass(0, "water", (40, 90, 200), 3), PredictedClass(1, "duck", (250, 210, 60), 7))
    meaning = Meaning("pond", classes, are_classes=True, colors=np.array([c.color for c in classes], np.uint8))
    labels_THW = np.zeros((2, 8, 9), int)
    labels_THW[:, 2:5, 3:6] = 1
    labels_THW[1, 0] = 2  # void as a label of its own
    video = predict(tmp_path / "run/predictions", "pond", facts=None, labels_THW=labels_THW, meaning=meaning)
    assert [(s.id, s.name, s.class_id) for s in video.segments] == [(1, "water", 0), (2, "duck", 1), (3, "void", None)]
    assert video.classes == classes
    assert main([str(tmp_path / "run"), "--format", "coco", "--output", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out/annotations/instances_default.json").read_text())
    told = [(category["name"], category["color"]) for category in content["categories"]]
    assert told[:2] == [("water", [40, 90, 200]), ("duck", [250, 210, 60])]


def test_clusters_named_after_the_run(tmp_path: Path) -> None:
    classes = tuple(PredictedClass(number, name, (number, 9, 9), number) for number, name in enumerate(("sky", "road")))
    labels_THW = np.arange(3).repeat(12).reshape(1, 4, 9)
    video = predict(tmp_path, facts=None, labels_THW=labels_THW, meaning=Meaning("two", classes), names={0: 1, 2: 1})
    assert [(s.name, s.class_id) for s in video.segments] == [("road", 1), ("segment 2", None), ("road", 1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "cooc"], "there is no format 'cooc'. Did you mean coco?"),
        (["--format", "coco", "--videos", "cat"], "has no video cat; it has bear, swan"),
        (["--format", "coco", "--names", "1=sky"], "and there are 2: choose one by --videos"),
        (["--format", "coco", "--names", "1=sky", "2"], "--names has '2'; give ID=NAME"),
        (["--format", "coco", "--names", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["--format", "coco", "--videos", "swan", "--names", "one=sky"], "an id is a whole number from 1"),
        (["--format", "coco", "--videos", "swan", "--names", "77=sky"], "swan has no segment 77"),
        (["--format", "yolo", "--tolerance", "-1"], "--tolerance is -1.0"),
        (["--format", "cityscapes"], "Cityscapes has no label 'segment 1'"),
    ],
)
def test_mistakes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main([str(run), *options, "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupted_video_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(tmp_path / "swan", "swan")
    path = tmp_path / "swan/swan/segments.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "complete": False, "video_length": 50}))
    assert main([str(tmp_path / "swan"), "--format", "numpy", "--output", str(tmp_path / "out")]) == 0
    assert "note: swan: 6 of 50 frames, since the run was interrupted" in capsys.readouterr().out


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--format", "coco", "--output", str(tmp_path / "out")]) == 1
    assert "holds no predictions" in capsys.readouterr().err
