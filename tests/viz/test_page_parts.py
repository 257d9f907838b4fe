"""Pages of many videos: small files, read when they are wanted, from a disk and from a server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_in_chromium import opened, pixels
from synthetic_run import TAXONOMY, write_run

from zsvss.results.media import STAGES, MediaWriter, media_folder
from zsvss.run import main
from zsvss.viz.page_parts import LARGEST_FILE, Parts

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
NUM_VIDEOS, NUM_FRAMES, HEIGHT, WIDTH = 50, 3, 240, 320


def write_videos(run: Path) -> None:
    """Videos of noise, which no compression makes small, with one class a video; only three are unlike each other."""
    random = np.random.default_rng(0)
    frames_THW3 = random.integers(0, 256, (NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    facts = {"dataset": "pond", "video_length": NUM_FRAMES, "classes": TAXONOMY.classes, "palette": TAXONOMY.palette}
    for number in range(NUM_VIDEOS):
        name = f"noise {number:02d}"
        folder = media_folder(run, "test", name)
        if number < 3:
            labels_HW = np.full((HEIGHT, WIDTH), number)
            writer = MediaWriter(folder, {**facts, "video": name, "labels_are_classes": True}, max_side=960)
            for frame, frame_HW3 in enumerate(frames_THW3):
                writer.write(str(frame), frame_HW3, labels_HW, dict.fromkeys(STAGES, labels_HW))
            writer.finish({})
        else:
            alike = f"noise {number % 3:02d}"
            shutil.copytree(media_folder(run, "test", alike), folder)
            (folder / "video.json").write_text((folder / "video.json").read_text().replace(alike, name))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many videos")
    run = write_run(folder / "run", media=False)
    write_videos(run)
    output = folder / "report.html"
    assert main(["report", str(run), "--output", str(output)]) == 0
    return output


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check_videos(page: Any) -> None:
    """The first video's colour, then that of the last but one."""
    for number in (0, NUM_VIDEOS - 2):
        page.locator("#video").select_option(label=f"noise {number:02d}")
        page.wait_for_selector(f"body[data-video='noise {number:02d}']")
        frame_n3, final_n3 = np.array(pixels(page, "frame")), np.array(pixels(page, "final"))
        assert frame_n3.shape == (HEIGHT * WIDTH, 3)
        expected = frame_n3 + 0.7 * (np.array(TAXONOMY.palette[number % 3]) - frame_n3)
        np.testing.assert_allclose(final_n3, expected, atol=1)
    asked = [url for url in page.asked if url.endswith(".js")]
    assert len(asked) == 2, "only what is looked at is read"


def test_fifty_videos_are_small_files(page: Path) -> None:
    parts = sorted(page.with_suffix(".parts").iterdir())
    assert len(parts) == NUM_VIDEOS
    sizes = [path.stat().st_size for path in (page, *parts)]
    assert max(sizes) < LARGEST_FILE == 10_000_000
    assert sum(sizes) > LARGEST_FILE, "one file would have been too large"
    assert sizes[0] < 2_000_000, "the page is the framework and the tables"


def test_opened_from_a_disk(browser: Any, page: Path) -> None:
    with opened(browser, page.as_uri()) as shown:
        check_videos(shown)


def test_opened_from_a_server(browser: Any, page: Path) -> None:
    with served(page.parent) as address, opened(browser, f"{address}/report.html", says=["favicon"]) as shown:
        check_videos(shown)


def test_a_page_without_its_parts_says_so(browser: Any, page: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(page, tmp_path / "report.html"))
    with opened(browser, copy.as_uri(), says=["ERR_FILE_NOT_FOUND"]) as shown:
        told = shown.locator("#browser-says")
        sync_api.expect(told).to_contain_text("is missing: keep the folder report.parts beside the page.")
        assert shown.locator("#result-table tbody tr").count() == 1


def test_parts_of_an_earlier_page_go(tmp_path: Path) -> None:
    page = tmp_path / "a b.html"
    videos = [{"name": str(number), "pieces": {"truth": number, "frames 0": ["x" * 400]}} for number in range(3)]
    parts = Parts(page, largest=1000)
    placed = parts.place(iter(videos), others=0)
    assert [list(video) for video in placed] == [["name", "parts"]] * 3
    files = {name: keys for video in placed for name, keys in video["parts"].items()}
    assert list(files.values()) == [["truth", "frames 0"]] * 3
    for number, name in enumerate(files):
        (content,) = [(tmp_path / "a b.parts" / f"{name}.js").read_text()]
        assert content.startswith(f'zsvssPart("{name}",')
        assert json.loads(content[content.index("{") : -3]) == videos[number]["pieces"]
    own = tmp_path / "a b.parts" / "notes.txt"
    own.write_text("mine")
    again = Parts(page, largest=1000)
    assert again.place(videos[:2], others=0) == videos[:2], "two of them fit into the page"
    again.clean()
    assert [path.name for path in own.parent.iterdir()] == ["notes.txt"]


def test_large_videos_have_several_parts(tmp_path: Path) -> None:
    pieces = {f"frames {start}": ["x" * 1_500_000] for start in (0, 9, 20, 31)}
    (video,) = Parts(tmp_path / "page.html").place([{"name": "long", "pieces": pieces}], others=9_000_000)
    assert list(video["parts"].values()) == [["frames 0", "frames 9"], ["frames 20", "frames 31"]]
