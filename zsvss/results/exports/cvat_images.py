"""CVAT for images 1.1: each segment of each frame as a mask, which CVAT's brush edits.

::

    <video>/annotations.xml
            labels.json         for the task's constructor, "Raw"
    images/                     with --frames

A mask's run lengths go row by row through its box and begin with pixels outside. ``group_id`` is the segment's id.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zsvss.results.exports.base import Category, Exporter, Frame, hex_color
from zsvss.results.exports.piecewise_files import XmlFile, write_json
from zsvss.results.predictions import Predictions


class CvatImages(Exporter):
    """A folder a video: a task of CVAT is one video."""

    def write(self) -> None:
        """Write annotations, labels and, if wanted, frames."""
        for video in self.videos:
            folder = self.output / self.folder_of(video)
            with XmlFile(folder / "annotations.xml", "annotations") as xml:
                write_meta(xml, video, self.categories, "annotation")
                for frame in self.frames(video):
                    self._write_frame(xml, video, frame)
            write_labels(self, video)
            self.write_frames(video, folder / "images")

    def _write_frame(self, xml: XmlFile, video: Predictions, frame: Frame) -> None:
        name = self.image_name(video, frame.number)
        if video.source.files is None:
            name = f"frame_{frame.number:06d}"  # what CVAT calls the frames of a video file
        xml.open("image", id=frame.number, name=name, width=video.width, height=video.height)
        for segment in frame.segments:
            mask_HW = frame.mask(segment)
            index = int(np.searchsorted(segment.frames, frame.number))
            left, top, width, height = segment.boxes[index].tolist()
            counts = run_lengths(mask_HW[top : top + height, left : left + width])
            xml.element(
                "mask",
                label=segment.name, source="auto", occluded=0, rle=", ".join(map(str, counts.tolist())),
                left=left, top=top, width=width, height=height, z_order=0, group_id=segment.id,
            )  # fmt: skip
        xml.close("image")


def run_lengths(mask_hw: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Lengths of the runs of a mask, row by row, beginning with pixels outside.

    >>> run_lengths(np.array([[True, False], [False, True]])).tolist()
    [0, 1, 2, 1]
    """
    flat = mask_hw.ravel()
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: npt.NDArray[np.int64] = np.diff(np.concatenate([[0], borders, [flat.size]]))
    return np.concatenate([[0], lengths]) if flat[0] else lengths


def write_meta(xml: XmlFile, video: Predictions, categories: tuple[Category, ...], mode: str) -> None:
    """The head of a CVAT file; ``mode`` is ``annotation`` for images and ``interpolation`` for a video."""
    xml.element("version", "1.1")
    xml.open("meta")
    xml.open("task")
    xml.element("name", video.video)
    xml.element("size", video.num_frames)
    xml.element("mode", mode)
    xml.element("start_frame", 0)
    xml.element("stop_frame", video.num_frames - 1)
    xml.open("labels")
    for category in categories:
        xml.open("label")
        xml.element("name", category.name)
        xml.element("color", hex_color(category.color))
        xml.element("type", "any")
        xml.element("attributes")
        xml.close("label")
    xml.close("labels")
    xml.open("original_size")
    xml.element("width", video.width)
    xml.element("height", video.height)
    xml.close("original_size")
    xml.close("task")
    xml.close("meta")


def write_labels(exporter: Exporter, video: Predictions) -> None:
    """The labels that a task must have before its annotations are uploaded, as CVAT's constructor takes them."""
    labels = [
        {"name": category.name, "color": hex_color(category.color), "type": "any", "attributes": []}
        for category in exporter.categories
    ]
    write_json(exporter.output / exporter.folder_of(video) / "labels.json", labels)
