"""The page of predictions, which have no ground truth, as a reader has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_in_chromium import opened, pixels, wait_for_frame
from PIL import Image
from predicted import HEIGHT, NUM_FRAMES, WIDTH, labels, predict

from zsvss.results.segment_colors import palette
from zsvss.run import main

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
FILES = tuple(f"{number:05d}.png" for number in range(NUM_FRAMES))
LABELS = (0, 1, 2, 4, 7, 9)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of predictions on images that are still there."""
    folder = tmp_path_factory.mktemp("predicted")
    (folder / "frames").mkdir()
    for number, name in enumerate(FILES):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * number, 90, 60)).save(folder / "frames" / name)
    predict(folder / "run" / "predictions", files=FILES, path=str(folder / "frames"))
    assert main(["report", str(folder / "run")]) == 0
    return folder / "run" / "report.html"


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file.as_uri()) as page:
        wait_for_frame(page, 0)
        yield page


def test_segments_over_frames(page: Any) -> None:
    page.keyboard.press("End")
    wait_for_frame(page, NUM_FRAMES - 1)
    frame_n3 = np.array(pixels(page, "frame"))
    assert np.abs(frame_n3 - [20 * (NUM_FRAMES - 1), 90, 60]).max() <= 3, "the frames come from where they were"
    labels_n = labels()[-1].flatten()
    colors_n3 = np.where(labels_n[:, None] < 0, 0, palette(10)[labels_n])
    weight_n1 = np.where(labels_n < 0, 0.55, 0.7)[:, None]
    np.testing.assert_allclose(pixels(page, "final"), frame_n3 + weight_n1 * (colors_n3 - frame_n3), atol=1)
    assert page.locator("#legend .name").all_inner_texts() == [f"segment {label + 1}" for label in LABELS]


def test_area_over_time(page: Any) -> None:
    assert page.locator("#timeline path").count() == len(LABELS) + 1, "a line a segment and one for the frame"
    page.locator("#legend .name", has_text="segment 8").click()
    page.wait_for_selector("body[data-label='segment 8']")
    said = page.locator("#timeline-says")
    areas = (labels() == 7).mean((1, 2))
    for frame in (0, 2):
        page.locator("#slider").fill(str(frame))
        wait_for_frame(page, frame)
        sync_api.expect(said).to_contain_text(f"segment 8 {100 * areas[frame]:.1f} %")
    # Gone in two frames, and back.
    stretches = page.locator("[data-track='4'] rect")
    assert [(rect.get_attribute("x"), rect.get_attribute("width")) for rect in stretches.all()] == [
        *(("0", "2"), ("4", "2"))
    ]


def test_table_and_names(page: Any) -> None:
    text = page.inner_text("body")
    assert "Predictions of 1 run, without ground truth" in text
    assert not [word for word in ("mIoU", "VC", "Ablation", "Confusion", "Ground truth") if word in text]
    rows = page.locator("#segment-table tbody tr")
    sizes = [(labels() == label).sum((1, 2)) / (HEIGHT * WIDTH) for label in LABELS]
    expected = [
        f"segment {label + 1}\t{label + 1}\t{(size > 0).sum()}\t{1 + np.flatnonzero(size)[0]}\t"
        f"{1 + np.flatnonzero(size)[-1]}\t{100 * size[size > 0].mean():.1f}\t{100 * size.max():.1f}"
        for label, size in zip(LABELS, sizes, strict=True)
    ]
    assert [text.rpartition("\t")[0] for text in rows.all_inner_texts()] == expected
    page.locator("#legend [aria-label='Rename segment 2']").click()
    page.keyboard.type("ring")
    page.keyboard.press("Enter")
    page.locator("#legend [aria-label='Hide segment 1']").click()
    page.reload()
    wait_for_frame(page, 0)
    assert page.locator("#tracks button").all_inner_texts()[0] == "ring"
    assert rows.first.inner_text().startswith("ring\t2\t")
    sky = labels()[0].flatten() == 0
    np.testing.assert_array_equal(np.array(pixels(page, "final"))[sky], np.array(pixels(page, "frame"))[sky])


def test_segments_of_one_name_are_hidden_one_by_one(browser: Any, tmp_path: Path) -> None:
    segments_file = predict(tmp_path / "run" / "predictions").folder / "segments.json"
    content = json.loads(segments_file.read_text())
    for segment in content["segments"][:2]:
        segment["name"] = "tree"
    segments_file.write_text(json.dumps(content))
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "page.html")]) == 0
    with opened(browser, (tmp_path / "page.html").as_uri()) as page:
        wait_for_frame(page, 0)
        page.locator("#legend [aria-label='Hide tree']").first.click()
        assert page.locator("#legend .off").all_inner_texts() == ["tree"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_legible_on_a_phone(browser: Any, file: Path, scheme: str) -> None:
    with opened(browser, file.as_uri(), viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
        wait_for_frame(page, 0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_frames_that_are_gone(browser: Any, tmp_path: Path) -> None:
    predict(tmp_path / "run" / "predictions", path=str(tmp_path / "gone.mp4"))
    page_file = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "run"), "--output", str(page_file)]) == 0
    with opened(browser, page_file.as_uri()) as page:
        wait_for_frame(page, 0)
        told = page.locator("#browser-says").inner_text()
        assert told.startswith("The frames cannot be read (")
        assert "gone.mp4" in told
        assert told.endswith("segments are shown without them.")
        page.keyboard.press("ArrowRight")
        wait_for_frame(page, 1)
        assert page.locator("#frame-says").inner_text() == f"00001 · 2/{NUM_FRAMES} · 0.04 s"
        # Pixels that are 4:3 are shown so.
        assert page.evaluate("document.querySelector('canvas').width") == round(WIDTH * 4 / 3)
