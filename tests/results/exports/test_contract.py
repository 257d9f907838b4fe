"""What holds of every format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicted import HEIGHT, NUM_FRAMES, WIDTH, labels, predict

from zsvss.results.exports import FORMATS, ExportError
from zsvss.results.exports.base import Options
from zsvss.results.exports.davis import Davis
from zsvss.results.exports.writing import export, renamed
from zsvss.results.id_images import write_ids
from zsvss.results.predictions import Predictions, PredictionsError

ALL = pytest.mark.parametrize("name", FORMATS)
CITYSCAPES = dict(zip((1, 2, 3, 5, 8, 10), ("sky", "car", "pole", "person", "road", "road"), strict=True))


def named(name: str, video: Predictions) -> Predictions:
    """With names that the format allows."""
    return renamed(video, CITYSCAPES) if name == "cityscapes" else video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Predictions]:
    folder = tmp_path_factory.mktemp("predictions")
    return [predict(folder, "north/01"), predict(folder, "söuth & <b>")]


@ALL
def test_all_videos_are_written_whole(videos: list[Predictions], tmp_path: Path, name: str) -> None:
    exporter = export(name, [named(name, video) for video in videos], tmp_path / "out")
    assert {key for key, count in exporter.written.items() if count} == {
        (video.video, segment.id) for video in videos for segment in video.segments
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_size for path in files if path.suffix not in (".txt",))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "cityscapes"])  # whose names are a fixed list
def test_names_are_kept_whatever_they_hold(videos: list[Predictions], tmp_path: Path, name: str) -> None:
    strange = "Füß,\"<&>'日本"
    export(name, [renamed(videos[0], {2: strange})], tmp_path / "out")
    paths = list((tmp_path / "out").rglob("*"))
    readable = [path for path in paths if path.suffix in (".json", ".xml", ".yaml", ".txt", ".geojson")]
    texts = [*map(str, paths), *(path.read_text(encoding="utf-8") for path in readable)]
    written = (strange, strange.replace('"', '\\"'), strange.replace("'", "''"))
    xml = strange.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    quoted = "F%C3%BC%C3%9F%2C%22%3C%26%3E%27%E6%97%A5%E6%9C%AC"
    assert any(form in text for text in texts for form in (*written, xml, quoted))


@ALL
def test_a_segment_that_would_be_lost_is_told(
    videos: list[Predictions], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = named(name, videos[0])

    def silent(self: Predictions, frame: int) -> np.ndarray:
        ids_HW = labels()[frame] + 1
        return np.where(ids_HW == 10, 0, ids_HW).astype(np.int32)

    monkeypatch.setattr(Predictions, "mask", silent)
    if name in ("label-studio-video", "ffv1", "prores"):  # of what segments.json says, and of each segment anyway
        export(name, [video], tmp_path / "out")
    else:
        with pytest.raises(ExportError, match="would lose segment 10"):
            export(name, [video], tmp_path / "out")
        assert not list(tmp_path.iterdir()), "an export is there whole or not at all"


@ALL
def test_damaged_masks_leave_no_export(tmp_path: Path, name: str) -> None:
    video = named(name, predict(tmp_path, "v"))
    (tmp_path / "v/masks/00003.png").unlink()
    if name == "label-studio-video":
        export(name, [video], tmp_path / "out")
        return
    with pytest.raises(PredictionsError, match=r"00003\.png is missing; delete"):
        export(name, [video], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["coco", "numpy", "geojson", "cvat-images", "label-studio", "ffv1"])
def test_ids_beyond_eight_bits(tmp_path: Path, name: str) -> None:
    labels_THW = np.zeros((2, 8, 9), int)
    labels_THW[1, 2:4, 3:5] = 299
    video = predict(tmp_path, facts=None, labels_THW=labels_THW)
    assert [segment.id for segment in video.segments] == [1, 300]
    exporter = export(name, [video], tmp_path / "out")
    assert exporter.written["swan", 300]
    with pytest.raises(ExportError, match=r"has a segment 300; DAVIS holds objects up to 255"):
        export("davis", [video], tmp_path / "davis")


@pytest.mark.parametrize(
    "name", ["coco", "yolo", "cvat-images", "label-studio", "vspw", "davis", "camvid", "cityscapes"]
)
def test_frames_of_a_video_file(tmp_path: Path, name: str) -> None:
    from zsvss.viz.browser_video import BrowserVideo

    with BrowserVideo(tmp_path / "swan.mp4", 10) as movie:
        for number in range(NUM_FRAMES):
            movie.write(np.full((HEIGHT, WIDTH + 1, 3), 40 * number, np.uint8))
    labels_THW = np.zeros((NUM_FRAMES, HEIGHT + 1, WIDTH + 1 + 1), int)
    video = renamed(predict(tmp_path / "p", path=str(tmp_path / "swan.mp4"), labels_THW=labels_THW), {1: "sky"})
    export(name, [video], tmp_path / "out", Options(frames=True))
    images = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".jpg", ".png") and "gtFine" not in p.parts]
    shown = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(images)]
    frames = [image for image in shown if (image.std() < 3) and image.shape[:2] == (38, 48)]
    means = {round(float(frame.mean()) / 40) for frame in frames}
    assert means >= set(range(NUM_FRAMES))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "gone.mp4"}, r"--frames: gone\.mp4, the source of swan, is not there any more"),
        ({"path": ""}, r"--frames: the frames of swan were generated"),
    ],
)
def test_frames_that_are_not_there(tmp_path: Path, source: dict[str, str], message: str) -> None:
    video = predict(tmp_path, **source)
    with pytest.raises(ExportError, match=message):
        export("coco", [video], tmp_path / "out", Options(frames=True))


def test_other_frames_than_those_that_were_segmented(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "frames/0.png")
    labels_THW = np.zeros((1, 8, 9), int)
    video = predict(tmp_path, path=str(tmp_path / "frames"), files=("0.png",), labels_THW=labels_THW)
    with pytest.raises(ExportError, match=r"0\.png has another size than its mask"):
        export("coco", [video], tmp_path / "out", Options(frames=True))


def test_where_there_is_nothing(tmp_path: Path) -> None:
    nothing = predict(tmp_path, labels_THW=np.full((2, 8, 9), -1))
    with pytest.raises(PredictionsError, match="has no segments in 2 frames; there is nothing to export"):
        export("coco", [nothing], tmp_path / "out")
    with pytest.raises(ExportError, match="there is no video"):
        export("coco", [], tmp_path / "out")


def test_masks_that_another_tool_changed(tmp_path: Path) -> None:
    video = predict(tmp_path)
    write_ids(tmp_path / "swan/masks/00001.png", labels()[1] + 5, np.zeros((1, 3), np.uint8))
    with pytest.raises(
        PredictionsError, match=r"00001\.png has segments \[4, .*, but segments\.json says \[1, 2, 3, 5, 8\]"
    ):
        export("davis", [video], tmp_path / "out")


def test_the_output_is_a_new_folder(videos: list[Predictions], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="which is a file"):
        export("numpy", videos, tmp_path / "file")
    with pytest.raises(ExportError, match="is not empty; give a new folder"):
        export("numpy", videos, tmp_path)
    (tmp_path / "empty").mkdir()
    export("numpy", videos, tmp_path / "empty")
    assert (tmp_path / "empty/north/01/ids.npy").is_file()


def test_an_error_while_writing_leaves_nothing(
    videos: list[Predictions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Davis) -> None:
        (self.output / "half").write_text("")
        raise OSError("disk full")

    monkeypatch.setattr(Davis, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        export("davis", videos, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_formats_and_names(videos: list[Predictions], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"there is no format 'cooc'\. Did you mean coco\?"):
        export("cooc", videos, tmp_path / "out")
    with pytest.raises(ExportError, match=r"Cityscapes has no label 'raod'.* Did you mean road\?"):
        export("cityscapes", [renamed(videos[0], CITYSCAPES | {1: "raod"})], tmp_path / "out")
    with pytest.raises(ExportError, match="has no segment 4; it has 1, 2, 3, 5, 8, 10"):
        renamed(videos[0], {4: "road"})
    with pytest.raises(ExportError, match="segment 5 of north/01 is given an empty name"):
        renamed(videos[0], {5: " "})


def test_missing_library(videos: list[Predictions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(ExportError, match=r"needs pycocotools, which is not installed: pip install 'zsvss\[export\]'"):
        export("coco", videos, tmp_path / "out")


def test_segments_of_one_name_are_one_class(videos: list[Predictions]) -> None:
    both = renamed(videos[0], {2: "reed", 3: "reed"})
    first, second = both.segments[1:3]
    assert (first.name, first.color) == (second.name, second.color) == ("reed", videos[0].segments[1].color)


def test_nothing_imports_torch() -> None:
    """Exports start at once: PyTorch takes seconds."""
    modules = sorted({f"zsvss.results.exports.{module}" for module, _, _ in FORMATS.values()})
    script = f"import sys, zsvss.commands.export, {', '.join(modules)}\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
