"""COCO: instances (one annotation a segment a frame) and panoptic, masks as run lengths by pycocotools.

::

    annotations/instances_default.json
    annotations/panoptic_default.json
    annotations/panoptic_default/<frame>.png      id = R + 256 G + 256^2 B
    images/default/<frame>.jpg                    with --frames

An annotation's ``track_id`` is the segment's id, the same in every frame; images have ``video_id``, ``frame_id`` and
``time``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from zsvss.results.exports.base import Exporter, Frame, library
from zsvss.results.exports.piecewise_files import write_json_list
from zsvss.results.predictions import Predictions

_SUBSET = "default"


class Coco(Exporter):
    """Writes both files of annotations in one pass a file."""

    def write(self) -> None:
        """Write annotations, panoptic images and, if wanted, frames."""
        self._mask = library("pycocotools.mask")
        folder = self.output / "annotations"
        head = {
            "info": {"description": "segments predicted by zsvss", "version": "1.0"},
            "licenses": [],
            "videos": [{"id": number, "name": video.video} for number, video in enumerate(self.videos, start=1)],
            "categories": [
                {
                    "id": category.number + 1,
                    "name": category.name,
                    "supercategory": "",
                    "isthing": 1,
                    "color": list(category.color),
                }
                for category in self.categories
            ],
            "images": list(self._images()),
        }
        write_json_list(folder / f"instances_{_SUBSET}.json", head, "annotations", self._instances())
        write_json_list(folder / f"panoptic_{_SUBSET}.json", head, "annotations", self._panoptic())
        for video in self.videos:
            self.write_frames(video, self.output / "images" / _SUBSET / self.folder_of(video))

    def _images(self) -> Iterator[dict[str, Any]]:
        number = 0
        for video_id, video in enumerate(self.videos, start=1):
            for frame in range(video.num_frames):
                number += 1
                yield {
                    "id": number,
                    "file_name": self.folder_of(video) + self.image_name(video, frame),
                    "width": video.width,
                    "height": video.height,
                    "video_id": video_id,
                    "frame_id": frame,
                    **({} if video.frame_times is None else {"time": video.frame_times[frame]}),
                }

    def _frames(self) -> Iterator[tuple[int, Predictions, Frame]]:
        pairs = ((video, frame) for video in self.videos for frame in self.frames(video))
        for image_id, (video, frame) in enumerate(pairs, start=1):
            yield image_id, video, frame

    def _instances(self) -> Iterator[dict[str, Any]]:
        number = 0
        for image_id, _, frame in self._frames():
            for segment in frame.segments:
                number += 1
                encoded = self._mask.encode(np.asfortranarray(frame.mask(segment).astype(np.uint8)))
                yield {
                    "id": number,
                    "image_id": image_id,
                    "category_id": self.category_of[segment.name].number + 1,
                    "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
                    "area": int(self._mask.area(encoded)),
                    "bbox": self._mask.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                    "track_id": segment.id,
                    # For tools that read no keys of their own; CVAT would take a "track_id" here for a track of boxes.
                    "attributes": {"segment_id": segment.id},
                }

    def _panoptic(self) -> Iterator[dict[str, Any]]:
        folder = self.output / "annotations" / f"panoptic_{_SUBSET}"
        for image_id, video, frame in self._frames():
            name = self.folder_of(video) + self.image_name(video, frame.number).rpartition(".")[0] + ".png"
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            ids_HW = frame.ids_HW
            Image.fromarray(np.stack([ids_HW % 256, ids_HW // 256, ids_HW * 0], -1).astype(np.uint8)).save(place)
            entries = []
            for segment in frame.segments:
                index = int(np.searchsorted(segment.frames, frame.number))
                entries.append(
                    {
                        "id": segment.id,
                        "category_id": self.category_of[segment.name].number + 1,
                        "area": int(segment.areas[index]),
                        "bbox": segment.boxes[index].tolist(),
                        "iscrowd": 0,
                    }
                )
            yield {"image_id": image_id, "file_name": name, "segments_info": entries}
