"""The page as a reader has it: opened from a file in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_in_chromium import opened, pixels, wait_for_frame
from synthetic_run import NUM_FRAMES, VIDEOS, ground_truth, prediction, write_run

from zsvss.results.run_folder import read_run
from zsvss.viz.report_page import render_page

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    runs = [read_run(write_run(folder / name, lag)) for name, lag in (("exact", 0), ("late", 2))]
    path = folder / "report.html"
    path.write_text(render_page(runs))
    return path


@pytest.fixture
def page(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with opened(browser, file.as_uri(), **(getattr(request, "param", None) or {})) as page:
        wait_for_frame(page, 0)
        yield page


def test_slider_moves_the_frame(page: Any) -> None:
    before = {panel: pixels(page, panel) for panel in ("frame", "truth", "final", "difference")}
    page.locator("#slider").fill("5")
    wait_for_frame(page, 5)
    assert page.locator("#frame-says").inner_text() == f"005 · 6/{NUM_FRAMES}"
    assert all(pixels(page, panel) != image for panel, image in before.items())


def test_difference_shows_where_runs_differ(page: Any) -> None:
    page.locator("#slider").fill("5")
    wait_for_frame(page, 5)
    differing = prediction(5, 0) != prediction(5, 2)
    colourful = [max(color) - min(color) > 30 for color in pixels(page, "difference")]
    assert colourful == differing.flatten().tolist()
    caption = page.locator("[data-caption='difference']").inner_text()
    assert caption == f"{100 * differing.mean():.1f} % of the frame"


def test_keyboard(page: Any) -> None:
    page.locator("#browser").scroll_into_view_if_needed()
    page.locator("#slider").focus()
    for key, frame in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", NUM_FRAMES - 1), ("Home", 0)]:
        page.keyboard.press(key)
        wait_for_frame(page, frame)
    page.keyboard.press("ArrowLeft")
    assert page.locator("#slider").input_value() == "0", "there is no frame before the first"
    assert page.locator("#video option:checked").inner_text() == sorted(VIDEOS)[0]
    page.keyboard.press("ArrowDown")
    assert page.locator("#video option:checked").inner_text() == sorted(VIDEOS)[1]


def test_keys_typed_into_the_filter_move_nothing(page: Any) -> None:
    page.locator("#filter").fill("duck")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    assert page.locator("#slider").input_value() == "0"


def test_click_highlights_through_the_video(page: Any) -> None:
    canvas = page.locator("canvas[data-panel='final']")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # The duck is at x 0..15, y 8..23 of 64 x 48 pixels in the first frame.
    canvas.click(position={"x": box["width"] * 8 / 64, "y": box["height"] * 16 / 48})
    page.wait_for_selector("body[data-label='duck']")
    assert page.locator("#legend button[aria-pressed='true']").inner_text() == "duck"
    for frame in (0, 4):
        page.locator("#slider").fill(str(frame))
        wait_for_frame(page, frame)
        bright = [sum(color) > 300 for color in pixels(page, "final")]
        duck = (ground_truth(frame) == 1).flatten().tolist()
        agreement = sum(ours == theirs for ours, theirs in zip(bright, duck, strict=True)) / len(duck)
        assert agreement > 0.97, "the duck is lit, but for its outline, and the rest is dimmed"
    page.keyboard.press("Escape")
    page.wait_for_selector("body[data-label='']")
    page.locator("#legend button", has_text="reed").click()
    page.wait_for_selector("body[data-label='reed']")


def test_filter(page: Any) -> None:
    bars = page.locator("[data-chart='classes'] .mark-rect path[aria-roledescription='bar']")
    videos = page.locator("#video option")
    assert (bars.count(), videos.count()) == (6, 2)
    for words, rows, num_bars, num_videos in [
        ("duck", 2, 2, 2),
        ("late", 1, 3, 2),
        ("late south", 1, 3, 1),
        ("nothing of this kind", 2, 6, 2),
        ("", 2, 6, 2),
    ]:
        page.locator("#filter").fill(words)
        sync_api.expect(bars).to_have_count(num_bars)
        sync_api.expect(videos).to_have_count(num_videos)
        assert page.locator("#result-table tbody tr:visible").count() == rows
    page.locator("#filter").fill("south")
    assert page.locator("#video option:checked").inner_text() == "south"
    assert page.locator("#filter-says").inner_text() == "1 of 2 videos"


def test_differences_follow_the_reference(page: Any) -> None:
    notes = page.locator("#result-table td[data-score='mIoU'] small")
    assert notes.all_inner_texts()[0] == ""
    assert notes.all_inner_texts()[1].startswith("−")
    page.locator("#reference").select_option(label="late")
    assert notes.all_inner_texts()[0].startswith("+")
    assert notes.all_inner_texts()[1] == ""


def test_every_panel_is_filled(page: Any) -> None:
    for chart in ("classes", "videos", "confusion", "time"):
        assert page.locator(f"[data-chart='{chart}'] svg .mark-rect path").count() > 2
    for panel in ("frame", "truth", "coarse", "refined", "final", "difference"):
        assert len({tuple(color) for color in pixels(page, panel)}) > 1
    assert page.locator("#timeline path").count() == 3
    page.locator("#run-b").select_option(label="ground truth")
    sync_api.expect(page.locator("[data-caption='difference']")).to_have_text("0.0 % of the frame")


@pytest.mark.parametrize(
    "page",
    [{"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}],
    indirect=True,
    ids=["phone", "dark"],
)
def test_legible_in_the_dark_and_on_a_phone(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    edges = "[...document.querySelectorAll('.chart svg text')].map(text => text.getBoundingClientRect().right)"
    assert max(page.evaluate(edges)) <= page.evaluate("document.querySelector('section').getBoundingClientRect().right")
    # WCAG's contrast of text on the cards, and of charts' labels.
    script = """selector => {
        const light = color => {
            const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const style = getComputedStyle(document.querySelector(selector));
        const text = light(selector.includes("svg") ? style.fill : style.color);
        const card = light(getComputedStyle(document.querySelector("section")).backgroundColor);
        return (Math.max(text, card) + 0.05) / (Math.min(text, card) + 0.05);
    }"""
    for selector in ("h2", ".note", "#result-table td", "small.worse", "[data-chart='classes'] svg text"):
        assert page.evaluate(script, selector) >= 4.5, selector
