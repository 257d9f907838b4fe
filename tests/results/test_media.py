from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zsvss.results.media import STAGES, MediaWriter, VideoMedia, media_folder, read_media
from zsvss.stages.nearest_resizing import nearest

FACTS = {
    "video": "city/01",
    "dataset": "two",
    "video_length": 9,
    "classes": ("sky", "road"),
    "palette": ((10, 20, 30), (200, 100, 0)),
    "labels_are_classes": True,
}


def write(run: Path, labels_Thw: np.ndarray, names: dict[int, int] | None = None, **facts: Any) -> VideoMedia:
    """Media of a video whose stages differ by a constant: refined is one more than coarse, final two."""
    folder = media_folder(run, "test", FACTS["video"])
    writer = MediaWriter(folder, FACTS | facts, max_side=960)
    for number, labels_hw in enumerate(labels_Thw):
        final_HW = (labels_hw + 2 * (labels_hw >= 0)).repeat(4, 0).repeat(4, 1)
        stages = dict(zip(STAGES, (labels_hw, labels_hw + (labels_hw >= 0), final_HW), strict=True))
        frame_HW3 = np.full((*final_HW.shape, 3), 50 + number, dtype=np.uint8)
        writer.write(f"f{number}", frame_HW3, final_HW % 2 if number != 1 else None, stages)
    writer.finish(names or {})
    return VideoMedia.read(folder)


def test_round_trip(tmp_path: Path) -> None:
    labels_Thw = np.random.default_rng(0).integers(-1, 200, (3, 4, 6))
    media = write(tmp_path, labels_Thw)
    assert [media.video for media in read_media(tmp_path)] == ["city/01"]
    assert (media.height, media.width, media.frame_names) == (16, 24, ("f0", "f1", "f2"))
    assert (media.video_length, media.labelled) == (9, (True, False, True))
    assert media.classes == FACTS["classes"]
    for number, labels_hw in enumerate(labels_Thw):
        np.testing.assert_array_equal(media.labels("coarse", number), labels_hw)
        np.testing.assert_array_equal(media.labels("refined", number), labels_hw + (labels_hw >= 0))
        assert media.labels("final", number).shape == (16, 24)
        assert abs(int(media.frame(number).mean()) - 50 - number) <= 1
    assert media.ground_truth(1) is None
    np.testing.assert_array_equal(media.ground_truth(0), np.maximum(media.labels("final", 0), -1) % 2)


def test_images_can_be_looked_at(tmp_path: Path) -> None:
    media = write(tmp_path, np.array([[[0, 1], [-1, -1]]]))
    with Image.open(media.path("coarse", 0)) as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGB"))
    assert shown.tolist() == [[list(color) for color in FACTS["palette"]], [[0, 0, 0]] * 2]


def test_ids_that_fit_no_pixel(tmp_path: Path) -> None:
    labels_Thw = np.array([[[0, 256]], [[300, 256]], [[-1, 255]]])
    media = write(tmp_path, labels_Thw)
    assert [media.labels("coarse", number).tolist() for number in range(3)] == labels_Thw.tolist()
    many = write(tmp_path, np.arange(1000, 1400).reshape(1, 1, -1)).labels("coarse", 0)[0]
    kept = many >= 0
    np.testing.assert_array_equal(many[kept], np.arange(1000, 1400)[kept])
    assert 100 < kept.sum() < 128, "where values run out, pixels have no label rather than a wrong one"


def test_clusters_named_after_the_run(tmp_path: Path) -> None:
    media = write(tmp_path, np.array([[[0, 3, 5, -1]]]), names={0: 1, 3: 0}, labels_are_classes=False)
    assert media.labels("coarse", 0).tolist() == [[1, 0, 2 + 5, -1]]
    assert media.labels("coarse", 0, named=False).tolist() == [[0, 3, 5, -1]]
    assert media.colors[:2].tolist() == [list(color) for color in FACTS["palette"]]


def test_clusters_that_took_classes_inside_the_method(tmp_path: Path) -> None:
    clusters_hw = np.array([[0, 1, 300], [5, 5, 0]])
    classes_hw = np.array([[1, 0, -1], [1, 1, 1]])
    folder = tmp_path / "v"
    writer = MediaWriter(folder, FACTS, max_side=960)
    writer.write_clusters(clusters_hw, classes_hw)
    for name in "ab":
        writer.write(name, np.zeros((4, 6, 3), np.uint8), None, dict.fromkeys(STAGES, classes_hw))
    writer.finish({})
    media = VideoMedia.read(folder)
    np.testing.assert_array_equal(media.clusters(0), clusters_hw)
    assert media.clusters(1) is None
    assert media.cluster_names == {0: 1, 1: 0, 5: 1, 300: -1}


def test_media_of_older_runs_are_read(tmp_path: Path) -> None:
    media = write(tmp_path, np.array([[[0, 3]]]), names={0: 1}, labels_are_classes=False)
    path = media.folder / "video.json"
    content = json.loads(path.read_text())
    del content["first_names"]
    path.write_text(json.dumps(content))
    again = VideoMedia.read(media.folder)
    assert again.cluster_names == {0: 1}
    np.testing.assert_array_equal(again.clusters(0), media.labels("final", 0, named=False))


def test_no_class_is_black(tmp_path: Path) -> None:
    media = write(tmp_path, np.array([[[0, 1, -1]]]), palette=((0, 0, 0), (128, 0, 0)))
    assert media.colors[:3].tolist() == [[112, 136, 168], [128, 0, 0], [0, 0, 0]], "the third is void as a label"
    with Image.open(media.path("coarse", 0)) as image:
        assert np.asarray(image.convert("RGB"))[0].tolist() == [[112, 136, 168], [128, 0, 0], [0, 0, 0]]


def test_large_frames_are_scaled_down(tmp_path: Path) -> None:
    writer = MediaWriter(tmp_path / "v", FACTS, max_side=32)
    final_HW = np.random.default_rng(0).integers(0, 9, (48, 64))
    tokens_hw = np.zeros((3, 4), dtype=np.int64)
    labels = {"coarse": tokens_hw, "refined": tokens_hw, "final": final_HW}
    writer.write("a", np.zeros((48, 64, 3), np.uint8), final_HW[:24], labels)
    writer.finish({})
    media = VideoMedia.read(tmp_path / "v")
    assert media.frame(0).shape == (24, 32, 3)
    assert (media.height, media.width) == (24, 32)
    assert media.ground_truth(0).shape == (24, 32)
    import torch

    expected = nearest(torch.from_numpy(final_HW), (24, 32)).numpy()
    np.testing.assert_array_equal(media.labels("final", 0), expected)


def test_a_video_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, np.zeros((2, 2, 2), dtype=np.int64))
    folder = media_folder(tmp_path, "test", FACTS["video"])
    writer = MediaWriter(folder, FACTS, max_side=960)
    tokens_hw = np.ones((2, 2), dtype=np.int64)
    writer.write("a", np.zeros((8, 8, 3), np.uint8), None, dict.fromkeys(STAGES, tokens_hw))
    (media,) = read_media(tmp_path)
    assert media.num_frames == 2, "the old one is valid until the new one is whole"
    again = MediaWriter(folder, FACTS, max_side=960)
    again.write("b", np.zeros((8, 8, 3), np.uint8), None, dict.fromkeys(STAGES, tokens_hw))
    again.finish({})
    (media,) = read_media(tmp_path)
    assert media.frame_names == ("b",)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("content", ["{", "{}", json.dumps({"video": "a"})])
def test_damaged_description(tmp_path: Path, content: str) -> None:
    media = write(tmp_path, np.zeros((1, 2, 2), dtype=np.int64))
    (media.folder / "video.json").write_text(content)
    with pytest.raises(ValueError, match=r"video\.json is missing or damaged; delete"):
        read_media(tmp_path)
