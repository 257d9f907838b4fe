"""``zsvss bench --studio``: how long the studio's page lets a person wait, in a real browser.

The video is generated, at 854x480 by default; its predictions are its true classes. Its frames are JPEG images, or with
``--video`` one H.264 file, of which a frame can be decoded only after those from the key frame before it. Chromium
shows the page, without a GPU, on the same cores as the server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from zsvss.callbacks.video_predictions import Origin, VideoPredictions
from zsvss.commands.studio import segmenter_of
from zsvss.data.reader import open_frames
from zsvss.data.scenes import Scene, scene_split
from zsvss.results.fingerprint import code_version
from zsvss.viz.browser_video import BrowserVideo

if TYPE_CHECKING:
    from zsvss.studio.open_video import Desk

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TOKEN = "bench"
_KEYS = """async keys => {
    const seconds = [];
    for (const key of keys) {
        const before = performance.now();
        const shown = new Promise(done => document.addEventListener("studio:shown", done, {once: true}));
        document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        await shown;
        seconds.push((performance.now() - before) / 1000);
        await new Promise(done => setTimeout(done, 40));
    }
    return seconds;
}"""
_JUMPS = """async numbers => {
    const seconds = [];
    const slider = document.querySelector("#slider");
    for (const number of numbers) {
        const before = performance.now();
        const shown = new Promise(done => document.addEventListener("studio:shown", done, {once: true}));
        slider.value = number;
        slider.dispatchEvent(new Event("input"));
        await shown;
        seconds.push((performance.now() - before) / 1000);
    }
    return seconds;
}"""
_PLAY = """async count => {
    const seconds = [];
    let before = null;
    const all = new Promise(done => {
        const listen = () => {
            const now = performance.now();
            if (before !== null) seconds.push((now - before) / 1000);
            before = now;
            if (seconds.length < count) return;
            document.removeEventListener("studio:shown", listen);
            done();
        };
        document.addEventListener("studio:shown", listen);
    });
    document.querySelector("#play").click();
    await all;
    document.querySelector("#play").click();
    return seconds;
}"""
_CLICKS = """async places => {
    const seconds = [];
    const sheet = document.querySelector("#strokes");
    const box = sheet.getBoundingClientRect();
    for (const [x, y] of places) {
        const before = performance.now();
        const shown = new Promise(done => document.addEventListener("studio:shown", done, {once: true}));
        const at = {clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true, button: 0};
        sheet.dispatchEvent(new PointerEvent("pointerdown", at));
        await shown;
        seconds.push((performance.now() - before) / 1000);
        await new Promise(done => setTimeout(done, 40));
    }
    return seconds;
}"""
_PROPAGATION = """async clip => {
    const busy = () => Number(document.querySelector("#doing").textContent.match(/\\d+/)?.[0] ?? 0);
    const before = performance.now();
    document.querySelector("#propagate").click();
    while (!(busy() >= clip)) await new Promise(done => setTimeout(done, 5));
    return (performance.now() - before) / 1000;
}"""


@dataclass
class Wait:
    """How long something takes, in seconds.

    Attributes:
        what: for people.
        wanted: that it should take at most; None where nothing is promised.
        seconds: of every time, by the clock.
        processor_seconds: of the server and the network together, where that is told.
    """

    what: str
    wanted: float | None
    seconds: list[float]
    processor_seconds: float | None = None


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None  # type: ignore[assignment]  # absent, as told below
    if browser is None or sync_playwright is None or find_spec("psutil") is None:
        print(
            "error: the studio's page is measured in a browser: pip install playwright psutil, "
            "apt-get install chromium",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="zsvss-bench-") as place:
        size = options.size[0], options.size[1]
        folder = write_video(Path(place), size, options.frames, as_file=options.video)
        with served(folder) as (address, desk), sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_selector("body[data-ready=yes][data-frame]")
            waits, memory = measure(page, desk)
            chromium.close()
    _show(waits, memory, options)
    if options.json:
        record = {"size": options.size, "frames": options.frames, "video": options.video, "code": code_version()}
        record |= {"memory": memory, "waits": [asdict(wait) for wait in waits]}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


def measure(page: Any, desk: Desk) -> tuple[list[Wait], dict[str, float]]:
    """Do what a person does on the page, and look at the clock.

    Args:
        page: the studio's, in Playwright.
        desk: the video's.

    Returns:
        what was waited for, and the bytes that the page and the server take when frames were looked at.
    """
    generator, num_frames = np.random.default_rng(0), desk.num_frames()
    begin = time.perf_counter()
    steps = min(40, num_frames - 1)
    forward = page.evaluate(_KEYS, ["ArrowRight"] * steps)
    back = page.evaluate(_KEYS, ["ArrowLeft"] * steps)
    desk.session().frames.wait_for_copies()
    copied = time.perf_counter() - begin
    jumps = page.evaluate(_JUMPS, generator.permutation(num_frames)[:20].tolist())
    played = page.evaluate(_PLAY, 60)
    clicks = page.evaluate(_CLICKS, generator.uniform(0.05, 0.95, (30, 2)).round(3).tolist())
    memory = _memory()
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.wait_for_selector("body[data-frame='0']")
    page.keyboard.press("a")
    page.wait_for_selector("#propagate:not([disabled])")
    start = time.process_time()
    first = page.evaluate(_PROPAGATION, 4)
    processor = time.process_time() - start
    page.locator("#stop").click()
    waits = [
        Wait("a frame forward", 0.05, forward),
        Wait("a frame back", 0.05, back),
        Wait("a jump anywhere", None, jumps),
        Wait("from frame to frame while it plays", None, played),
        Wait("a click until its segment is lit", 0.1, clicks),
        Wait("the first four propagated frames", 5.0, [first], processor),
    ]
    if desk.session().original.source.files is None:
        waits.insert(2, Wait("until all frames of the file are copied", None, [copied]))
    return waits, memory


def _memory() -> dict[str, float]:
    """Bytes that belong to this process, which is the server and its network, and to the browser's processes."""
    import psutil  # type: ignore[import-untyped]  # it has no stubs here

    here = psutil.Process()
    browser = [one for one in here.children(recursive=True) if "chrom" in one.name()]
    return {"server": here.memory_full_info().uss, "browser": sum(one.memory_full_info().uss for one in browser)}


def write_video(place: Path, size: tuple[int, int], num_frames: int, *, as_file: bool = False) -> Path:
    """Write a generated video and predictions of it; returns the folder of these.

    Args:
        place: where to write.
        size: height and width.
        num_frames: of the video.
        as_file: write one file of H.264 in place of JPEG images.
    """
    scene = Scene(scene_split("test")[0], num_frames=num_frames, height=size[0], width=size[1])
    frames = place / "frames"
    frames.mkdir()
    names = [f"{number:05d}" for number in range(num_frames)]
    folder = place / "run" / "predictions" / "generated"
    origin = Origin(num_frames, str(frames), tuple(f"{name}.jpg" for name in names))
    writer = VideoPredictions(folder, "generated", origin=origin, video=False)
    movie = BrowserVideo(frames / "generated.mp4", fps=25)
    for number, name in enumerate(names):
        frame_HW3, labels_HW = scene.render(number)
        if as_file:
            movie.write(frame_HW3)
        else:
            Image.fromarray(frame_HW3).save(frames / f"{name}.jpg", quality=92)
        labels_HW = np.where(labels_HW == 255, -1, labels_HW.astype(np.int64))
        writer.write(frame_HW3[None], labels_HW[None], [name])
    movie.close()
    if as_file:
        reader = open_frames(movie.path)
        writer.origin = Origin(num_frames, str(movie.path), facts=reader.facts)
        reader.close()
    writer.close()
    return folder


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Desk]]:
    """A studio on a video's predictions, with its model loaded; gives its address and what serves the video."""
    import uvicorn

    from zsvss.studio.model import Model
    from zsvss.studio.open_video import Desk as Opened
    from zsvss.studio.server import Studio, application

    model = Model(segmenter_of(folder))
    model.submit(model.ready).result()
    desk = Opened(folder.name, folder, folder.parents[1])
    studio = Studio([desk], model, {})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(application(studio, _TOKEN, port), log_level="error", lifespan="off"))
        studio.closing = lambda: server.should_exit
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/?token={_TOKEN}", desk
        finally:
            server.should_exit = True
            thread.join()
            model.close()
            desk.close()


def _show(waits: Sequence[Wait], memory: dict[str, float], options: argparse.Namespace) -> None:
    of = "a file of H.264" if options.video else "JPEG images"
    says = f"the studio at {options.size[1]}x{options.size[0]}, {options.frames} frames in {of}; milliseconds"
    table = Table(title=says)
    table.add_column("what")
    for column in ("times", "median", "19 of 20 below", "wanted"):
        table.add_column(column, justify="right")
    for wait in waits:
        middle, most = statistics.median(wait.seconds), float(np.quantile(wait.seconds, 0.95))
        wanted = "" if wait.wanted is None else f"{1000 * wait.wanted:.0f}"
        table.add_row(wait.what, str(len(wait.seconds)), f"{1000 * middle:.0f}", f"{1000 * most:.0f}", wanted)
    Console(width=100).print(table)
    for wait in waits:
        if wait.processor_seconds is not None:
            print(f"{wait.what}: {wait.processor_seconds:.1f} s of processor time, server and network")
    print(", ".join(f"{what}: {value / 1e6:.0f} MB" for what, value in memory.items()))
