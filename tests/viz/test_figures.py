"""The figures of `experiments` that are drawn from run folders."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from synthetic_run import HEIGHT, NUM_FRAMES, TAXONOMY, WIDTH, ground_truth, prediction, write_run

from zsvss.results.media import shared_video

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / name / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> np.ndarray:
    output = Path(str(arguments[-1]))
    monkeypatch.setattr(sys, "argv", ["make.py", *map(str, arguments[:-1]), "--output", str(output)])
    load(name).main()
    with Image.open(output) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def nearest_class(colors: np.ndarray, brightness: int = 0) -> np.ndarray:
    """Class of each colour of an overlay of weight 0.75."""
    palette = 0.75 * np.array(TAXONOMY.palette) + brightness
    return np.abs(colors[..., None, :] - palette).sum(-1).argmin(-1)


def test_slices_are_rows_through_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write_run(tmp_path / name, lag) for name, lag in (("late", 3), ("exact", 0))]
    row = 16  # the duck swims through it
    image = draw(monkeypatch, "figure_teaser", "--runs", *runs, "--row", row, "--video", "south", tmp_path / "x.png")
    module = load("figure_teaser")
    columns, rest = divmod(image.shape[1] + module.GAP, module.COLUMN + module.GAP)
    assert (columns, rest) == (4, 0), "video, ground truth, both runs"
    for column, expected_TW in (
        (1, np.stack([ground_truth(t)[row] for t in range(NUM_FRAMES)])),
        (2, np.stack([prediction(t, 3)[row] for t in range(NUM_FRAMES)])),
        (3, np.stack([prediction(t, 0)[row] for t in range(NUM_FRAMES)])),
    ):
        left = column * (module.COLUMN + module.GAP)
        slice_THW = image[-module.SLICE :, left : left + module.COLUMN]
        y = (np.arange(NUM_FRAMES) + 0.5) * module.SLICE / NUM_FRAMES
        x = (np.arange(WIDTH) + 0.5) * module.COLUMN / WIDTH
        centres_TW3 = slice_THW[y.astype(int)[:, None], x.astype(int)]
        np.testing.assert_array_equal(nearest_class(centres_TW3, 30), expected_TW)


def test_row_that_crosses_most(tmp_path: Path) -> None:
    (media,) = shared_video([write_run(tmp_path / "run")])
    assert 8 <= load("figure_teaser").busiest_row(media) < 24, "where the duck is"


def test_systems_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [write_run(tmp_path / name, lag) for name, lag in (("late", 3), ("exact", 0))]
    image = draw(monkeypatch, "figure_qualitative", "--runs", *runs, "--frames", 0, 5, tmp_path / "systems.png")
    module = load("figure_qualitative")
    assert image.shape == (4 * (HEIGHT + module.GAP), module.MARGIN + 2 * (WIDTH + module.GAP), 3)
    rows = [
        image[i * (HEIGHT + module.GAP) :][:HEIGHT, module.MARGIN + WIDTH + module.GAP :][:, :WIDTH] for i in range(4)
    ]
    np.testing.assert_array_equal(rows[3][:40], rows[1][:40])  # void below
    assert (rows[2] != rows[1]).any()


def test_runs_without_a_common_video(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", media=False)]
    with pytest.raises(ValueError, match="media of one video are needed in each; all of them keep none"):
        shared_video(runs)
    with pytest.raises(ValueError, match="media of east are needed in each; all of them keep north/01, south"):
        shared_video(runs[:1], video="east")
