from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from predicted import FACTS, HEIGHT, STAMPS, WIDTH, labels, predict
from scipy.ndimage import label

from zsvss.results.predictions import FILE, Predictions, PredictionsError, find_predictions

IDS = labels() + 1


def test_what_was_written_is_read(tmp_path: Path) -> None:
    read = predict(tmp_path, path="/videos/swan.mp4")
    assert (read.video, read.height, read.width, read.num_frames) == ("swan", HEIGHT, WIDTH, 6)
    assert (read.complete, read.video_length, read.overlay_alpha) == (True, 6, None)
    assert (read.labels_are_classes, read.taxonomy, read.classes, read.settings) == (False, None, (), {"a": 1})
    assert read.frame_times == tuple(stamp / 1000 for stamp in STAMPS)
    assert read.mask_files == tuple(f"masks/{name}.png" for name in read.frame_names)
    source = read.source
    assert (source.path, source.files, source.fps) == ("/videos/swan.mp4", None, FACTS.fps)
    assert (source.duration, source.time_base) == (0.25, Fraction(1, 1000))
    assert source.sample_aspect_ratio == Fraction(4, 3)
    for frame, ids_HW in enumerate(IDS):
        np.testing.assert_array_equal(read.mask(frame), ids_HW)


def test_segments_are_what_the_masks_show(tmp_path: Path) -> None:
    read = predict(tmp_path)
    assert [segment.id for segment in read.segments] == [1, 2, 3, 5, 8, 10]
    assert [segment.name for segment in read.segments][:2] == ["segment 1", "segment 2"]
    for segment in read.segments:
        masks_THW = segment.id == IDS
        present = np.flatnonzero(masks_THW.any((1, 2)))
        assert segment.frames.tolist() == present.tolist()
        assert [segment.is_in(frame) for frame in range(6)] == masks_THW.any((1, 2)).tolist()
        parts = [label(masks_THW[frame], np.ones((3, 3)))[1] for frame in present]
        assert (segment.parts.tolist(), segment.num_parts) == (parts, max(parts))
        assert (segment.first_frame, segment.last_frame) == (present[0], present[-1])
        assert segment.areas.tolist() == masks_THW[present].sum((1, 2)).tolist()
        for index, frame in enumerate(present):
            rows, columns = np.nonzero(masks_THW[frame])
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert segment.boxes[index].tolist() == box
        _, rows, columns = np.nonzero(masks_THW)
        assert segment.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    by_id = {segment.id: segment for segment in read.segments}
    assert by_id[8].frames.tolist() == [0, 1, 4, 5]
    assert by_id[8].num_parts == 1, "pixels that touch at a corner are connected"


def test_images_have_names_and_no_times(tmp_path: Path) -> None:
    files = tuple(f"IMG_{number}.jpg" for number in range(6))
    read = predict(tmp_path, path="/frames", files=files)
    assert (read.source.files, read.frame_times, read.source.fps) == (files, None, None)


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "is of version 1, this zsvss reads version 2; delete .* and start the run again"),
        ({"version": 3}, "is of version 3"),
        ({"labels": "pixels"}, r"segments\.json is damaged \(KeyError: 'pixels'\)"),
        ({"segments": [{"id": 1}]}, "is damaged"),
        ({"source": None}, "is damaged"),
    ],
)
def test_other_content(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    predict(tmp_path)
    edit(tmp_path / "swan", **changes)
    with pytest.raises(PredictionsError, match=message):
        Predictions.read(tmp_path / "swan")


@pytest.mark.parametrize("content", ["", "[1]", '{"version": 2'])
def test_damaged_files(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(PredictionsError, match=r"segments\.json is damaged"):
        Predictions.read(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"segments\.json cannot be read \(No such file"):
        Predictions.read(tmp_path)


def test_masks_are_needed_for_pixels(tmp_path: Path) -> None:
    predict(tmp_path)
    edit(tmp_path / "swan", mask_files=None)
    with pytest.raises(PredictionsError, match=r"has no masks: .*--predictions\.masks true"):
        Predictions.read(tmp_path / "swan").mask(0)


def test_predictions_of_a_run_are_found(tmp_path: Path) -> None:
    for name in ("b", "a", "north/01"):
        predict(tmp_path / "run" / "predictions", name, labels_THW=np.zeros((1, 4, 4), int))
    folder = tmp_path / "run" / "predictions"
    found = [folder / name for name in ("a", "b", "north/01")]
    assert find_predictions(tmp_path / "run") == find_predictions(folder) == found
    assert find_predictions(folder / "b") == [folder / "b"]


def test_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="is not a folder; give a run folder"):
        find_predictions(tmp_path / "nowhere")
    with pytest.raises(PredictionsError, match="holds no predictions"):
        find_predictions(tmp_path)
    (tmp_path / "records" / "test").mkdir(parents=True)
    with pytest.raises(PredictionsError, match=r"test run that kept no predictions; .*--predictions\.in_test true"):
        find_predictions(tmp_path)
