"""DAVIS 2017: a palette image of object numbers a frame.

::

    Annotations/480p/<video>/<frame>.png       (Full-Resolution where frames are not 480 high)
    JPEGImages/480p/<video>/<frame>.jpg        with --frames
    ImageSets/2017/val.txt
    davis_semantics.json                       name of each object, as the data set has it

An object's number is the segment's id, and 0 is the background.
"""

from __future__ import annotations

from zsvss.results.atomic_files import safe_folder
from zsvss.results.exports import ExportError
from zsvss.results.exports.base import Exporter, color_table
from zsvss.results.exports.piecewise_files import write_json
from zsvss.results.id_images import write_ids

_LARGEST = 255


class Davis(Exporter):
    """Writes palette images in the segments' colours."""

    def write(self) -> None:
        """Write annotations, the list of videos, names and, if wanted, frames.

        Raises:
            ExportError: an id does not fit into a palette image.
        """
        semantics: dict[str, dict[str, str]] = {}
        for video in self.videos:
            if (highest := video.segments[-1].id) > _LARGEST:
                raise ExportError(
                    f"{video.video} has a segment {highest}; DAVIS holds objects up to {_LARGEST}. Take numpy or coco"
                )
            name = str(safe_folder(video.video))
            size = "480p" if video.height == 480 else "Full-Resolution"
            folder = self.output / "Annotations" / size / name
            folder.mkdir(parents=True)
            table = color_table(video)
            for frame in self.frames(video):
                stem = self.image_name(video, frame.number).rpartition(".")[0]
                write_ids(folder / f"{stem}.png", frame.ids_HW, table)
            self.write_frames(video, self.output / "JPEGImages" / size / name, endings=(".jpg",))
            semantics[name] = {str(segment.id): segment.name for segment in video.segments}
        (self.output / "ImageSets" / "2017").mkdir(parents=True)
        (self.output / "ImageSets" / "2017" / "val.txt").write_text("".join(f"{name}\n" for name in semantics))
        write_json(self.output / "davis_semantics.json", semantics)
