"""CVAT for video 1.1: a track a segment, with a polygon in each frame.

::

    <video>/annotations.xml
            labels.json         for the task's constructor, "Raw"

CVAT has no tracks of masks, and a track has one polygon a frame. So a segment of several parts, or with holes, is one
line, whose parts are joined by cuts without width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zsvss.results.exports.base import Exporter
from zsvss.results.exports.cvat_images import write_labels, write_meta
from zsvss.results.exports.piecewise_files import XmlFile
from zsvss.results.exports.polygons import Ring, joined, polygons
from zsvss.results.predictions import Predictions, Segment


class CvatVideo(Exporter):
    """A folder a video: a task of CVAT is one video. A track is one element, so masks are read once a segment."""

    def write(self) -> None:
        """Write annotations and labels."""
        for video in self.videos:
            with XmlFile(self.output / self.folder_of(video) / "annotations.xml", "annotations") as xml:
                write_meta(xml, video, self.categories, "interpolation")
                for segment in video.segments:
                    xml.open("track", id=segment.id, label=segment.name, source="auto", group_id=segment.id)
                    self._write_track(xml, video, segment)
                    xml.close("track")
            write_labels(self, video)

    def _write_track(self, xml: XmlFile, video: Predictions, segment: Segment) -> None:
        lines = self._lines(video, segment)
        before: Ring | None = None
        number, line = next(lines, (0, None))
        while line is not None:
            following = next(lines, None)
            self.written[video.video, segment.id] += 1
            goes_on = following is not None and following[0] == number + 1
            # CVAT fills in what lies between keyframes, so that only a frame amid equal ones can do without.
            amid = before is not None and _same(before, line) and following is not None and _same(following[1], line)
            _write_polygon(xml, number, line, keyframe=not (amid and goes_on))
            if not goes_on and number + 1 < video.num_frames:
                _write_polygon(xml, number + 1, line, outside=True)
            if following is None:
                return
            before, (number, line) = line if goes_on else None, following

    def _lines(self, video: Predictions, segment: Segment) -> Iterator[tuple[int, Ring]]:
        """Number and outline of each frame that the segment is in."""
        for number in segment.frames.tolist():
            parts = polygons(video.mask(number) == segment.id, self.options.tolerance)
            if parts:
                yield number, joined([ring for part in parts for ring in (part.outer, *part.holes)])


def _same(first: Ring, second: Ring) -> bool:
    return np.array_equal(first, second)


def _write_polygon(xml: XmlFile, frame: int, line: Ring, *, outside: bool = False, keyframe: bool = True) -> None:
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in line.tolist())
    xml.element(
        "polygon",
        frame=frame, keyframe=int(keyframe), outside=int(outside), occluded=0, points=points, z_order=0,
    )  # fmt: skip
