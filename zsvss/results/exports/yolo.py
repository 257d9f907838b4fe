"""YOLO segmentation, as Ultralytics reads it: a text file a frame, a line a connected part.

::

    data.yaml
    images/train/<frame>.jpg     with --frames
    labels/train/<frame>.txt     class x1 y1 x2 y2 ..., as shares of width and height

The format has no holes: each is joined to its part's border by a cut without width. It has no objects of several parts
either: each part is a line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from zsvss.results.exports.base import Exporter
from zsvss.results.exports.polygons import polygons, without_holes


class Yolo(Exporter):
    """Writes a text file a frame, also for frames without segments."""

    def write(self) -> None:
        """Write labels, the list of classes and, if wanted, frames."""
        for video in self.videos:
            folder = self.output / "labels" / "train" / self.folder_of(video)
            folder.mkdir(parents=True, exist_ok=True)
            size = np.array([video.width, video.height], dtype=np.float64)
            for frame in self.frames(video):
                lines = []
                for segment in frame.segments:
                    number = self.category_of[segment.name].number
                    for part in polygons(frame.mask(segment), self.options.tolerance):
                        shares = (without_holes(part) / size).ravel()
                        lines.append(f"{number} {' '.join(f'{share:.7g}' for share in shares)}\n")
                name = Path(self.image_name(video, frame.number)).stem
                (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
            self.write_frames(video, self.output / "images" / "train" / self.folder_of(video))
        names = {category.number: category.name for category in self.categories}
        content = {"path": ".", "train": "images/train", "val": "images/train", "names": names}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self.output / "data.yaml").write_text(text, encoding="utf-8")
