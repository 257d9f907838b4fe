"""The pictures of docs/annotate.md: the studio on the frames of docs/swan, in headless Chromium."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from zsvss.bench.studio import served

ROOT = Path(__file__).parents[2]
SIZE = (854, 480)
# What the split leaves to a person in the first frame: neck and head, the tail, the bill.
STROKES = {
    14: [[(482, 300), (470, 225), (447, 140), (440, 95)], [(470, 340), (497, 320)]],
    18: [[(190, 295), (225, 310), (250, 340)]],
    6: [[(450, 95), (468, 108), (478, 122)]],
}


class Annotator:
    """A person at the page.

    Args:
        page: the studio's, in Playwright.
        output: folder of the pictures.
    """

    def __init__(self, page: Any, output: Path) -> None:
        self.page, self.output = page, output

    def changes(self, act: Callable[[], Any]) -> None:
        """Take a step and wait for its end."""
        before = int(self.page.evaluate("document.body.dataset.revision"))
        act()
        self.page.wait_for_function("before => Number(document.body.dataset.revision) > before", arg=before)
        self.page.wait_for_selector("body[data-busy=no]")

    def at(self, place: Sequence[float]) -> tuple[float, float]:
        """Where a pixel of the video is on the page."""
        box = self.page.locator("#strokes").bounding_box()
        return box["x"] + place[0] * box["width"] / SIZE[0], box["y"] + place[1] * box["height"] / SIZE[1]

    def choose(self, place: Sequence[float], *, more: bool = False) -> None:
        """Click what is at a place."""
        before = self.page.evaluate("document.body.dataset.selected")
        if more:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(*self.at(place))
        if more:
            self.page.keyboard.up("Shift")
        self.page.wait_for_function("before => document.body.dataset.selected !== before", arg=before)

    def name(self, name: str) -> None:
        """Name what is chosen."""
        self.page.keyboard.press("n")
        self.page.keyboard.type(name)
        self.changes(lambda: self.page.keyboard.press("Enter"))

    def drag(self, places: Sequence[Sequence[float]]) -> None:
        """Paint a stroke."""
        self.page.mouse.move(*self.at(places[0]))
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*self.at(place), steps=6)
        self.page.mouse.up()

    def go_to(self, frame: int) -> None:
        """Show a frame."""
        self.page.locator("#view").focus()
        self.page.keyboard.press("Home")
        for _ in range(frame):
            self.page.keyboard.press("ArrowRight")
        self.page.wait_for_selector(f"body[data-frame='{frame}']")

    def picture(self, name: str) -> None:
        """Take a picture of the page."""
        self.page.wait_for_function("() => document.body.dataset.shown === document.body.dataset.drawing")
        self.page.wait_for_timeout(400)
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        image.save(self.output / f"{name}.webp", quality=80, method=6)


def annotate(person: Annotator) -> None:
    """What docs/annotate.md tells, in its order."""
    page = person.page
    person.picture("opened")
    person.choose((700, 400))
    person.name("water")
    person.choose((150, 60))
    person.name("leaves")
    person.choose((650, 120))
    person.choose((300, 150), more=True)
    person.changes(lambda: page.keyboard.press("m"))
    person.name("log")
    person.picture("named")
    page.keyboard.press("Escape")
    person.choose((330, 340))
    page.keyboard.press("s")
    page.locator("#parts").fill("3")
    page.wait_for_selector("body[data-preview='3']")
    person.picture("split")
    person.changes(lambda: page.locator("#split-do").click())
    for place, name in [((200, 400), "water"), ((70, 400), "water"), ((330, 340), "swan")]:
        page.keyboard.press("Escape")
        person.choose(place)
        person.name(name)
    page.keyboard.press("b")
    for size, strokes in STROKES.items():
        page.locator("#size").fill(str(size))
        for stroke in strokes:
            person.changes(lambda stroke=stroke: person.drag(stroke))
    person.picture("painted")
    page.locator("#view").focus()
    person.changes(lambda: page.keyboard.press("p"))
    person.go_to(9)
    page.mouse.move(5, 5)
    person.picture("propagated")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "annotate")
    parser.add_argument("--run", type=Path, help="a run on docs/swan that is there already; it is copied")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1100)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        run = Path(place) / "run"
        if args.run is None:
            predict = [sys.executable, "-m", "zsvss.run", "predict", "docs/swan", "--config", "predict_embedded.yaml"]
            subprocess.run([*predict, "--output", str(run)], cwd=ROOT, check=True)
        else:
            shutil.copytree(args.run, run)
        with served(run / "predictions" / "swan") as (address, _):
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
            )
            viewport = {"width": args.width, "height": 760}
            page = chromium.new_context(viewport=viewport, color_scheme=args.scheme).new_page()
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_selector("body[data-ready=yes][data-frame]")
            annotate(Annotator(page, args.output))
            chromium.close()


if __name__ == "__main__":
    main()
