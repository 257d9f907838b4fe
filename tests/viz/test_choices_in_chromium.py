"""What a reader chooses on the page: names, what is hidden, keys; and that the page's address keeps it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_in_chromium import opened, pixels, wait_for_frame
from PIL import Image
from synthetic_run import CELL, HEIGHT, NUM_FRAMES, TAXONOMY, VIDEOS, WIDTH, prediction, write_run

from zsvss.data.taxonomy import bit_palette
from zsvss.results.media import STAGES, MediaWriter, media_folder
from zsvss.results.run_folder import read_run
from zsvss.results.segment_colors import palette
from zsvss.viz.report_page import render_page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
ODD_NAME = 'Ente <img src=x onerror=alert(1)> & "Erpel" = 100 %'


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render_page([read_run(write_run(folder / "exact"))]))
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file.as_uri()) as page:
        wait_for_frame(page, 0)
        yield page


def blended(page: Any, color: Any) -> np.ndarray:
    """The frame under a label's colour at the strength that the page begins with."""
    frame_n3 = np.array(pixels(page, "frame"))
    return frame_n3 + 0.7 * (np.asarray(color) - frame_n3)


def lit(page: Any, panel: str, frame: int) -> np.ndarray:
    """Pixels of a panel that are not dimmed, while a label is highlighted."""
    with Image.open(io.BytesIO(base64.b64decode(stored(page)["frames 0"][frame]))) as image:
        frame_n3 = np.asarray(image).reshape(-1, 3)
    return np.abs(np.array(pixels(page, panel)) - (frame_n3 + 0.75 * (np.array([24, 26, 30]) - frame_n3))).max(1) > 8


def stored(page: Any) -> dict[str, Any]:
    """What the page holds of its first video."""
    pieces: dict[str, Any] = json.loads(page.locator("#data").text_content())["videos"][0]["pieces"]
    return pieces


def legend(page: Any) -> list[str]:
    texts: list[str] = page.locator("#legend .name").all_inner_texts()
    return texts


def test_names_stay_with_the_address(browser: Any, file: Path, page: Any) -> None:
    assert legend(page) == ["water", "duck", "reed"]
    page.locator("#legend [aria-label='Rename duck']").click()
    page.keyboard.type(ODD_NAME)
    page.keyboard.press("Enter")
    page.locator("#legend .name", has_text="Ente").click()
    page.keyboard.press("End")
    wait_for_frame(page, NUM_FRAMES - 1)
    page.wait_for_function("location.hash.includes('frame=8') && location.hash.includes('label=duck')")

    def check(page: Any) -> None:
        wait_for_frame(page, NUM_FRAMES - 1)
        assert legend(page) == ["water", ODD_NAME, "reed"]
        assert page.locator("#legend [aria-pressed='true']").inner_text() == ODD_NAME
        sync_api.expect(page.locator("#timeline-says")).to_contain_text(f"Share of the frame that is {ODD_NAME}")
        labels = page.locator("[data-chart='classes'] .role-axis-label text").all_text_contents()
        assert any(label.startswith("Ente <img") for label in labels)
        assert "duck" not in labels

    check(page)
    page.reload()
    check(page)
    with opened(browser, page.url) as another:
        check(another)
        box = another.locator("#browser").bounding_box()
        assert 0 <= box["y"] < 100, "the link leads to what it shows"
        another.locator("#original-names").click()
        assert legend(another) == ["water", "duck", "reed"]
        assert "name" not in another.url


def test_a_hidden_class_has_no_colour(page: Any) -> None:
    duck = (prediction(0, 0) == 1).flatten()
    np.testing.assert_allclose(np.array(pixels(page, "final"))[duck], blended(page, TAXONOMY.palette[1])[duck], atol=1)
    page.locator("#legend [aria-label='Hide duck']").click()

    def check() -> None:
        wait_for_frame(page, 0)
        assert page.locator("#legend .off").all_inner_texts() == ["duck"]
        frame_n3, final_n3 = np.array(pixels(page, "frame")), np.array(pixels(page, "final"))
        np.testing.assert_array_equal(final_n3[duck], frame_n3[duck])
        water = prediction(0, 0).flatten() == 0
        np.testing.assert_allclose(final_n3[water], blended(page, TAXONOMY.palette[0])[water], atol=1)
        bars = page.locator("[data-chart='classes'] .mark-rect path[aria-roledescription='bar']")
        sync_api.expect(bars).to_have_count(2)

    check()
    page.reload()
    check()
    page.keyboard.press("a")
    sync_api.expect(page.locator("#legend .off")).to_have_count(0)
    np.testing.assert_allclose(np.array(pixels(page, "final"))[duck], blended(page, TAXONOMY.palette[1])[duck], atol=1)


def test_keys_work_at_once(page: Any) -> None:
    assert page.evaluate("document.activeElement === document.body && scrollY === 0")
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 1)
    box = page.locator("canvas[data-panel='frame']").bounding_box()
    assert 0 < box["y"] < page.viewport_size["height"], "what the key does is seen"
    listed = page.locator(".keys kbd")
    assert listed.all_inner_texts() == ["←", "→", "Home", "End", "Space", "↑", "↓", ",", ".", "Esc", "R", "H", "A"]
    assert all(key.is_visible() for key in listed.all())
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.wait_for_selector("body[data-label='duck']")
    page.keyboard.press("r")
    page.keyboard.type("Ha")  # keys of their own elsewhere
    page.keyboard.press("Enter")
    page.keyboard.press("h")
    assert page.locator("#legend .off").all_inner_texts() == ["Ha"]
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-label='']")
    page.locator("#video").click()  # by the mouse, which leaves the keys to the browser
    page.locator("#video").select_option(index=1)
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 2)
    page.keyboard.press("ArrowUp")
    page.wait_for_selector(f"body[data-video='{sorted(VIDEOS)[0]}']")
    page.keyboard.press(" ")
    wait_for_frame(page, 4)
    page.keyboard.press(" ")
    assert page.locator("#play").get_attribute("aria-label") == "Play"
    # Where the browser is out of sight, the keys that scroll a page do so.
    shown = page.evaluate("document.body.dataset.frame")
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.querySelector('.panels').style.marginTop = '3000px'; scrollTo(0, 1000)")
    page.wait_for_function("document.querySelector('.panels').getBoundingClientRect().top > innerHeight")
    page.keyboard.press("Home")
    page.wait_for_function("scrollY === 0")
    assert page.evaluate("document.body.dataset.frame") == shown


def test_clusters_beside_classes(page: Any) -> None:
    clusters_hw = 2 * prediction(0, 0)[::CELL, ::CELL] + (np.arange(WIDTH // CELL) >= 4)
    clusters_HW = clusters_hw.repeat(CELL, 0).repeat(CELL, 1)
    colors = palette(6)[clusters_HW].reshape(HEIGHT * WIDTH, 3)
    np.testing.assert_allclose(pixels(page, "clusters"), blended(page, colors), atol=1)
    found = [f"cluster {cluster} → {TAXONOMY.classes[cluster // 2]}" for cluster in np.unique(clusters_hw)]
    assert page.locator("#cluster-legend .name").all_inner_texts() == found
    page.locator("#slider").fill("5")
    wait_for_frame(page, 5)
    assert page.locator("[data-caption='clusters']").inner_text() == "(of the first frame)"
    page.locator("#cluster-legend .name", has_text="cluster 2").click()
    page.wait_for_selector("body[data-label='cluster 2']")
    assert (lit(page, "clusters", frame=0) == (clusters_HW == 2).flatten()).all()
    duck = (prediction(5, 0) == 1).flatten()
    assert (lit(page, "final", frame=5) == duck).all(), "the cluster's class is lit in the other panels"


def test_the_background_of_binary_masks_is_seen(browser: Any, tmp_path: Path) -> None:
    """Of background and object, which have the colours black and dark red, none is as dark as no label."""
    facts = {"video": "swan", "dataset": "own", "video_length": 1, "classes": ("background", "object")}
    facts |= {"palette": bit_palette(2), "labels_are_classes": True}
    run = write_run(tmp_path / "run", media=False)
    writer = MediaWriter(media_folder(run, "test", "swan"), facts, max_side=960)
    labels_HW = np.zeros((16, 24), dtype=np.int64)
    labels_HW[4:12, 8:16] = 1
    labels_HW[:, -4:] = -1
    writer.write("0", np.full((16, 24, 3), 100, np.uint8), labels_HW, dict.fromkeys(STAGES, labels_HW))
    writer.finish({})
    file = tmp_path / "report.html"
    file.write_text(render_page([read_run(run)]))
    with opened(browser, file.as_uri()) as page:
        wait_for_frame(page, 0)
        for panel in ("truth", "final"):
            shown_HW3 = np.array(pixels(page, panel)).reshape(16, 24, 3)
            np.testing.assert_allclose(shown_HW3[0, 0], [108, 125, 148], atol=2)
            np.testing.assert_allclose(shown_HW3[8, 12], [120, 30, 30], atol=2)
            np.testing.assert_allclose(shown_HW3[0, -1], [45, 45, 45], atol=2)
        colors = page.evaluate("[...document.querySelectorAll('#legend .swatch')].map(mark => mark.style.background)")
        assert colors == ["rgb(112, 136, 168)", "rgb(128, 0, 0)"]
        assert page.locator("[data-figure='clusters']").is_hidden(), "labels that were given have no clusters"
