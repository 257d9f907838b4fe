"""A video while it is being segmented: what is there already, for the page to show.

Shapes: H W pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from zsvss.data.images import list_images
from zsvss.data.reader import is_video_file, open_frames
from zsvss.data.sources import find_sources, video_name
from zsvss.results.atomic_files import safe_folder
from zsvss.results.id_images import read_ids
from zsvss.results.predictions import FILE, PredictionsError, Source, read_json
from zsvss.studio.editing import areas
from zsvss.studio.frames import Frames

_END_OF_PNG = b"IEND\xaeB`\x82"


class Segmenting:
    """``zsvss predict`` in a process of its own.

    Args:
        arguments: after ``predict``.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._screen = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._lock = Lock()
        command = [sys.executable, "-m", "zsvss.run", "predict", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._screen, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def problem(self) -> str | None:
        """What it said last, if it failed."""
        if not self._process.poll():
            return None
        with self._lock:
            self._screen.seek(0)
            content = self._screen.read()
        lines = content.decode(errors="replace").replace("\r", "\n").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")

    def end(self) -> None:
        """Let it end, if it runs, without waiting for that; what it has written stays."""
        self._process.terminate()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self.is_running:
            self.end()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._screen.close()


class Live:
    """A video that is being segmented.

    Args:
        source: the video file or the folder of its images.
        predictions: the folder of the run's predictions.
        segmenting: what segments it.

    Raises:
        ValueError: the video cannot be read.
    """

    def __init__(self, source: Path, predictions: Path, segmenting: Segmenting) -> None:
        self.name = video_name(source)
        self.folder = predictions / str(safe_folder(self.name))
        self.segmenting = segmenting
        reader = open_frames(source)
        self.size, self.frame_names, facts = reader.size, reader.names, reader.facts
        reader.close()
        self.fps = facts.fps
        self.frames = Frames(source_of(source))
        self._known: tuple[int, int] | None = None
        self._is_complete = False
        self._lock = Lock()
        self.areas: list[dict[int, int]] = []
        """Pixels of each segment of the frames that are there, as far as `look` has looked."""

    @property
    def is_done(self) -> bool:
        """Whether all of it is there; a run that is interrupted leaves the first frames."""
        path = self.folder / FILE
        try:
            facts = path.stat()
            if self._known != (known := (facts.st_mtime_ns, facts.st_size)):  # not read again whenever somebody asks
                self._is_complete, self._known = bool(read_json(path)["complete"]), known
        except (OSError, PredictionsError, KeyError):
            return False
        return self._is_complete

    def mask_path(self, number: int) -> Path:
        """File of a frame's mask; it may not be there yet."""
        return self.folder / "masks" / f"{self.frame_names[number]}.png"

    def look(self) -> int:
        """Look for new masks; returns how many frames have one."""
        with self._lock:  # several threads ask
            while len(self.areas) < len(self.frame_names) and _is_whole(path := self.mask_path(len(self.areas))):
                self.areas.append(areas(read_ids(path)))
            return len(self.areas)


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(_END_OF_PNG), 2)
            return file.read() == _END_OF_PNG
    except OSError:
        return False


def source_of(video: Path) -> Source:
    """Where a video's frames come from, as predictions have it.

    Args:
        video: file, image, or folder of images.
    """
    if is_video_file(video):
        return Source(str(video.absolute()))
    images = list_images(video) if video.is_dir() else (video,)
    return Source(str(images[0].parent.absolute()), tuple(image.name for image in images))


def live_videos(source: Path, predictions: Path, segmenting: Segmenting) -> list[Live]:
    """The videos in a place, each as it is being segmented."""
    return [Live(one, predictions, segmenting) for one in find_sources(source)]
