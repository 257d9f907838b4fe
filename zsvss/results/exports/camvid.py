"""CamVid as CVAT and Datumaro read it: a colour image a frame.

::

    label_colors.txt                           R G B and name of each class
    default.txt                                a line a frame: its image and its annotation
    default/<frame>.png                        with --frames
    defaultannot/<frame>.png

A class has CamVid's colour where its name is one of CamVid's 32, and its own otherwise. Void is black. The lists
separate their columns by spaces: those in names of classes become ``_``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from zsvss.data.class_lists import CAMVID_COLORS
from zsvss.results.exports import ExportError
from zsvss.results.exports.base import Exporter, values_of
from zsvss.results.predictions import Color
from zsvss.results.segment_colors import palette

_VOID = "Void"
_SUBSET = "default"


class CamVidFiles(Exporter):
    """Writes colour images in which no two classes share a colour."""

    def write(self) -> None:
        """Write annotations, the lists of classes and of frames and, if wanted, frames."""
        colors = self._colors()
        lines = "".join(f"{red} {green} {blue} {name}\n" for name, (red, green, blue) in self._listed(colors).items())
        (self.output / "label_colors.txt").write_text(lines, encoding="utf-8")
        number_of = {name: number for number, name in enumerate(colors)}
        table = np.array(list(colors.values()), np.uint8)
        listed = []
        for video in self.videos:
            value_of = {segment.id: number_of[segment.name] for segment in video.segments}
            for frame in self.frames(video):
                name = self.folder_of(video) + self.image_name(video, frame.number).rpartition(".")[0] + ".png"
                place = self.output / f"{_SUBSET}annot" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(table[values_of(frame, value_of)]).save(place)
                image, annotation = f"/{_SUBSET}/{name}", f"/{_SUBSET}annot/{name}"
                listed.append(f'"{image}" "{annotation}"\n' if " " in name else f"{image} {annotation}\n")
            self.write_frames(video, self.output / _SUBSET / self.folder_of(video), endings=(".png",))
        (self.output / f"{_SUBSET}.txt").write_text("".join(listed), encoding="utf-8")

    def _listed(self, colors: Mapping[str, Color]) -> dict[str, Color]:
        listed = {"_".join(name.split()): color for name, color in colors.items()}
        if len(listed) < len(colors):
            raise ExportError(
                "two names differ only in their spaces, which CamVid's list cannot hold; change one by --names"
            )
        if list(listed) != list(colors):
            self.notes.append("spaces in the names of classes became _, since CamVid's list is separated by spaces")
        return listed

    def _colors(self) -> dict[str, Color]:
        """A colour of its own for each class, void first."""
        colors: dict[str, Color] = {_VOID: (0, 0, 0)}
        wanted = {category.name: CAMVID_COLORS.get(category.name, category.color) for category in self.categories}
        # CamVid's own first: they keep their colours, and others make way.
        for name, color in sorted(wanted.items(), key=lambda item: item[0] not in CAMVID_COLORS):
            if name in colors:
                continue
            red, green, blue = color
            taken = set(colors.values())
            spare = (tuple(entry) for entry in palette(256).tolist())
            if color in taken:
                try:
                    red, green, blue = next(entry for entry in spare if entry not in taken)
                except StopIteration:
                    raise ExportError(f"{len(wanted)} classes are too many for colours of their own") from None
            colors[name] = (red, green, blue)
        return colors
