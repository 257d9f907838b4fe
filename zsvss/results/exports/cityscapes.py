"""Cityscapes: label ids, colours and polygons of each frame.

::

    gtFine/val/<city>/<city>_<sequence>_<frame>_gtFine_{labelIds.png,color.png,polygons.json}
    leftImg8bit/val/<city>/<city>_<sequence>_<frame>_leftImg8bit.png         with --frames

Names of frames that are not Cityscapes' own are made of the video's name, its number and the frame's. Polygons have no
holes: they lie on top of each other, the larger first, and what is of no segment inside of one is ``unlabeled``. They
run through the centres of border pixels, as the data set's tools draw them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from zsvss.data.class_lists import CITYSCAPES_LABELS
from zsvss.results.exports import ExportError
from zsvss.results.exports.base import Exporter, Frame, values_of
from zsvss.results.exports.piecewise_files import write_json
from zsvss.results.exports.polygons import area, polygons
from zsvss.results.id_images import write_ids
from zsvss.results.predictions import Predictions

_OWN_NAME = re.compile(r"(?P<base>(?P<city>[^_]+)_\d+_\d+)(_leftImg8bit)?$")
_UNLABELED = "unlabeled"
_HALF_PIXEL = 0.5


class CityscapesFiles(Exporter):
    """Segments must be named by Cityscapes' labels."""

    def write(self) -> None:
        """Write the three files of each frame and, if wanted, the frame.

        Raises:
            ExportError: a segment's name is no label of Cityscapes.
        """
        self._check_names()
        colors = np.array([color for _, color in CITYSCAPES_LABELS.values()], np.uint8)
        for index, video in enumerate(self.videos):
            value_of = {segment.id: CITYSCAPES_LABELS[segment.name][0] for segment in video.segments}
            for frame in self.frames(video):
                city, base = _names(video, index, frame.number)
                folder = self.output / "gtFine" / "val" / city
                folder.mkdir(parents=True, exist_ok=True)
                values_HW = values_of(frame, value_of)
                write_ids(folder / f"{base}_gtFine_labelIds.png", values_HW, colors)
                Image.fromarray(colors[values_HW]).save(folder / f"{base}_gtFine_color.png")
                content = {"imgHeight": video.height, "imgWidth": video.width, "objects": list(self._objects(frame))}
                write_json(folder / f"{base}_gtFine_polygons.json", content)
            if self.options.frames:
                self._write_images(video, index)

    def _check_names(self) -> None:
        used = {segment.name for video in self.videos for segment in video.segments}
        if unknown := sorted(used - set(CITYSCAPES_LABELS)):
            near = [match for name in unknown for match in difflib.get_close_matches(name, CITYSCAPES_LABELS, 1)]
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise ExportError(
                f"Cityscapes has no label {', '.join(map(repr, unknown))}.{hint} Name the segments by --names ID=LABEL "
                f"with its labels: {', '.join(CITYSCAPES_LABELS)}"
            )

    def _objects(self, frame: Frame) -> Iterator[dict[str, Any]]:
        """Outlines, those that contain others first."""
        # Of parts that are connected by sides alone, one lies within the outline of another or outside of it.
        outlines = [
            (abs(area(part.outer)), number, part.outer)
            for number in (0, *(segment.id for segment in frame.segments))
            for mask_HW in _parts(frame.ids_HW == number)
            for part in polygons(mask_HW, self.options.tolerance)
        ]
        names = {segment.id: segment.name for segment in frame.segments}
        for _, number, ring in sorted(outlines, key=lambda outline: -outline[0]):
            points = np.round(ring - _HALF_PIXEL, 2).tolist()
            yield {"label": names.get(number, _UNLABELED), "polygon": points}

    def _write_images(self, video: Predictions, index: int) -> None:
        from zsvss.results.exports.frames import write_frames

        names = [_names(video, index, number) for number in range(video.num_frames)]
        folder = self.output / "leftImg8bit" / "val"
        write_frames(video, [folder / city / f"{base}_leftImg8bit.png" for city, base in names])


def _parts(mask_HW: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[np.bool_]]:
    """The parts of a mask that are connected by the sides of pixels, bool ``[H, W]`` each."""
    num, parts_HW = cv2.connectedComponents(mask_HW.astype(np.uint8), connectivity=4)
    for number in range(1, num):
        yield parts_HW == number


def _names(video: Predictions, index: int, number: int) -> tuple[str, str]:
    """City, and what the names of a frame's files begin with."""
    if own := _OWN_NAME.match(video.frame_names[number]):
        return own["city"], own["base"]
    city = re.sub(r"[^A-Za-z0-9-]+", "-", video.video).strip("-") or "video"
    return city, f"{city}_{index:06d}_{number:06d}"
