"""What ``segments.json`` says of each segment in each frame: measured, kept on disk, written without a copy in memory.

Shapes: H W pixels, n frames.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

Rows = npt.NDArray[np.int32]
"""One row a frame, ``[n, 7]``: frame, area, x, y, width, height, number of connected parts."""

_ROWS_IN_MEMORY = 256


class Measured(NamedTuple):
    """A segment in one frame.

    Attributes:
        id: of the segment.
        area: pixels.
        box: x and y of the upper left pixel, width, height.
        num_parts: connected parts; pixels that touch at a corner are connected.
    """

    id: int
    area: int
    box: tuple[int, int, int, int]
    num_parts: int


def measure(ids_HW: npt.NDArray[np.integer]) -> list[Measured]:
    """The segments of a frame in the order of their ids.

    Args:
        ids_HW: ids from 1; 0 is no segment.

    >>> measure(np.array([[0, 1, 1], [3, 0, 0], [0, 3, 1]]))[0]
    Measured(id=1, area=3, box=(1, 0, 2, 3), num_parts=2)
    """
    measured = []
    for index, place in enumerate(find_objects(ids_HW)):
        if place is None:
            continue
        rows, columns = place
        mask = (ids_HW[place] == index + 1).astype(np.uint8)
        num_parts = cv2.connectedComponents(mask, connectivity=8)[0] - 1
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        measured.append(Measured(index + 1, int(np.count_nonzero(mask)), box, num_parts))
    return measured


class FrameLine(NamedTuple):
    """What is written of a frame at once, as a line of JSON.

    Attributes:
        name: of the frame.
        time: seconds from a stream's first frame; None for other videos.
        shot: number of its shot; None where shots are not followed.
        segments: what was measured.
    """

    name: str
    time: float | None
    shot: int | None
    segments: list[Measured]

    def to_json(self) -> str:
        """One line, with its end."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":")) + "\n"

    @classmethod
    def of_json(cls, line: str) -> FrameLine:
        """What `to_json` gave.

        Raises:
            ValueError: the line is cut short.
        """
        name, time, shot, segments = json.loads(line)
        return cls(name, time, shot, [Measured(id, area, tuple(box), parts) for id, area, box, parts in segments])


class SegmentTable:
    """What was measured of a video, in a temporary file: memory grows by a few bytes a frame at most."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._waiting: dict[int, list[tuple[int, ...]]] = {}
        self._blocks: dict[int, list[tuple[int, int]]] = {}

    def add(self, frame: int, measured: Iterable[Measured]) -> None:
        """Add what was measured in the next frame."""
        for segment in measured:
            rows = self._waiting.setdefault(segment.id, [])
            rows.append((frame, segment.area, *segment.box, segment.num_parts))
            if len(rows) == _ROWS_IN_MEMORY:
                content = np.array(rows, dtype=np.int32).tobytes()
                self._blocks.setdefault(segment.id, []).append((self._file.seek(0, 2), len(content)))
                self._file.write(content)
                rows.clear()

    @property
    def ids(self) -> list[int]:
        """The segments, in order."""
        return sorted(self._waiting)

    def blocks(self, segment: int) -> Iterator[Rows]:
        """The rows of a segment in the order of frames, a few hundred at a time."""
        for offset, length in self._blocks.get(segment, []):
            self._file.seek(offset)
            yield np.frombuffer(self._file.read(length), dtype=np.int32).reshape(-1, 7)
        if self._waiting[segment]:
            yield np.array(self._waiting[segment], dtype=np.int32)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def json_pieces(header: Mapping[str, Any], segments: Sequence[Mapping[str, Any]], table: SegmentTable) -> Iterator[str]:
    """The text of ``segments.json`` in pieces.

    Args:
        header: what is known of the video.
        segments: id, name and so on of each segment of the table, in its order.
        table: what was measured.
    """
    yield json.dumps(header, ensure_ascii=False).removesuffix("}") + ', "segments": ['
    for index, segment in enumerate(segments):
        yield ",\n" if index else "\n"
        summary = _summary(table.blocks(segment["id"]))
        yield json.dumps({**segment, **summary}, ensure_ascii=False).removesuffix("}")
        for key, columns in (("frames", 0), ("areas", 1), ("boxes", slice(2, 6)), ("parts", 6)):
            yield f', "{key}": ['
            for number, rows in enumerate(table.blocks(segment["id"])):
                values = json.dumps(rows[:, columns].tolist(), separators=(",", ":"))
                yield ("," if number else "") + values[1:-1]
            yield "]"
        yield "}"
    yield "\n]}\n"


def _summary(blocks: Iterable[Rows]) -> dict[str, Any]:
    """A segment over all its frames; its box holds all their boxes."""
    first, last, num_frames, num_parts = -1, -1, 0, 0
    corners = [np.iinfo(np.int32).max, np.iinfo(np.int32).max, 0, 0]
    for rows in blocks:
        first = int(rows[0, 0]) if first < 0 else first
        last = int(rows[-1, 0])
        num_frames += len(rows)
        num_parts = max(num_parts, int(rows[:, 6].max()))
        starts, ends = rows[:, 2:4].min(0).tolist(), (rows[:, 2:4] + rows[:, 4:6]).max(0).tolist()
        corners = [*map(min, corners[:2], starts), *map(max, corners[2:], ends)]
    x, y, right, bottom = corners
    return {
        "first_frame": first,
        "last_frame": last,
        "num_frames": num_frames,
        "box": [x, y, right - x, bottom - y],
        "num_parts": num_parts,
    }
