"""VSPW: an image of class numbers a frame.

::

    val.txt                          the videos
    label_num_dic_final.json         number of each class
    data/<video>/mask/<frame>.png
    data/<video>/origin/<frame>.jpg  with --frames

Numbers are VSPW's own where all names are classes of VSPW, and of the names' own order otherwise. 0 is void.
"""

from __future__ import annotations

import numpy as np

from zsvss.data.class_lists import VSPW_CLASSES, VSPW_COLORS
from zsvss.results.atomic_files import safe_folder
from zsvss.results.exports import ExportError
from zsvss.results.exports.base import Exporter, values_of
from zsvss.results.exports.piecewise_files import write_json
from zsvss.results.id_images import write_ids

_LARGEST = 253  # 254 and 255 are ignored


class Vspw(Exporter):
    """Writes palette images, whose values are the classes' numbers."""

    def write(self) -> None:
        """Write masks, the lists of videos and classes and, if wanted, frames.

        Raises:
            ExportError: more classes than the format can hold.
        """
        names = [category.name for category in self.categories]
        colors = [category.color for category in self.categories]
        used = {segment.name for video in self.videos for segment in video.segments}
        if used <= set(VSPW_CLASSES):
            names, colors = list(VSPW_CLASSES), list(VSPW_COLORS)
        else:
            self.notes.append("the names are not all classes of VSPW, so the export has its own list of classes")
        if len(names) > _LARGEST:
            raise ExportError(f"{len(names)} classes do not fit into VSPW's images; at most {_LARGEST} do")
        number_of = {name: number for number, name in enumerate(names, start=1)}
        table = np.array([(0, 0, 0), *colors], np.uint8)
        folders = []
        for video in self.videos:
            folders.append(str(safe_folder(video.video)))
            place = self.output / "data" / folders[-1]
            (place / "mask").mkdir(parents=True)
            value_of = {segment.id: number_of[segment.name] for segment in video.segments}
            for frame in self.frames(video):
                stem = self.image_name(video, frame.number).rpartition(".")[0]
                write_ids(place / "mask" / f"{stem}.png", values_of(frame, value_of), table)
            self.write_frames(video, place / "origin")
        (self.output / "val.txt").write_text("".join(f"{name}\n" for name in folders), encoding="utf-8")
        write_json(self.output / "label_num_dic_final.json", number_of)
