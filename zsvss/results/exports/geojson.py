"""GeoJSON features in pixel coordinates: a file a video, a multi-polygon a segment a frame.

x runs to the right and y down, from the upper left corner of the frame; that is the one thing in which these files are
not GeoJSON, whose coordinates are degrees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zsvss.results.atomic_files import safe_folder
from zsvss.results.exports.base import Exporter, hex_color
from zsvss.results.exports.piecewise_files import write_json_list
from zsvss.results.exports.polygons import Ring, polygons
from zsvss.results.predictions import Predictions


class GeoJson(Exporter):
    """Holes are kept, as the format has them."""

    def write(self) -> None:
        """Write a file a video."""
        for video in self.videos:
            head = {
                "type": "FeatureCollection",
                "name": video.video,
                "coordinates": "pixels",
                "width": video.width,
                "height": video.height,
            }
            path = self.output / f"{safe_folder(video.video)}.geojson"
            write_json_list(path, head, "features", self._features(video))

    def _features(self, video: Predictions) -> Iterator[dict[str, Any]]:
        for frame in self.frames(video):
            for segment in frame.segments:
                mask_HW = frame.mask(segment)
                parts = polygons(mask_HW, self.options.tolerance)
                yield {
                    "type": "Feature",
                    "geometry": {
                        "type": "MultiPolygon",
                        "coordinates": [[_closed(ring) for ring in (part.outer, *part.holes)] for part in parts],
                    },
                    "properties": {
                        "segment": segment.id,
                        "name": segment.name,
                        "color": hex_color(segment.color),
                        "frame": frame.number,
                        "frame_name": frame.name,
                        "time": frame.time,
                        "area": int(mask_HW.sum()),
                    },
                }


def _closed(ring: Ring) -> list[list[float]]:
    points: list[list[float]] = ring.tolist()
    return [*points, points[0]]
