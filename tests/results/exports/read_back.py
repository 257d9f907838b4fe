"""Exports as the formats' own libraries read them: run by a Python that has those, see `make test-readers`.

    python read_back.py FOLDER OUTPUT.npz

FOLDER holds an export a format; OUTPUT gets what was read, an array of ids or of classes a key.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path, output: Path) -> None:
    read: dict[str, Any] = {}
    for reader in (coco, panoptic, cvat_images, cvat_video, camvid, yolo, supervision, brush, boxes, cityscapes):
        read |= reader(folder)
    np.savez_compressed(output, **read)


def datumaro(path: Path, name: str, by: str) -> np.ndarray:
    """The dataset as ids [T, H, W]: of each annotation what `by` says."""
    from datumaro import Dataset

    dataset = Dataset.import_from(str(path), name)
    maps = []
    for item in sorted(dataset, key=lambda item: item.id):
        masks = [(annotation, mask(annotation)) for annotation in item.annotations]
        masks = [pair for pair in masks if pair[1] is not None]
        ids = np.zeros(SIZE, int)
        for annotation, pixels in sorted(masks, key=lambda pair: getattr(pair[0], "z_order", 0)):
            value = (
                annotation.label + 1
                if by == "label"
                else int(annotation.attributes[by])
                if by in (annotation.attributes)
                else getattr(annotation, by)
            )
            ids[np.asarray(pixels)[: SIZE[0], : SIZE[1]] > 0] = value
        maps.append(ids)
    return np.stack(maps)


def mask(annotation: Any) -> np.ndarray | None:
    from pycocotools import mask as coco_mask

    if hasattr(annotation, "image"):
        return annotation.image
    if type(annotation).__name__ == "Polygon":
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([annotation.points], *SIZE)))
    return None


SIZE = (37, 46)


def coco(folder: Path) -> dict[str, Any]:
    return {"coco": datumaro(folder / "coco", "coco_instances", "segment_id")}


def panoptic(folder: Path) -> dict[str, Any]:
    return {"panoptic": datumaro(folder / "coco", "coco_panoptic", "group")}


def cvat_images(folder: Path) -> dict[str, Any]:
    return {"cvat-images": datumaro(folder / "cvat-images", "cvat", "group")}


def cvat_video(folder: Path) -> dict[str, Any]:
    return {"cvat-video": datumaro(folder / "cvat-video", "cvat", "group")}


def camvid(folder: Path) -> dict[str, Any]:
    return {"camvid": datumaro(folder / "camvid", "camvid", "label")}


def yolo(folder: Path) -> dict[str, Any]:
    return {}


def supervision(folder: Path) -> dict[str, Any]:
    import supervision as sv

    dataset = sv.DetectionDataset.from_yolo(
        str(folder / "yolo/images/train"),
        str(folder / "yolo/labels/train"),
        str(folder / "yolo/data.yaml"),
        force_masks=True,
    )
    maps = []
    for _, _, found in sorted(dataset, key=lambda entry: entry[0]):
        ids = np.zeros((len(dataset.classes), *SIZE), bool)
        for pixels, number in zip(found.mask, found.class_id, strict=True):
            ids[number] |= pixels
        maps.append(ids)
    return {"yolo": np.stack(maps), "yolo_classes": np.array(dataset.classes)}


def brush(folder: Path) -> dict[str, Any]:
    from label_studio_sdk.converter import brush as library

    maps = []
    for task in json.loads((folder / "label-studio/tasks.json").read_text()):
        ids = np.zeros(SIZE, int)
        for result in task["predictions"][0]["result"]:
            flat = library.decode_rle(result["value"]["rle"])
            pixels = flat.reshape(*SIZE, 4)[..., 3]
            assert set(np.unique(pixels)) <= {0, 255}
            ids[pixels > 0] = int(result["meta"]["text"][0].split()[1])
        maps.append(ids)
    return {"label-studio": np.stack(maps)}


def boxes(folder: Path) -> dict[str, Any]:
    from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames

    (task,) = json.loads((folder / "label-studio-video/tasks.json").read_text())
    rows = []
    for result in extract_key_frames(task["predictions"][0]["result"]):
        number = int(result["id"].split("-")[1])
        for entry in result["value"]["sequence"]:
            rows.append([number, entry["frame"], entry["x"], entry["y"], entry["width"], entry["height"]])
    return {"label-studio-video": np.array(rows)}


def cityscapes(folder: Path) -> dict[str, Any]:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.helpers.labels import labels
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    maps = []
    for path in sorted((folder / "cityscapes").rglob("*_polygons.json")):
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        maps.append(np.asarray(createLabelImage(annotation, "ids")))
    table = [(label.name, label.id, *label.color) for label in labels if label.id >= 0]
    return {"cityscapes": np.stack(maps), "cityscapes_table": np.array(table)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
