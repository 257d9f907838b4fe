"""The page without a browser: that it holds everything, and nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import NUM_FRAMES, TAXONOMY, VIDEOS, ground_truth, prediction, write_run

from zsvss.results.media import STAGES, MediaWriter, VideoMedia
from zsvss.results.run_folder import Run, read_run
from zsvss.viz.report_page import page_data, render_page
from zsvss.viz.tested_videos import browser_videos


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [read_run(write_run(folder / name, lag)) for name, lag in (("exact", 0), ("late", 2))]


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    data = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype=np.uint8)
    return np.cumsum(data.reshape(-1, packed["height"], packed["width"]), axis=0, dtype=np.uint8)


def test_browser_holds_the_maps_exactly(runs: list[Run]) -> None:
    videos = list(browser_videos(runs, max_side=320, max_frames=100))
    assert [video["name"] for video in videos] == sorted(VIDEOS)
    video = videos[0]
    names = np.array([label["name"] for label in video["labels"]] + [""] * 256)
    classes = np.array(TAXONOMY.classes)
    truth_THW = np.stack([ground_truth(frame) for frame in range(NUM_FRAMES)])
    expected = np.where(truth_THW == 255, "", classes[truth_THW % 3])
    np.testing.assert_array_equal(names[unpacked(video["pieces"]["truth"])], expected)
    for run, lag in (("0", 0), ("1", 2)):
        final_THW = np.stack([prediction(frame, lag) for frame in range(NUM_FRAMES)])
        np.testing.assert_array_equal(names[unpacked(video["pieces"][f"{run} final"])], classes[final_THW])
        cells_Thw = unpacked(video["pieces"][f"{run} coarse"])
        np.testing.assert_array_equal(names[cells_Thw], classes[final_THW[:, ::8, ::8]])
    colors = {label["name"]: tuple(label["color"]) for label in video["labels"] if label["is_class"]}
    assert colors == dict(zip(TAXONOMY.classes, TAXONOMY.palette, strict=True))
    assert base64.b64decode(video["pieces"]["frames 0"][0]).startswith(b"\xff\xd8\xff")


def test_labels_without_a_class_are_each_runs_own(tmp_path: Path) -> None:
    """Clusters named after the run, with one that got no class; a region that novelty opened; clusters alone."""
    folder, facts = tmp_path / "v", {"video": "v", "dataset": "pond", "video_length": 1}
    facts |= {"classes": TAXONOMY.classes, "palette": TAXONOMY.palette}
    labels_hw = np.array([[0, 7]])
    medias = []
    for name, are_classes, names, second in (
        ("novel", True, {}, 256),
        ("void", True, {}, 3),
        ("named", False, {0: 2}, 7),
        ("plain", False, {}, 7),
    ):
        writer = MediaWriter(folder / name, facts | {"labels_are_classes": are_classes}, max_side=960)
        ids_hw = np.where(labels_hw == 7, second, labels_hw)
        writer.write("0", np.zeros((1, 2, 3), np.uint8), None, dict.fromkeys(STAGES, ids_hw))
        writer.finish(names)
        medias.append(VideoMedia.read(folder / name))
    whole = read_run(write_run(tmp_path / "run", media=False))
    (video,) = browser_videos([replace(whole, media=[media]) for media in medias], 320, 100)
    names = np.array([label["name"] for label in video["labels"]])
    shown = [names[unpacked(video["pieces"][f"{run} final"])].flatten().tolist() for run in range(4)]
    novel, void, named, plain = shown
    assert (novel, void) == (["water", "new region 256"], ["water", "void"])
    assert (named, plain) == (["reed", "cluster 7, no class"], ["cluster 0", "cluster 7"])
    assert [label["color"] for label in video["labels"] if label["name"] == "void"] == [[0, 0, 0]]
    assert [name for name in video["pieces"] if name.endswith("clusters")] == ["2 clusters"]
    bare = [video["labels"][number] for number in unpacked(video["pieces"]["2 clusters"]).flatten()]
    assert [(row["name"], video["labels"][row["class"]]["name"]) for row in bare] == [
        ("cluster 0", "reed"),
        ("cluster 7", "cluster 7, no class"),
    ]
    assert (unpacked(video["pieces"]["truth"]) == 255).all()


def test_large_videos_are_made_small(runs: list[Run]) -> None:
    video = next(browser_videos(runs, max_side=32, max_frames=3))
    assert (video["height"], video["width"], len(video["pieces"]["frames 0"])) == (24, 32, 3)
    assert unpacked(video["pieces"]["truth"]).shape == unpacked(video["pieces"]["1 final"]).shape == (3, 24, 32)
    assert unpacked(video["pieces"]["0 coarse"]).shape == (3, 6, 8), "the tokens stay"


def test_page_needs_nothing_else(runs: list[Run]) -> None:
    page = render_page(runs)
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert re.findall(r"<(?:link|script|img)[^>]*(?:src|href)=\"([^\"]*)", own) == ["data:,"]
    assert len(page) < 2_000_000


def test_page_shows_numbers_and_names(runs: list[Run]) -> None:
    page = render_page(runs)
    for run in runs:
        assert f"{100 * run.scores['mIoU']:.2f}" in page
        assert f'data-name="{run.name}"' in page
    assert "uses the first frame&#39;s ground truth inside the method" in page
    assert "Handmade &lt;b&gt;" in page, "what a run says of itself is text"
    assert "Handmade <b>" not in page
    (stored,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    data = json.loads(stored)
    assert data == {**page_data(runs), "videos": list(browser_videos(runs, 320, 100)), "parts": None}
    assert list(data["runs"][0]["timing"]) == [
        *("encode", "record", "kmeans", "knn", "context", "refinement", "modulation")
    ]
    late = np.array(data["runs"][1]["confusion"])
    assert late[:, 2].sum() == sum(int(result.confusion.sum()) for result in runs[1].results)


def test_incomplete_and_unlike_runs_are_marked(tmp_path: Path, runs: list[Run]) -> None:
    other = read_run(write_run(tmp_path / "half", unfinished=True, media=False, consistency="complete"))
    page = render_page([*runs, other])
    assert "half: 1 of 2 videos are missing" in page
    assert "different consistency protocols" in page


def test_page_without_media(tmp_path: Path) -> None:
    page = render_page([read_run(write_run(tmp_path / "blind", media=False))])
    assert "The runs keep no frames and labels" in page
    assert 'id="slider"' not in page
