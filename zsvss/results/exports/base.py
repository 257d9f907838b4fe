"""What all formats share: names, frames and files.

Shapes: H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zsvss.results.atomic_files import safe_folder
from zsvss.results.exports import ExportError
from zsvss.results.predictions import Color, Ids, Predictions, Segment, present_ids
from zsvss.results.segment_colors import palette


@dataclass(frozen=True)
class Options:
    """What may be chosen of every format.

    Attributes:
        frames: Write the frames as well.
        tolerance: Polygons may leave the borders of their pixels by so many pixels; up to 0.7 no pixel's centre
            changes sides.
        url: What stands before the path of a frame or a video, for tools that fetch them.
    """

    frames: bool = False
    tolerance: float = 0.5
    url: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 10:
            raise ExportError(f"--tolerance is {self.tolerance}; allowed is 0 (every corner) to 10 pixels")


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame with its segments.

    Attributes:
        number: From 0.
        name: Without an ending.
        time: Seconds from the first frame; None where there are no times.
        ids_HW: Segment of each pixel, int32; 0 is none.
        segments: Those that are in the frame, in order of their ids.
    """

    number: int
    name: str
    time: float | None
    ids_HW: Ids
    segments: tuple[Segment, ...]

    def mask(self, segment: Segment) -> npt.NDArray[np.bool_]:
        """Pixels of a segment, bool ``[H, W]``."""
        mask_HW: npt.NDArray[np.bool_] = self.ids_HW == segment.id
        return mask_HW


@dataclass(frozen=True)
class Category:
    """What segments of one name are.

    Attributes:
        number: From 0, in order of the classes or of appearance.
        name: Unlike all others.
        color: RGB.
    """

    number: int
    name: str
    color: Color


class Exporter(ABC):
    """A format.

    Args:
        output: folder to write into; it is there and empty.
        videos: what to export.
        options: what was chosen.
    """

    def __init__(self, output: Path, videos: Sequence[Predictions], options: Options) -> None:
        self.output, self.videos, self.options = output, videos, options
        self.written: Counter[tuple[str, int]] = Counter()
        """How often each segment, by video and id, was written."""
        self.notes: list[str] = []
        """What the user should know of the export."""

    @abstractmethod
    def write(self) -> None:
        """Write everything, and count each segment that is written with `frames` or `count`."""

    def frames(self, video: Predictions) -> Iterator[Frame]:
        """The frames of a video; each segment counts as written in each of them."""
        by_id = {segment.id: segment for segment in video.segments}
        for number, name in enumerate(video.frame_names):
            ids_HW = video.mask(number)
            present = tuple(by_id[number] for number in present_ids(ids_HW) if number)
            self.written.update((video.video, segment.id) for segment in present)
            time = None if video.frame_times is None else video.frame_times[number]
            yield Frame(number, name, time, ids_HW, present)

    @cached_property
    def categories(self) -> tuple[Category, ...]:
        """The names of all segments, with the classes of a benchmark first, also those that no segment is of."""
        colors: dict[str, Color] = {}
        for video in self.videos:
            colors |= {entry.name: entry.color for entry in video.classes if entry.name not in colors}
        for video in self.videos:
            for segment in video.segments:
                colors.setdefault(segment.name, segment.color)
        return tuple(Category(number, name, color) for number, (name, color) in enumerate(colors.items()))

    @cached_property
    def category_of(self) -> dict[str, Category]:
        """The same by name."""
        return {category.name: category for category in self.categories}

    def folder_of(self, video: Predictions) -> str:
        """Folder of a video's files in an export of all videos: none if there is one video alone."""
        return "" if len(self.videos) == 1 else f"{safe_folder(video.video)}/"

    def image_name(self, video: Predictions, number: int) -> str:
        """File name of a frame: the image's own, or the frame's name with the ending of those that are written."""
        if video.source.files is not None:
            return video.source.files[number]
        return f"{video.frame_names[number]}.jpg"

    def write_frames(self, video: Predictions, folder: Path, endings: Sequence[str] = ()) -> None:
        """Write a video's frames, if frames are wanted.

        Args:
            video: whose frames.
            folder: where to.
            endings: which the format allows; any, if left out.
        """
        if self.options.frames:
            from zsvss.results.exports.frames import write_frames

            names = [self.image_name(video, number) for number in range(video.num_frames)]
            if endings:
                names = [name if Path(name).suffix in endings else Path(name).stem + endings[0] for name in names]
            write_frames(video, [folder / name for name in names])


def color_table(video: Predictions) -> npt.NDArray[np.uint8]:
    """RGB of the ids 0, 1, ... of a video, uint8 ``[any, 3]``; no segment is black."""
    table = np.concatenate([np.zeros((1, 3), np.uint8), palette(max(s.id for s in video.segments))])
    for segment in video.segments:
        table[segment.id] = segment.color
    return table


def values_of(frame: Frame, value_of: Mapping[int, int]) -> npt.NDArray[np.int32]:
    """A frame's ids as other values, int32 ``[H, W]``; 0 stays 0 unless it is told otherwise."""
    table = np.zeros(int(frame.ids_HW.max(initial=0)) + 1, dtype=np.int32)
    for number, value in value_of.items():
        if number < len(table):
            table[number] = value
    values_HW: npt.NDArray[np.int32] = table[frame.ids_HW]
    return values_HW


def hex_color(color: Color) -> str:
    """A colour as web pages write it.

    >>> hex_color((255, 0, 16))
    '#ff0010'
    """
    return "#" + "".join(f"{channel:02x}" for channel in color)


def library(name: str) -> Any:
    """A library of the optional extra.

    Raises:
        ExportError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"this format needs {name.partition('.')[0]}, which is not installed: pip install 'zsvss[export]'"
        ) from error
