"""Exports read back by the formats' own libraries, in an environment of their own: `make test-readers`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicted import HEIGHT, NUM_FRAMES, WIDTH, labels, predict

from zsvss.data.class_lists import CITYSCAPES_LABELS
from zsvss.results.exports.base import Options
from zsvss.results.exports.writing import export, renamed
from zsvss.viz.overlay import segment_boundaries

pytestmark = pytest.mark.readers

PYTHON = Path(__file__).parents[3] / ".venv-readers/bin/python"  # of the Makefile
IDS = labels() + 1
SEGMENTS = [1, 2, 3, 5, 8, 10]
CITYSCAPES = dict(zip(SEGMENTS, ("sky", "car", "pole", "person", "road", "road"), strict=True))


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the libraries read."""
    root = tmp_path_factory.mktemp("readers")
    files = tuple(f"{number:05d}.png" for number in range(NUM_FRAMES))
    (root / "frames").mkdir()
    for name in files:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "frames" / name)
    images = predict(root, "images", path=str(root / "frames"), files=files)
    video = predict(root, "video")
    for name in ("coco", "yolo", "cvat-images", "label-studio", "camvid", "cityscapes", "cvat-video"):
        source = video if name == "cvat-video" else renamed(images, CITYSCAPES) if name == "cityscapes" else images
        frames = name in ("coco", "yolo", "cvat-images", "camvid")
        export(name, [source], root / "out" / name, Options(frames=frames))
    export("label-studio-video", [video], root / "out/label-studio-video")
    script = Path(__file__).with_name("read_back.py")
    subprocess.run([PYTHON, script, root / "out", root / "read.npz"], check=True, timeout=600)
    with np.load(root / "read.npz") as content:
        return dict(content)


@pytest.mark.parametrize("name", ["coco", "panoptic", "cvat-images", "label-studio"])
def test_masks_are_the_same_to_the_pixel(read: dict[str, np.ndarray], name: str) -> None:
    np.testing.assert_array_equal(read[name], IDS)


def test_camvid(read: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(np.array([0, *SEGMENTS])[read["camvid"]], IDS)


def borders(ids_HW: np.ndarray) -> np.ndarray:
    """Pixels beside a border."""
    lines_HW = segment_boundaries(ids_HW)
    return lines_HW | segment_boundaries(ids_HW[::-1, ::-1])[::-1, ::-1]


def test_polygons_of_cvat(read: dict[str, np.ndarray]) -> None:
    """Pycocotools rounds a polygon's borders, so that only pixels beside a border may differ."""
    for found_HW, ids_HW in zip(read["cvat-video"], IDS, strict=True):
        differs_HW = found_HW != ids_HW
        assert not (differs_HW & ~borders(ids_HW)).any()
        assert differs_HW.sum() <= 0.03 * borders(ids_HW).sum()


def test_polygons_of_yolo(read: dict[str, np.ndarray]) -> None:
    """OpenCV rounds corners to pixels and fills border lines as well, so that borders may move by a pixel."""
    assert read["yolo_classes"].tolist() == [f"segment {number}" for number in SEGMENTS]
    for masks_CHW, ids_HW in zip(read["yolo"], IDS, strict=True):
        for mask_HW, number in zip(masks_CHW, SEGMENTS, strict=True):
            wanted_HW = ids_HW == number
            grown_HW = np.pad(wanted_HW, 2)
            grown_HW = np.any([np.roll(grown_HW, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)
            assert not (mask_HW & ~grown_HW[2:-2, 2:-2]).any()
            assert not (wanted_HW & ~mask_HW & ~borders(wanted_HW)).any()


def test_polygons_of_cityscapes(read: dict[str, np.ndarray]) -> None:
    for drawn_HW, ids_HW in zip(read["cityscapes"], IDS, strict=True):
        label_ids = {number: CITYSCAPES_LABELS[name][0] for number, name in CITYSCAPES.items()} | {0: 0}
        wanted_HW = np.vectorize(label_ids.get)(ids_HW)
        assert not ((drawn_HW != wanted_HW) & ~borders(wanted_HW)).any()


def test_the_labels_of_cityscapes(read: dict[str, np.ndarray]) -> None:
    table = {name: (int(number), (int(r), int(g), int(b))) for name, number, r, g, b in read["cityscapes_labels"]}
    assert table == CITYSCAPES_LABELS


def test_boxes_of_label_studio(read: dict[str, np.ndarray]) -> None:
    for number in SEGMENTS:
        rows = [row for row in read["label-studio-video"] if row[0] == number]
        present = [frame for frame in range(NUM_FRAMES) if (IDS[frame] == number).any()]
        assert [int(row[1]) - 1 for row in rows] == present
        for row, frame in zip(rows, present, strict=True):
            ys, xs = np.nonzero(IDS[frame] == number)
            box = [xs.min() / WIDTH, ys.min() / HEIGHT, (np.ptp(xs) + 1) / WIDTH, (np.ptp(ys) + 1) / HEIGHT]
            assert row[2:] == pytest.approx(100 * np.array(box), abs=1e-3)
