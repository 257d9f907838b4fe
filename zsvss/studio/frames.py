"""The frames of a video for the page: one thread decodes, and what was asked for last is kept.

Shapes: H W pixels; 3 is RGB.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import cv2
import numpy as np
from PIL import ExifTags, Image

from zsvss.data.reader import FrameReader, open_frames
from zsvss.data.video_facts import VideoFacts
from zsvss.results.predictions import Source
from zsvss.results.segment_colors import UInt8

_JPEG_BYTES = 64 << 20
_FRAME_BYTES = 128 << 20
_QUALITY = 90

Value = TypeVar("Value")


class FramesError(ValueError):
    """Frames that cannot be shown."""


class Kept(Generic[Value]):
    """Values that were used last, up to a number of bytes; may be used by several threads.

    Args:
        limit: of all values together, in bytes; the last one is kept in any case.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Value | None:
        """A value that is kept, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of so many bytes; those that were used longest ago make room."""
        with self._lock:
            if key in self._values:
                self._size -= self._values.pop(key)[1]
            self._values[key] = value, size
            self._size += size
            while self._size > self._limit and len(self._values) > 1:
                self._size -= self._values.popitem(last=False)[1][1]


class Frames:
    """The frames of a video, in a thread of their own; opened when the first one is asked for.

    Args:
        source: where they come from.
        size: height and width that they must have; None if it is not known before.
    """

    def __init__(self, source: Source, size: tuple[int, int] | None = None) -> None:
        self._source, self._size = source, size
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames")
        self._reader: FrameReader | None = None
        self._frames: Kept[UInt8] = Kept(_FRAME_BYTES)
        self._jpegs: Kept[bytes] = Kept(_JPEG_BYTES)

    def read(self, number: int) -> UInt8:
        """A frame, uint8 RGB ``[H, W, 3]``; not to be changed.

        Raises:
            FramesError: the source is gone, is another one now, or cannot be decoded there.
        """
        frame_HW3 = self._frames.get(number)
        return self._thread.submit(self._read, number).result() if frame_HW3 is None else frame_HW3

    def jpeg(self, number: int) -> bytes:
        """A frame as a JPEG file; raises what `read` raises."""
        content = self._jpegs.get(number)
        if content is None:
            content = self._thread.submit(self._jpeg, number).result()
        return content

    def facts(self) -> VideoFacts:
        """Number, size and times of the frames; raises what `read` raises."""
        return self._thread.submit(self._opened).result().facts

    def close(self) -> None:
        """Close the source."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._reader is not None:
            self._reader.close()

    def _read(self, number: int) -> UInt8:
        frame_HW3 = self._frames.get(number)
        if frame_HW3 is None:
            try:
                frame_HW3 = self._opened().read(number, number + 1)[0].numpy()
            except Exception as error:  # a decoder's libraries raise what they like
                raise FramesError(f"frame {number + 1} of {self._source.path} cannot be read: {error}") from error
            self._frames.put(number, frame_HW3, frame_HW3.nbytes)
        return frame_HW3

    def _jpeg(self, number: int) -> bytes:
        content = self._jpegs.get(number)
        if content is None:
            content = self._own_jpeg(number)
            if content is None:
                image_HW3 = cv2.cvtColor(self._read(number), cv2.COLOR_RGB2BGR)
                _, encoded = cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
                content = np.asarray(encoded).tobytes()
            self._jpegs.put(number, content, len(content))
        return content

    def _own_jpeg(self, number: int) -> bytes | None:
        """The frame's own file, if a browser shows it as it is read here."""
        self._opened()  # what is wrong with the source is told there
        if self._source.files is None or not self._source.files[number].lower().endswith((".jpg", ".jpeg")):
            return None
        content = (Path(self._source.path) / self._source.files[number]).read_bytes()
        with Image.open(BytesIO(content)) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L")
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return content if plain and upright else None

    def _opened(self) -> FrameReader:
        self._reader = self._reader or self._open()
        return self._reader

    def _open(self) -> FrameReader:
        source = self._source
        if not source.path:
            raise FramesError("the frames were generated, so there is no file to show them from")
        path = Path(source.path)
        try:
            reader = open_frames(path if source.files is None else [path / name for name in source.files])
        except (OSError, ValueError) as error:
            raise FramesError(f"{path} cannot be opened ({error}); put the video back that was segmented") from error
        if self._size is not None and reader.size != self._size:
            found, wanted = (f"{width}x{height}" for height, width in (reader.size, self._size))
            raise FramesError(f"{path} is {found}, its masks are {wanted}; put the video back that was segmented")
        return reader
