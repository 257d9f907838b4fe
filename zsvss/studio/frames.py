"""The frames of a video, for the page and for the model: what was asked for last is kept.

Shapes: H W pixels; 3 is RGB.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
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
from zsvss.studio.copies import Copies
from zsvss.studio.newest_first import NewestFirst

_log = logging.getLogger(__name__)

_JPEG_BYTES = 64 << 20
_FRAME_BYTES = 128 << 20
_QUALITY = 90
_PRIORITY = 10  # of copying, as `nice` has it

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

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

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
    """The frames of a video; opened when the first one is asked for.

    The page's frames and the model's are decoded in a thread each, so that neither sends the other's decoder to another
    place. Those of a video file are copied as JPEGs as well, in a third one, from the first frame to the last.

    Args:
        source: where they come from.
        size: height and width that they must have; None if it is not known before.
        place: folder that may be used for copies; None makes none.
    """

    def __init__(self, source: Source, size: tuple[int, int] | None = None, place: Path | None = None) -> None:
        self._source, self._size, self._place = source, size, place
        self._page: NewestFirst[bytes] = NewestFirst("frames of the page")
        self._model = ThreadPoolExecutor(max_workers=1, thread_name_prefix="frames of the model")
        self._readers: dict[str, FrameReader] = {}
        self._file: tuple[int, int] | None = None  # time and size of the video file when it was first opened
        self._opening = Lock()
        self._frames: Kept[UInt8] = Kept(_FRAME_BYTES)
        self._jpegs: Kept[bytes] = Kept(_JPEG_BYTES)
        self._copies: Copies | None = None
        self._copying: threading.Thread | None = None
        self._is_closed = threading.Event()

    def read(self, number: int) -> UInt8:
        """A frame, uint8 RGB ``[H, W, 3]``; not to be changed.

        Raises:
            FramesError: the source is gone, is another one now, or cannot be decoded there.
        """
        frame_HW3 = self._frames.get(number)
        return self._model.submit(self._read, "model", number).result() if frame_HW3 is None else frame_HW3

    def jpeg(self, number: int) -> bytes:
        """A frame as a JPEG file.

        Raises:
            FramesError: as `read` does.
            SupersededError: many others were asked for before it was its turn.
        """
        return self._kept_jpeg(number) or self._page.do(lambda: self._jpeg(number))

    def seen(self, number: int) -> UInt8:
        """A frame as the page shows it, which of a video file may be the copy; raises what `read` raises."""
        if number in self._frames or (content := self._kept_jpeg(number)) is None or self._source.files is not None:
            return self.read(number)
        image_HW3 = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        return np.asarray(cv2.cvtColor(image_HW3, cv2.COLOR_BGR2RGB), np.uint8)

    def facts(self) -> VideoFacts:
        """Number, size and times of the frames; raises what `read` raises."""
        return self._model.submit(self._opened, "model").result().facts

    def wait_for_copies(self) -> None:
        """Wait until as many frames are copied as will be; returns at once where none are."""
        if self._copying is not None:
            self._copying.join()

    def close(self) -> None:
        """Close the source."""
        self._is_closed.set()
        self._page.close()
        self._model.shutdown(wait=True, cancel_futures=True)
        self.wait_for_copies()
        if self._copies is not None:
            self._copies.close()
        for reader in self._readers.values():
            reader.close()

    def _read(self, who: str, number: int) -> UInt8:
        frame_HW3 = self._frames.get(number)
        if frame_HW3 is None:
            try:
                frame_HW3 = self._opened(who).read(number, number + 1)[0].numpy()
            except Exception as error:  # a decoder's libraries raise what they like
                raise FramesError(f"frame {number + 1} of {self._source.path} cannot be read: {error}") from error
            self._frames.put(number, frame_HW3, frame_HW3.nbytes)
        return frame_HW3

    def _kept_jpeg(self, number: int) -> bytes | None:
        content = self._jpegs.get(number)
        return self._copies.get(number) if content is None and self._copies is not None else content

    def _jpeg(self, number: int) -> bytes:
        content = self._kept_jpeg(number)
        if content is None:
            content = self._own_jpeg(number)
            if content is None:
                content = _encoded(self._read("page", number))
            self._jpegs.put(number, content, len(content))
        return content

    def _own_jpeg(self, number: int) -> bytes | None:
        """The frame's own file, if a browser shows it as it is read here."""
        self._opened("page")  # what is wrong with the source is told there
        if self._source.files is None or not self._source.files[number].lower().endswith((".jpg", ".jpeg")):
            return None
        content = (Path(self._source.path) / self._source.files[number]).read_bytes()
        with Image.open(BytesIO(content)) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L")
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        return content if plain and upright else None

    def _copy_all(self) -> None:
        """Copy the frames that are not copied yet; what cannot be decoded is told to whoever asks for it."""
        if sys.platform == "linux":  # where a thread has a priority of its own: a person comes first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PRIORITY)
        assert self._copies is not None
        try:
            reader = self._opened("copies")
            for number in range(len(reader)):
                content = _encoded(reader.read(number, number + 1)[0].numpy())
                if self._is_closed.is_set() or not self._copies.put(number, content):
                    return
        except Exception:  # a decoder's libraries raise what they like
            _log.debug("no more copies of %s", self._source.path, exc_info=True)

    def _opened(self, who: str) -> FrameReader:
        """The reader of a thread; the page's first one has the file copied."""
        with self._opening:
            if who not in self._readers:
                self._readers[who] = self._open()
                if who == "page" and self._source.files is None and self._place is not None:
                    self._begin_copying(self._place)
            return self._readers[who]

    def _begin_copying(self, place: Path) -> None:
        try:
            self._copies = Copies(place)
        except OSError:  # without copies frames are shown as well, only later
            _log.debug("no copies of %s", self._source.path, exc_info=True)
            return
        self._copying = threading.Thread(target=self._copy_all, name="copies of frames", daemon=True)
        self._copying.start()

    def _open(self) -> FrameReader:
        source = self._source
        if not source.path:
            raise FramesError("the frames were generated, so there is no file to show them from")
        path = Path(source.path)
        known = next((reader.facts for reader in self._readers.values()), None)
        try:
            if source.files is None:
                self._check_unchanged(path)
            files = path if source.files is None else [path / name for name in source.files]
            reader = open_frames(files, facts=None if source.files else known)
        except (OSError, ValueError) as error:
            raise FramesError(f"{path} cannot be opened ({error}); put the video back that was segmented") from error
        if self._size is not None and reader.size != self._size:
            found, wanted = (f"{width}x{height}" for height, width in (reader.size, self._size))
            raise FramesError(f"{path} is {found}, its masks are {wanted}; put the video back that was segmented")
        return reader

    def _check_unchanged(self, path: Path) -> None:
        """Refuse a video file that has been written anew since another thread opened it."""
        facts = path.stat()
        now = facts.st_mtime_ns, facts.st_size
        self._file = self._file or now
        if self._file != now:
            raise ValueError("it has changed while the studio was open")


def _encoded(frame_HW3: UInt8) -> bytes:
    """A frame as a JPEG file."""
    image_HW3 = cv2.cvtColor(frame_HW3, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return np.asarray(encoded).tobytes()
