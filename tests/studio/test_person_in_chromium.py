"""A person's way through the studio: real frames, the shipped model, a real browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from predicted import predict

from zsvss.backbones.embedded import Embedded
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.joint_features import BlockFeatures, JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.upsampling import GuidedUpsampling
from zsvss.studio.model import Model
from zsvss.studio.open_video import Desk

uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn (pip install 'zsvss[studio]')")
pycocotools = pytest.importorskip("pycocotools.coco", reason="needs pycocotools (pip install 'zsvss[export]')")

from zsvss.studio.server import Studio, application  # noqa: E402 - needs what is asked for above

SWAN = Path(__file__).parents[2] / "docs" / "swan"
NUM_FRAMES, HEIGHT, WIDTH = 5, 120, 214
TOKEN = "a-token"


def embedded() -> VideoSegmenter:
    """What `configs/predict_masks_embedded.yaml` describes, on small frames."""
    backbone = Embedded(num_steps=100, first_step=99, guidance=1)
    backbone.load()
    parts = [BlockFeatures(8), LabFeatures(), PositionFeatures()]
    features = JointFeatures(parts, [1, 1, 0.5])
    return VideoSegmenter(backbone.eval(), modulation=GuidedUpsampling(), features=features, input_size=(256, 448))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small frames of the swan, and predictions of six segments in columns and rows."""
    place = tmp_path_factory.mktemp("swan")
    frames = place / "frames" / "swan"
    frames.mkdir(parents=True)
    files = [f"{t:05d}.jpg" for t in range(NUM_FRAMES)]
    for file in files:
        Image.open(SWAN / file).resize((WIDTH, HEIGHT)).save(frames / file)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    labels_HW = 3 * (y * 2 // HEIGHT) + x * 3 // WIDTH
    labels_THW = np.repeat(labels_HW[None], NUM_FRAMES, 0)
    predict(place / "run" / "predictions", files=tuple(files), path=str(frames), labels_THW=labels_THW)
    return place / "run" / "predictions" / "swan"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    model = Model(embedded)
    desk = Desk("swan", folder, folder.parents[1])
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    studio = Studio([desk], model, {"COCO": ["person", "bird"]})
    server = uvicorn.Server(uvicorn.Config(application(studio, TOKEN, port), log_level="error", lifespan="off"))
    studio.closing = lambda: server.should_exit
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{port}/?token={TOKEN}"
    server.should_exit = True
    thread.join()
    listening.close()
    model.close()
    desk.close()


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    yield context
    context.close()


def contrast(page: Any, selector: str) -> float:
    """Of a text and what is behind it, as WCAG 2 has it; 4.5 is legible to nearly all."""
    script = """selector => {
        const text = document.querySelector(selector);
        let behind = text;
        const color = one => getComputedStyle(one).backgroundColor.match(/[\\d.]+/g).map(Number);
        while (color(behind)[3] === 0 && behind.parentElement) behind = behind.parentElement;
        return [getComputedStyle(text).color.match(/[\\d.]+/g).map(Number).slice(0, 3), color(behind).slice(0, 3)];
    }"""
    shares = np.array(page.evaluate(script, selector)) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


class Person:
    """What a person does on the page."""

    def __init__(self, context: Any, address: str) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = page = context.new_page()
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        page.on("request", lambda asking: self.asked.append(asking.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes][data-frame]")

    def spot(self, x: float, y: float) -> dict[str, float]:
        """Where a pixel of the video is on the picture."""
        box = self.page.locator("#strokes").bounding_box()
        return {"x": x * box["width"] / WIDTH, "y": y * box["height"] / HEIGHT}

    def click(self, x: float, y: float, **others: Any) -> None:
        before = self.page.evaluate("document.body.dataset.selected")
        self.page.locator("#strokes").click(position=self.spot(x, y), **others)
        self.page.wait_for_function("before => document.body.dataset.selected !== before", arg=before)

    def name(self, name: str) -> None:
        self.page.keyboard.press("n")
        self.page.keyboard.type(name)
        self.changes(lambda: self.page.keyboard.press("Enter"))

    def changes(self, act: Any) -> None:
        """Do something that is a step, and wait for the new state."""
        before = int(self.page.evaluate("document.body.dataset.revision"))
        act()
        self.page.wait_for_function("before => Number(document.body.dataset.revision) > before", arg=before)
        self.page.wait_for_selector("body[data-busy=no]")

    def drag(self, points: list[tuple[float, float]]) -> None:
        box = self.page.locator("#strokes").bounding_box()
        places = [(box["x"] + spot["x"], box["y"] + spot["y"]) for spot in (self.spot(*point) for point in points)]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=4)
        self.page.mouse.up()

    def go_to(self, frame: int) -> None:
        self.page.locator("#view").focus()
        self.page.keyboard.press("Home")
        for _ in range(frame):
            self.page.keyboard.press("ArrowRight")
        self.page.wait_for_selector(f"body[data-frame='{frame}']")

    def segments(self) -> list[str]:
        return self.page.locator("#segments .what").all_inner_texts()

    def colors(self) -> dict[str, tuple[int, ...]]:
        script = """[...document.querySelectorAll('#segments button')].map(button => [
            button.querySelector('.what').textContent,
            button.querySelector('.swatch').style.background.match(/\\d+/g).map(Number),
        ])"""
        return {name: tuple(color) for name, color in self.page.evaluate(script)}

    def picture(self) -> np.ndarray:
        """RGB of each pixel that the screen shows of the frame, int ``[H, W, 3]``."""
        script = """() => {
            const from = document.querySelector("#picture");
            const to = new OffscreenCanvas(from.width, from.height).getContext("2d");
            to.drawImage(from, 0, 0);
            return [from.height, from.width, [...to.getImageData(0, 0, from.width, from.height).data]];
        }"""
        drawn = "document.body.dataset.shown"
        for _ in range(20):
            self.page.wait_for_function("() => document.body.dataset.shown === document.body.dataset.drawing")
            before = self.page.evaluate(drawn)
            self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            height, width, values = self.page.evaluate(script)
            if self.page.evaluate(drawn) == before:
                break
        return np.array(values).reshape(height, width, 4)[..., :3]

    def masks(self) -> dict[str, np.ndarray]:
        """Pixels of each name, read from the screen by their colours."""
        picture = self.picture()
        return {name: (np.abs(picture - color).max(-1) <= 1) for name, color in self.colors().items()}


def test_a_person_goes_all_the_way(context: Any, address: str, folder: Path) -> None:
    person = Person(context, address)
    page = person.page
    assert person.segments() == [f"segment {n}" for n in range(1, 7)]
    # Colours alone, without outlines, so that the screen shows masks.
    page.locator("#opacity").fill("100")
    page.keyboard.press("Escape")
    page.keyboard.press("o")

    # Name three, two of them by one name.
    for place, name in [((30, 30), "leaves"), ((180, 30), "leaves"), ((30, 100), "water")]:
        person.click(*place)
        person.name(name)
    assert person.segments() == ["leaves", "segment 2", "leaves", "water", "segment 5", "segment 6"]
    assert len(set(person.colors().values())) == 5

    # Merge two, split one.
    person.click(100, 30)
    person.click(30, 30, modifiers=["Shift"])
    person.changes(lambda: page.keyboard.press("m"))
    assert person.segments() == ["segment 2", "leaves", "water", "segment 5", "segment 6"]
    page.keyboard.press("Escape")
    person.click(100, 100)
    page.keyboard.press("s")
    page.wait_for_selector("body[data-preview='2']")
    person.changes(lambda: page.locator("#split-do").click())
    assert person.segments()[-1] == "segment 7"
    page.keyboard.press("Escape")
    assert (person.masks()["segment 7"][61:, 72:142]).mean() > 0.02

    # Brush: a stroke of a known place, on the first frame; the border is not moved.
    before = person.masks()
    person.click(30, 100)
    page.keyboard.press("b")
    page.locator("#snaps").uncheck()
    page.locator("#size").fill("10")
    person.changes(lambda: person.drag([(60, 20), (160, 20)]))
    page.keyboard.press("Escape")
    page.keyboard.press("v")
    page.mouse.move(5, 5)
    painted = person.masks()["water"] & ~before["water"]
    assert painted[14:27, 60:160].all()
    assert not painted[33:, :].any()
    assert painted.sum() < 21 * 122

    # Two strokes without waiting are two steps, and so are two that are taken back.
    revision = page.evaluate("Number(document.body.dataset.revision)")
    person.click(30, 100)
    page.keyboard.press("b")
    for y in (50, 110):
        person.drag([(150, y), (200, y)])
    page.keyboard.press("v")
    page.keyboard.press("Escape")
    page.mouse.move(5, 5)
    page.wait_for_function("before => Number(document.body.dataset.revision) === before + 2", arg=revision)
    both = person.masks()["water"]
    assert both[47:54, 150:200].all()
    assert both[107:114, 150:200].all()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.wait_for_function("before => Number(document.body.dataset.revision) === before + 4", arg=revision)

    # Propagate what was painted; take it back; and again.
    person.go_to(3)
    unpainted = person.masks()
    assert not unpainted["water"][14:27, 60:160].any()
    person.changes(lambda: page.keyboard.press("p"))
    page.wait_for_selector("#progress", state="hidden")
    page.wait_for_function("() => document.querySelector('#truth-says').textContent === 'computed from corrections'")
    propagated = person.masks()
    assert propagated["water"][14:27, 60:160].mean() > 0.6
    person.changes(lambda: page.keyboard.press("Control+z"))
    np.testing.assert_array_equal(person.masks()["water"], unpainted["water"])
    person.changes(lambda: page.keyboard.press("Control+Shift+Z"))
    np.testing.assert_array_equal(person.masks()["water"], propagated["water"])

    # Reload: everything is there.
    page.reload()
    page.wait_for_selector("body[data-ready=yes][data-frame='0']")
    page.locator("#opacity").fill("100")
    page.keyboard.press("o")
    person.go_to(3)
    np.testing.assert_array_equal(person.masks()["water"], propagated["water"])

    # Export: pycocotools reads what the screen shows, in every frame.
    page.locator("#export").click()
    page.locator("#format").select_option("coco")
    page.locator("#export-do").click()
    page.wait_for_selector("body[data-exported*='swan-coco']")
    exported = Path(page.evaluate("document.body.dataset.exported"))
    page.keyboard.press("Escape")
    coco = pycocotools.COCO(exported / "annotations" / "instances_default.json")
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    for frame in range(NUM_FRAMES):
        person.go_to(frame)
        shown = person.masks()
        (image,) = [one for one in coco.loadImgs(coco.getImgIds()) if one["file_name"] == f"{frame:05d}.jpg"]
        masks = {name: np.zeros((HEIGHT, WIDTH), bool) for name in shown}
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            masks[names[annotation["category_id"]]] |= coco.annToMask(annotation).astype(bool)
        for name, mask in masks.items():
            np.testing.assert_array_equal(mask, shown[name], err_msg=f"{name} in frame {frame}")
    assert person.said == []
    assert {url.split("/")[2] for url in person.asked if url.startswith("http")} == {address.split("/")[2]}
    page.close()


def test_keys_and_clicks_mean_what_they_are_on(context: Any, address: str) -> None:
    person = Person(context, address)
    page = person.page
    page.locator("#segments button").first.dblclick()
    assert page.evaluate("document.activeElement.id") == "name"
    assert page.locator("#segments [aria-pressed=true]").count() == 1
    page.keyboard.press("Escape")
    page.locator("#outlines").focus()
    page.keyboard.press("Space")
    assert not page.locator("#outlines").is_checked()
    assert page.locator("#play").inner_text() == "▶"
    page.locator("#opacity").focus()
    page.keyboard.press("End")
    assert page.locator("#opacity").input_value() == "100"
    assert page.evaluate("document.body.dataset.frame") == "0"
    page.locator("#view").focus()
    page.keyboard.press("End")
    page.wait_for_selector(f"body[data-frame='{NUM_FRAMES - 1}']")
    page.keyboard.press("Escape")
    row = page.locator("#segments li").first.element_handle()
    page.keyboard.press("Home")
    page.wait_for_selector("body[data-frame='0']")
    assert page.evaluate("row => row.isConnected", row), "rows are not made anew at every frame"
    assert person.said == []
    page.close()


def test_a_stroke_that_the_system_ends_is_a_step(context: Any, address: str) -> None:
    person = Person(context, address)
    page = person.page
    page.keyboard.press("ArrowDown")
    page.keyboard.press("b")
    page.locator("#snaps").uncheck()
    box = page.locator("#strokes").bounding_box()
    cancel = """() => {
        const sheet = document.querySelector("#strokes");
        sheet.dispatchEvent(new PointerEvent("pointercancel", {pointerId: window.pointer, bubbles: true}));
    }"""
    page.evaluate(
        "document.querySelector('#strokes').addEventListener('pointerdown', e => (window.pointer = e.pointerId))"
    )
    for y in (0.3, 0.6):  # the second one shows that the first one has not stuck
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + y * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + y * box["height"], steps=3)
        person.changes(lambda: page.evaluate(cancel))
        page.mouse.up()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"], steps=3)
    assert page.locator("#undo").get_attribute("title") == "Undo: brush (Ctrl+Z)"
    for _ in range(2):
        person.changes(lambda: page.keyboard.press("Control+z"))
    assert person.said == []
    page.close()


def test_a_key_that_is_held_down_goes_as_fast_as_frames_come(context: Any, address: str) -> None:
    person = Person(context, address)
    page = person.page
    hold = """async key => {
        const shown = [];
        const listen = ({detail}) => shown.push(detail.frame);
        document.addEventListener("studio:shown", listen);
        for (let count = 0; count < 80; count++) {
            const press = new KeyboardEvent("keydown", {key, repeat: count > 0, bubbles: true});
            document.querySelector("#view").dispatchEvent(press);
            await new Promise(done => setTimeout(done, 10));
        }
        document.removeEventListener("studio:shown", listen);
        return shown;
    }"""
    shown = page.evaluate(hold, "ArrowRight")
    page.wait_for_selector(f"body[data-frame='{NUM_FRAMES - 1}']")
    assert [frame for frame in range(NUM_FRAMES) if frame in shown] == list(range(1, NUM_FRAMES)), "none is passed over"
    asked = [url for url in person.asked if "/frames/" in url]
    assert len(asked) == len(set(asked)) == NUM_FRAMES
    before = int(page.evaluate("document.body.dataset.revision"))
    person.changes(lambda: page.evaluate(hold, "a"))
    assert int(page.evaluate("document.body.dataset.revision")) == before + 1, "a step is no key to be repeated"
    person.changes(lambda: page.keyboard.press("Control+z"))
    page.close()


def test_a_second_tab_follows(context: Any, address: str) -> None:
    first, second = Person(context, address), Person(context, address)
    first.page.bring_to_front()
    first.page.keyboard.press("ArrowDown")
    first.name("duck")
    second.page.bring_to_front()
    second.page.wait_for_function(
        "() => [...document.querySelectorAll('.what')].some(one => one.textContent === 'duck')"
    )
    assert second.said == first.said == []
    for person in (first, second):
        person.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_legible_and_nothing_sticks_out_on_a_phone(context: Any, address: str, scheme: str) -> None:
    person = Person(context, address)
    page = person.page
    page.emulate_media(color_scheme=scheme)
    for width in (420, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        stage = page.locator(".stage").bounding_box()
        picture = page.locator("#picture").bounding_box()
        assert picture["width"] <= stage["width"]
        np.testing.assert_allclose(picture["width"] / picture["height"], WIDTH / HEIGHT, rtol=0.02)
    for selector in ("#segments .what", "#name-says", "#export", "#help"):
        assert contrast(page, selector) >= 4.5, selector
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.close()
