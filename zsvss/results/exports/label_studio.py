"""Label Studio: a task a frame, each segment as a brush mask.

::

    tasks.json
    label_config.xml            the project's labeling interface
    images/<frame>.jpg          with --frames

A mask's ``rle`` is Label Studio's own: the runs of an RGBA image in bits, see `brush_rle`. Its encoder ships with the
SDK, which needs pandas, NLTK, OpenCV with windows and a code generator; this is its inverse in a few lines of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from zsvss.results.exports.base import Category, Exporter, hex_color
from zsvss.results.exports.piecewise_files import write_json_list

# Bits of a run's length; which of these follows is told by two bits.
_LENGTH_BITS = np.array([3, 4, 8, 16])
_WORD_BITS = 8


class LabelStudio(Exporter):
    """Predictions, not annotations: Label Studio shows them, and makes them annotations when they are accepted."""

    def write(self) -> None:
        """Write tasks, the labeling interface and, if wanted, frames."""
        write_json_list(self.output / "tasks.json", None, "", self._tasks())
        labels = label_tags(self.categories)
        config = (
            '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="segments" toName="image">\n{labels}  </BrushLabels>\n</View>\n'
        )
        (self.output / "label_config.xml").write_text(config, encoding="utf-8")
        for video in self.videos:
            self.write_frames(video, self.output / "images" / self.folder_of(video))
        if not self.options.url:
            self.notes.append(
                "the tasks' images are images/<frame>; serve them, and say where by --url, such as "
                "--url '/data/local-files/?d=export/'"
            )

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for video in self.videos:
            for frame in self.frames(video):
                path = f"images/{self.folder_of(video)}{self.image_name(video, frame.number)}"
                times = {} if frame.time is None else {"time": frame.time}
                results = [
                    {
                        "id": f"{frame.number}-{segment.id}",
                        "from_name": "segments",
                        "to_name": "image",
                        "type": "brushlabels",
                        "original_width": video.width,
                        "original_height": video.height,
                        "image_rotation": 0,
                        "value": {
                            "format": "rle",
                            "rle": brush_rle(frame.mask(segment)),
                            "brushlabels": [segment.name],
                        },
                        "meta": {"text": [f"segment {segment.id}"]},
                    }
                    for segment in frame.segments
                ]
                yield {
                    "data": {
                        "image": self.options.url + path,
                        "video": video.video,
                        "frame": frame.number,
                        "frame_name": frame.name,
                        **times,
                    },
                    "predictions": [{"model_version": "zsvss", "result": results}],
                }


def brush_rle(mask_HW: npt.NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio's brush keeps it: bytes of a bit stream, as a list of 0..255.

    The stream is that of the RGBA image whose four channels are 0 or 255. It begins with 32 bits, the number of values;
    5 bits, the bits of a value - 1; four times 4 bits, the sizes of a run's length - 1. Then come the runs, each with
    one bit 1, two bits that choose the size of its length, the length - 1, and the value.

    Args:
        mask_HW: the mask.
    """
    flat = mask_HW.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = 4 * np.diff(np.concatenate([starts, [flat.size]]))
    values = np.where(flat[starts], 255, 0)
    longest = 1 << int(_LENGTH_BITS[-1])
    pieces = -(-lengths // longest)  # of a run that is too long for one
    values = values.repeat(pieces)
    last = np.cumsum(pieces) - 1
    parts = np.full(int(pieces.sum()), longest)
    parts[last] = lengths - (pieces - 1) * longest
    size = np.searchsorted(1 << _LENGTH_BITS, parts)
    bits = _LENGTH_BITS[size]
    words = (((0b100 | size) << bits | (parts - 1)) << _WORD_BITS) | values
    widths = 3 + bits + _WORD_BITS
    places = np.arange(int(widths.max()) - 1, -1, -1)
    stream = ((words[:, None] >> places) & 1)[places < widths[:, None]]
    head = f"{4 * flat.size:032b}{_WORD_BITS - 1:05b}{''.join(f'{width - 1:04b}' for width in _LENGTH_BITS)}"
    whole = np.concatenate([np.array(list(head), dtype=np.uint8), stream.astype(np.uint8)])
    rle: list[int] = np.packbits(whole).tolist()
    return rle


def label_tags(categories: tuple[Category, ...]) -> str:
    """The labels of a labeling interface, a line each."""
    return "".join(
        f"    <Label value={quoteattr(category.name)} background={quoteattr(hex_color(category.color))}/>\n"
        for category in categories
    )
