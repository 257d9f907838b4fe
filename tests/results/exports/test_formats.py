"""Every format, read back and compared pixel for pixel; `test_readers` does it with the formats' own libraries."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from predicted import FACTS, HEIGHT, NUM_FRAMES, WIDTH, filled, labels, predict
from pycocotools.coco import COCO

from zsvss.data.vspw import VSPW
from zsvss.results.exports.base import Options
from zsvss.results.exports.writing import export, renamed
from zsvss.results.predictions import Predictions

IDS = labels() + 1
SEGMENTS = [1, 2, 3, 5, 8, 10]
FILES = tuple(f"IMG_{number + 5}.png" for number in range(NUM_FRAMES))
NAMES = {1: "sky", 2: "car", 3: "pole", 5: "person", 8: "road", 10: "road"}


@pytest.fixture(scope="module")
def swan(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """Of a video file."""
    return predict(tmp_path_factory.mktemp("predictions"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """Of a folder of images, which is there."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(FILES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 9 * number, np.uint8)).save(folder / name)
    return predict(tmp_path_factory.mktemp("predictions"), "pond", path=str(folder), files=FILES)


def test_coco_instances(images: Predictions, tmp_path: Path) -> None:
    export("coco", [images], tmp_path / "out", Options(frames=True))
    coco = COCO(str(tmp_path / "out/annotations/instances_default.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == [f"segment {n}" for n in SEGMENTS]
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == list(FILES)
    assert {path.name for path in (tmp_path / "out/images/default").iterdir()} == set(FILES)
    for image in coco.loadImgs(coco.getImgIds()):
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
        ids_HW = np.zeros((HEIGHT, WIDTH), int)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask_HW = coco.annToMask(annotation).astype(bool)
            ids_HW[mask_HW] = annotation["track_id"]
            rows, columns = np.nonzero(mask_HW)
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert annotation["area"] == mask_HW.sum()
        np.testing.assert_array_equal(ids_HW, IDS[image["frame_id"]])


def test_coco_panoptic(swan: Predictions, tmp_path: Path) -> None:
    export("coco", [swan], tmp_path / "out")
    folder = tmp_path / "out/annotations"
    content = json.loads((folder / "panoptic_default.json").read_text())
    assert [image["time"] for image in content["images"]] == [0.0, 0.04, 0.09, 0.12, 0.2, 0.21]
    for frame, annotation in enumerate(content["annotations"]):
        rgb = np.asarray(Image.open(folder / "panoptic_default" / annotation["file_name"])).astype(int)
        np.testing.assert_array_equal(rgb @ [1, 256, 65536], IDS[frame])
        areas = {entry["id"]: entry["area"] for entry in annotation["segments_info"]}
        assert areas == {number: count for number in SEGMENTS if (count := (IDS[frame] == number).sum())}


def test_yolo(images: Predictions, tmp_path: Path) -> None:
    export("yolo", [images], tmp_path / "out", Options(frames=True))
    names = yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"]
    assert names == {index: f"segment {number}" for index, number in enumerate(SEGMENTS)}
    for frame, file in enumerate(FILES):
        assert (tmp_path / "out/images/train" / file).is_file()
        ids_HW = np.zeros((HEIGHT, WIDTH), int)
        for line in (tmp_path / "out/labels/train" / file).with_suffix(".txt").read_text().splitlines():
            number, *shares = line.split()
            ring = np.array(shares, float).reshape(-1, 2)
            assert ring.min() >= 0
            assert ring.max() <= 1
            ids_HW[filled([ring * [WIDTH, HEIGHT]])] = SEGMENTS[int(number)]
        np.testing.assert_array_equal(ids_HW, IDS[frame])


def test_cvat_images(images: Predictions, tmp_path: Path) -> None:
    export("cvat-images", [images], tmp_path / "out")
    root = ET.parse(tmp_path / "out/annotations.xml").getroot()
    assert [image.get("name") for image in root.iter("image")] == list(FILES)
    for frame, image in enumerate(root.iter("image")):
        assert (image.get("id"), image.get("width"), image.get("height")) == (str(frame), str(WIDTH), str(HEIGHT))
        ids_HW = np.zeros((HEIGHT, WIDTH), int)
        for mask in image.iter("mask"):
            left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
            flat = [index % 2 for index, count in enumerate(mask.get("rle").split(", ")) for _ in range(int(count))]
            box = ids_HW[top : top + height, left : left + width]
            box[np.array(flat, bool).reshape(height, width)] = int(mask.get("group_id"))
        np.testing.assert_array_equal(ids_HW, IDS[frame])
    spec = json.loads((tmp_path / "out/labels.json").read_text())
    colors = ["#{:02x}{:02x}{:02x}".format(*segment.color) for segment in images.segments]
    assert [(label["name"], label["color"]) for label in spec] == [
        (segment.name, color) for segment, color in zip(images.segments, colors, strict=True)
    ]


def test_cvat_names_the_frames_of_a_video_file_as_cvat_does(swan: Predictions, tmp_path: Path) -> None:
    export("cvat-images", [swan], tmp_path / "out")
    root = ET.parse(tmp_path / "out/annotations.xml").getroot()
    assert [image.get("name") for image in root.iter("image")][:2] == ["frame_000000", "frame_000001"]


def test_cvat_video(swan: Predictions, tmp_path: Path) -> None:
    export("cvat-video", [swan], tmp_path / "out")
    root = ET.parse(tmp_path / "out/annotations.xml").getroot()
    ids_THW = np.zeros(IDS.shape, int)
    for track in root.iter("track"):
        assert track.get("label") == f"segment {track.get('id')}"
        shapes = {int(shape.get("frame")): shape for shape in track.iter("polygon")}
        keys = sorted(frame for frame, shape in shapes.items() if shape.get("keyframe") == "1")
        for frame in range(NUM_FRAMES):
            before = max((key for key in keys if key <= frame), default=None)
            if before is None or shapes[before].get("outside") == "1":
                continue
            after = min((key for key in keys if key > frame), default=before)
            if frame != before:  # CVAT fills in between two keyframes, which is right only if they are equal
                assert shapes[before].get("points") == shapes[after].get("points")
            points = [pair.split(",") for pair in shapes[before].get("points").split(";")]
            ids_THW[frame][filled([np.array(points, float)])] = int(track.get("id"))
    np.testing.assert_array_equal(ids_THW, IDS)


def test_cvat_video_leaves_out_frames_amid_equal_ones(tmp_path: Path) -> None:
    labels_THW = np.zeros((5, 8, 8), int)
    labels_THW[:, 3:5, 3:5] = 1
    labels_THW[4] = 0
    export("cvat-video", [predict(tmp_path, facts=None, labels_THW=labels_THW)], tmp_path / "out")
    tracks = list(ET.parse(tmp_path / "out/annotations.xml").getroot().iter("track"))
    told = [[(s.get("frame"), s.get("keyframe"), s.get("outside")) for s in track] for track in tracks]
    steady = [("0", "1", "0"), ("1", "0", "0"), ("2", "0", "0"), ("3", "1", "0")]
    assert told == [[*steady, ("4", "1", "0")], [*steady, ("4", "1", "1")]]


def decoded(rle: list[int]) -> np.ndarray:
    """A brush mask bit by bit, as Label Studio's JavaScript reads it."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    num, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < num:
        is_run = read(1)
        length = 1 + read(sizes[read(2)])
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(bits) - place < 8
    return np.array(values)


def test_label_studio(swan: Predictions, tmp_path: Path) -> None:
    export("label-studio", [swan], tmp_path / "out", Options(url="/data/local-files/?d=x/"))
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert tasks[4]["data"] == {
        "image": "/data/local-files/?d=x/images/00004.jpg", "video": "swan", "frame": 4, "frame_name": "00004",
        "time": 0.2,
    }  # fmt: skip
    for frame, task in enumerate(tasks):
        ids_HW = np.zeros((HEIGHT, WIDTH), int)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == (HEIGHT, WIDTH)
            rgba_HW4 = decoded(result["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)
            assert (rgba_HW4 == rgba_HW4[..., :1]).all()
            ids_HW[rgba_HW4[..., 3] == 255] = int(result["value"]["brushlabels"][0].split()[1])
        np.testing.assert_array_equal(ids_HW, IDS[frame])
    config = ET.parse(tmp_path / "out/label_config.xml").getroot()
    assert [label.get("value") for label in config.iter("Label")] == [segment.name for segment in swan.segments]


def test_label_studio_holds_runs_longer_than_its_longest(tmp_path: Path) -> None:
    labels_THW = np.full((1, 200, 300), -1)
    labels_THW[0, 100:, 7:] = 0
    export("label-studio", [predict(tmp_path, facts=None, labels_THW=labels_THW)], tmp_path / "out")
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    rle = task["predictions"][0]["result"][0]["value"]["rle"]
    np.testing.assert_array_equal(decoded(rle).reshape(200, 300, 4)[..., 0] > 0, labels_THW[0] == 0)


def test_label_studio_video(swan: Predictions, tmp_path: Path) -> None:
    exporter = export("label-studio-video", [swan], tmp_path / "out")
    assert "masks are not in this export" in exporter.notes[0]
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert task["data"]["video"] == "swan.mp4"
    for segment, result in zip(swan.segments, task["predictions"][0]["result"], strict=True):
        boxes, shown = {}, None
        for key in result["value"]["sequence"]:
            number = key["frame"] - 1
            assert key["time"] == swan.frame_times[number]
            for between in range(shown[0], number) if shown else ():
                boxes[between] = shown[1]  # frames that are left out lie between equal boxes
            boxes[number] = [key[name] for name in ("x", "y", "width", "height")]
            shown = (number, boxes[number]) if key["enabled"] else None
        assert sorted(boxes) == segment.frames.tolist()
        wanted = segment.boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT] * 100
        np.testing.assert_allclose([boxes[number] for number in segment.frames], wanted, atol=1e-4)


def test_vspw_is_read_as_vspw(images: Predictions, tmp_path: Path) -> None:
    names = {1: "sky", 2: "car", 3: "pole", 5: "person", 8: "road", 10: "road"}
    export("vspw", [renamed(images, names)], tmp_path / "out", Options(frames=True))
    data = VSPW(tmp_path / "out", num_workers=0, decoder="pillow")
    (video,) = data.videos()
    opened = video.open()
    frames_THW3, raw_THW, labelled_T = opened.read(0, NUM_FRAMES)
    assert labelled_T.all()
    assert frames_THW3[:, 0, 0, 0].tolist() == [9 * number for number in range(NUM_FRAMES)]
    classes_THW = data.taxonomy.class_ids(raw_THW).numpy()
    for number, name in names.items():
        np.testing.assert_array_equal(
            np.isin(IDS, [n for n in names if names[n] == name]), classes_THW == data.taxonomy.classes.index(name)
        )
        assert number in IDS
    np.testing.assert_array_equal(classes_THW == -1, IDS == 0)


def test_vspw_with_a_list_of_classes_of_its_own(swan: Predictions, tmp_path: Path) -> None:
    exporter = export("vspw", [swan], tmp_path / "out")
    assert "not all classes of VSPW" in exporter.notes[0]
    numbers = json.loads((tmp_path / "out/label_num_dic_final.json").read_text())
    assert numbers == {f"segment {number}": index for index, number in enumerate(SEGMENTS, start=1)}
    for frame in range(NUM_FRAMES):
        with Image.open(tmp_path / f"out/data/swan/mask/{frame:05d}.png") as image:
            np.testing.assert_array_equal(np.array([0, *SEGMENTS])[np.asarray(image)], IDS[frame])


def test_cityscapes(swan: Predictions, tmp_path: Path) -> None:
    export("cityscapes", [renamed(swan, NAMES)], tmp_path / "out")
    label_ids = {"sky": 23, "car": 26, "pole": 17, "person": 24, "road": 7}
    colors = {"sky": (70, 130, 180), "car": (0, 0, 142), "pole": (153, 153, 153)}
    for frame in range(NUM_FRAMES):
        base = tmp_path / f"out/gtFine/val/swan/swan_000000_{frame:06d}_gtFine"
        ids_HW = np.asarray(Image.open(f"{base}_labelIds.png"))
        for number, name in NAMES.items():
            np.testing.assert_array_equal(ids_HW[IDS[frame] == number], label_ids[name])
        assert (ids_HW[IDS[frame] == 0] == 0).all()
        rgb_HW3 = np.asarray(Image.open(f"{base}_color.png"))
        for name, color in colors.items():
            assert (rgb_HW3[ids_HW == label_ids[name]] == color).all()
        content = json.loads(Path(f"{base}_polygons.json").read_text())
        assert (content["imgHeight"], content["imgWidth"]) == (HEIGHT, WIDTH)
        drawn_HW = np.zeros((HEIGHT, WIDTH), int)
        for entry in content["objects"]:  # the later lie on top
            drawn_HW[filled([np.array(entry["polygon"]) + 0.5])] = label_ids.get(entry["label"], 0)
        np.testing.assert_array_equal(drawn_HW, ids_HW)


def test_cityscapes_keeps_its_own_names_of_frames(tmp_path: Path) -> None:
    files = tuple(f"ulm_000003_{number:06d}_leftImg8bit.png" for number in range(1, 3))
    video = predict(tmp_path, "ulm_000003", files=files, labels_THW=np.zeros((2, 8, 8), int))
    export("cityscapes", [renamed(video, {1: "road"})], tmp_path / "out")
    found = sorted(path.name for path in (tmp_path / "out/gtFine/val/ulm").glob("*labelIds.png"))
    assert found == ["ulm_000003_000001_gtFine_labelIds.png", "ulm_000003_000002_gtFine_labelIds.png"]


def test_davis(images: Predictions, tmp_path: Path) -> None:
    export("davis", [images], tmp_path / "out", Options(frames=True))
    assert (tmp_path / "out/ImageSets/2017/val.txt").read_text() == "pond\n"
    assert json.loads((tmp_path / "out/davis_semantics.json").read_text())["pond"]["10"] == "segment 10"
    for frame, file in enumerate(FILES):
        with Image.open(tmp_path / f"out/Annotations/Full-Resolution/pond/{file}") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), IDS[frame])
            shown_HW3 = np.asarray(image.convert("RGB"))
        for segment in images.segments:
            assert (shown_HW3[IDS[frame] == segment.id] == segment.color).all()
        assert (shown_HW3[IDS[frame] == 0] == 0).all()
        with Image.open((tmp_path / "out/JPEGImages/Full-Resolution/pond" / file).with_suffix(".jpg")) as image:
            assert abs(int(np.asarray(image)[0, 0, 0]) - 9 * frame) <= 2


def test_camvid(images: Predictions, tmp_path: Path) -> None:
    exporter = export("camvid", [renamed(images, {1: "Sky", 2: "my swan"})], tmp_path / "out", Options(frames=True))
    assert any("spaces" in note for note in exporter.notes)
    lines = [line.split() for line in (tmp_path / "out/label_colors.txt").read_text().splitlines()]
    colors = {name: (int(r), int(g), int(b)) for r, g, b, name in lines}
    assert colors["Void"] == (0, 0, 0)
    assert colors["Sky"] == (128, 128, 128), "CamVid's own"
    assert colors["my_swan"] == images.segments[1].color
    assert len(set(colors.values())) == len(colors)
    listed = [line.split() for line in (tmp_path / "out/default.txt").read_text().splitlines()]
    for frame, (image, annotation) in enumerate(listed):
        assert np.asarray(Image.open(tmp_path / f"out{image}"))[0, 0, 0] == 9 * frame
        rgb_HW3 = np.asarray(Image.open(tmp_path / f"out{annotation}"))
        for number, name in [(0, "Void"), (1, "Sky"), (2, "my_swan"), (8, "segment_8")]:
            np.testing.assert_array_equal((rgb_HW3 == colors[name]).all(-1), IDS[frame] == number)


def test_geojson(swan: Predictions, tmp_path: Path) -> None:
    export("geojson", [swan], tmp_path / "out")
    content = json.loads((tmp_path / "out/swan.geojson").read_text())
    assert (content["type"], content["width"], content["height"]) == ("FeatureCollection", WIDTH, HEIGHT)
    ids_THW = np.zeros(IDS.shape, int)
    for feature in content["features"]:
        told = feature["properties"]
        rings = [np.array(ring) for part in feature["geometry"]["coordinates"] for ring in part]
        assert all((ring[0] == ring[-1]).all() for ring in rings)
        mask_HW = filled(rings)
        assert told["area"] == mask_HW.sum()
        assert told["time"] == FACTS.times[told["frame"]]
        ids_THW[told["frame"]][mask_HW] = told["segment"]
    np.testing.assert_array_equal(ids_THW, IDS)


@pytest.mark.parametrize(
    ("name", "ending", "off", "late"), [("ffv1", "mkv", 0, 5e-4), ("prores", "mov", 24, 1e-9)], ids=["ffv1", "prores"]
)
def test_mattes(swan: Predictions, tmp_path: Path, name: str, ending: str, off: int, late: float) -> None:
    exporter = export(name, [swan], tmp_path / "out")
    assert len(list((tmp_path / "out/swan").iterdir())) == len(SEGMENTS)
    for segment in swan.segments:
        with av.open(str(tmp_path / f"out/swan/{segment.id:03d}-{segment.name}.{ending}")) as container:
            stream = container.streams.video[0]
            aspect = stream.sample_aspect_ratio
            frames = list(container.decode(stream))
        assert aspect == Fraction(4, 3) or "4/3 times as wide as high" in exporter.notes[0]
        assert [float(frame.time) for frame in frames] == pytest.approx(swan.frame_times, abs=late)
        for frame, ids_HW in zip(frames, IDS, strict=True):
            error_HW = np.abs(frame.to_ndarray(format="gray").astype(int) - 255 * (ids_HW == segment.id))
            assert error_HW.max() <= off
            assert error_HW.mean() <= off / 24
    assert bool(exporter.notes) == (name == "ffv1")


def test_numpy(swan: Predictions, tmp_path: Path) -> None:
    export("numpy", [renamed(swan, {1: "sky"})], tmp_path / "out")
    ids_THW = np.load(tmp_path / "out/swan/ids.npy")
    assert ids_THW.dtype == np.uint8
    np.testing.assert_array_equal(ids_THW, IDS)
    assert np.load(tmp_path / "out/swan/times.npy").tolist() == list(swan.frame_times)
    again = Predictions.read(tmp_path / "out/swan")
    assert [segment.name for segment in again.segments][:2] == ["sky", "segment 2"]
