"""Exports as the formats' own libraries read them: run by a Python that has those, see `make test-readers`.

    python read_back.py FOLDER OUTPUT.npz

FOLDER holds an export a format; OUTPUT gets what was read of each, as ids or classes [T, H, W].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (37, 46)


def main(folder: Path, output: Path) -> None:
    read = {
        "coco": datumaro(folder / "coco", "coco_instances", lambda found: found.attributes["segment_id"]),
        "panoptic": datumaro(folder / "coco", "coco_panoptic", lambda found: found.group),
        "cvat-images": datumaro(folder / "cvat-images", "cvat", lambda found: found.group),
        "cvat-video": datumaro(folder / "cvat-video", "cvat", lambda found: found.group),
        "camvid": datumaro(folder / "camvid", "camvid", lambda found: found.label),
        "label-studio": brush(folder / "label-studio"),
        "label-studio-video": boxes(folder / "label-studio-video"),
        **yolo(folder / "yolo"),
        **cityscapes(folder / "cityscapes"),
    }
    np.savez_compressed(output, **read)


def datumaro(folder: Path, name: str, number: Callable[[Any], int]) -> np.ndarray:
    """A dataset by Datumaro; of each mask or polygon the pixels get a number of it."""
    from datumaro import Dataset

    items = sorted(Dataset.import_from(str(folder), name), key=lambda item: item.id)
    maps = []
    for item in items:
        ids_HW = np.zeros(SIZE, int)
        for found in item.annotations:
            # COCO's boxes lie beside the masks; a shape of CVAT's that is outside is not shown.
            if type(found).__name__ == "Bbox" or found.attributes.get("outside") in (True, "1", "True"):
                continue
            ids_HW[pixels(found)] = int(number(found))
        maps.append(ids_HW)
    return np.stack(maps)


def pixels(found: Any) -> np.ndarray:
    from pycocotools import mask

    if hasattr(found, "image"):
        return np.asarray(found.image) > 0
    return mask.decode(mask.merge(mask.frPyObjects([found.points], *SIZE))) > 0


def yolo(folder: Path) -> dict[str, np.ndarray]:
    import supervision

    dataset = supervision.DetectionDataset.from_yolo(
        str(folder / "images/train"), str(folder / "labels/train"), str(folder / "data.yaml"), force_masks=True
    )
    masks_TCHW = []
    for _, _, found in sorted(dataset, key=lambda entry: entry[0]):
        masks_CHW = np.zeros((len(dataset.classes), *SIZE), bool)
        for mask_HW, number in zip(found.mask, found.class_id, strict=True):
            masks_CHW[number] |= mask_HW
        masks_TCHW.append(masks_CHW)
    return {"yolo": np.stack(masks_TCHW), "yolo_classes": np.array(dataset.classes)}


def brush(folder: Path) -> np.ndarray:
    from label_studio_sdk.converter.brush import decode_rle

    maps = []
    for task in json.loads((folder / "tasks.json").read_text()):
        ids_HW = np.zeros(SIZE, int)
        for result in task["predictions"][0]["result"]:
            mask_HW = decode_rle(result["value"]["rle"]).reshape(*SIZE, 4)[..., 3] > 0
            ids_HW[mask_HW] = int(result["value"]["brushlabels"][0].split()[1])
        maps.append(ids_HW)
    return np.stack(maps)


def boxes(folder: Path) -> np.ndarray:
    """Rows of segment, frame from 1, x, y, width, height."""
    from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import extract_key_frames

    (task,) = json.loads((folder / "tasks.json").read_text())
    return np.array(
        [
            [int(result["id"].split("-")[1]), *(entry[key] for key in ("frame", "x", "y", "width", "height"))]
            for result in extract_key_frames(task["predictions"][0]["result"])
            for entry in result["value"]["sequence"]
        ]
    )


def cityscapes(folder: Path) -> dict[str, np.ndarray]:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.helpers.labels import labels
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    maps = []
    for path in sorted(folder.rglob("*_polygons.json")):
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        maps.append(np.asarray(createLabelImage(annotation, "ids")))
    table = [(label.name, label.id, *label.color) for label in labels if label.id >= 0]
    return {"cityscapes": np.stack(maps), "cityscapes_labels": np.array(table)}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
