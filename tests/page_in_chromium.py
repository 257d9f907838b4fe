"""A page as a reader has it, in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def opened(browser: Any, address: str, **settings: Any) -> Iterator[Any]:
    """The page, drawn; fails if the console said anything bad or anything was asked for but the page and its parts.

    Args:
        browser: of Playwright.
        address: of the page, with or without what stands after ``#``.
        settings: of the browser's context, such as its viewport; ``says`` is what the console may say.
    """
    says = settings.pop("says", ())
    context = browser.new_context(**settings)
    try:
        page = context.new_page()
        said: list[str] = []
        page.asked = []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asking: page.asked.append(asking.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        yield page
    finally:
        context.close()
    assert [text for text in said if not any(word in text for word in says)] == []
    whole = address.partition("#")[0]
    others = [url for url in page.asked if not url.startswith(("data:", "blob:")) and url.partition("#")[0] != whole]
    folder = whole.removesuffix(".html") + ".parts/"
    assert [url for url in others if not url.startswith(folder)] == []


def pixels(page: Any, panel: str) -> list[list[int]]:
    """RGB of every pixel of a panel."""
    script = """panel => {
        const pen = document.querySelector(`canvas[data-panel="${panel}"]`).getContext("2d");
        return pen.getImageData(0, 0, pen.canvas.width, pen.canvas.height).data.join();
    }"""
    # As text, since Playwright takes a minute for the numbers of a picture.
    values = [int(value) for value in page.evaluate(script, panel).split(",")]
    return [values[index : index + 3] for index in range(0, len(values), 4)]


def wait_for_frame(page: Any, frame: int) -> None:
    """Until a frame, counted from 0, is drawn."""
    page.wait_for_selector(f"body[data-frame='{frame}']")
