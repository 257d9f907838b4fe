"""The predictions of a run, read back: ``segments.json`` and the masks beside it.

::

    <run folder>/predictions/<video>/segments.json
                                     masks/00000.png     ids as pixel values, see `Predictions.mask`
                                     overlay.mp4

Segments are counted from 1, and 0 means that a pixel is of no segment, as annotation tools have it. The id is the
method's own label (a cluster, or a class id) plus 1; the shift is made when files are written and nowhere else. Reading
needs no PyTorch.

Shapes: H W pixels, n frames.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zsvss.results.id_images import NOTHING, read_ids

Ids = npt.NDArray[np.int32]
Color = tuple[int, int, int]

FILE = "segments.json"
LINES = "segments.jsonl"
"""What ``segments.json`` will be made of, one line a frame, while a video is not finished."""
FORMAT = "zsvss-predictions"
ANNOTATION = "studio"
"""Folder, in that of a video, of what a person has made of its predictions in the studio."""
_DEPTH = 3  # names of videos may hold slashes
_MASK_FILE = re.compile(r"masks/[^/\\]+\.png")
VERSION = 2
"""Version of ``segments.json``. Version 1, which had no number, counted segments from 0."""


class PredictionsError(ValueError):
    """Predictions that are missing or cannot be used."""


@dataclass(frozen=True)
class Source:
    """Where the frames come from.

    Attributes:
        path: The video file, or the folder of the images; empty where frames are generated.
        files: Names of the image files, in order; None for a video file.
        fps: Frames per second on average; None where there are no times.
        duration: Seconds; None where there are no times.
        time_base: Seconds of one unit in which the file counts time.
        sample_aspect_ratio: Width of a pixel by its height.
    """

    path: str = ""
    files: tuple[str, ...] | None = None
    fps: float | None = None
    duration: float | None = None
    time_base: Fraction | None = None
    sample_aspect_ratio: Fraction = Fraction(1)


@dataclass(frozen=True)
class PredictedClass:
    """A class of the benchmark.

    Attributes:
        id: From 0, as the method counts.
        name: Its name.
        color: RGB.
        raw: Its value in the benchmark's own ground truth.
    """

    id: int
    name: str
    color: Color
    raw: int


@dataclass(frozen=True, eq=False)
class Segment:
    """A segment of a video.

    Attributes:
        id: Value of its pixels in the masks, from 1.
        name: Class name where it has one; otherwise one made of the id.
        class_id: The class that it is, if known.
        color: RGB, the same in the overlay.
        box: x, y, width and height of what holds it in all frames, in pixels.
        num_parts: Largest number of connected parts in a frame.
        frames: Frames that it is in, counted from 0, int ``[n]``; the next three are of these frames.
        areas: Pixels, int ``[n]``.
        boxes: x, y, width, height, int ``[n, 4]``.
        parts: Number of connected parts, int ``[n]``.
    """

    id: int
    name: str
    class_id: int | None
    color: Color
    box: tuple[int, int, int, int]
    num_parts: int
    frames: Ids = field(repr=False)
    areas: Ids = field(repr=False)
    boxes: Ids = field(repr=False)
    parts: Ids = field(repr=False)

    @property
    def first_frame(self) -> int:
        """The first frame that it is in."""
        return int(self.frames[0])

    @property
    def last_frame(self) -> int:
        """The last frame that it is in."""
        return int(self.frames[-1])

    def is_in(self, frame: int) -> bool:
        """Whether it is in a frame."""
        index = int(np.searchsorted(self.frames, frame))
        return index < len(self.frames) and int(self.frames[index]) == frame


@dataclass(frozen=True)
class Shot:
    """A shot of a video: frames without a cut between them.

    Attributes:
        first_frame: Counted from 0.
        num_frames: How many frames it has.
    """

    first_frame: int
    num_frames: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of one video.

    Attributes:
        folder: Where they lie.
        video: The video's name.
        complete: Whether they are of the whole video; a run that was interrupted leaves the first frames.
        video_length: Number of frames of the whole video.
        height: Of the frames and masks, in pixels.
        width: The same.
        source: Where the frames come from.
        frame_names: Name of each frame, without an ending.
        frame_times: Seconds from the first frame to each; None where there are no times.
        mask_files: File of each frame's mask, relative to the folder; None if no masks were written.
        overlay_alpha: Weight of the colours in the overlay; None without an overlay.
        labels_are_classes: Whether ids are class ids plus 1; otherwise they are clusters.
        taxonomy: Name of the benchmark's classes; None without a benchmark.
        classes: The benchmark's classes; empty without one.
        settings: Of the run.
        segments: In the order of their ids.
        shots: In order; None where shots were not looked for.
    """

    folder: Path
    video: str
    complete: bool
    video_length: int
    height: int
    width: int
    source: Source
    frame_names: tuple[str, ...]
    frame_times: tuple[float, ...] | None
    mask_files: tuple[str, ...] | None
    overlay_alpha: float | None
    labels_are_classes: bool
    taxonomy: str | None
    classes: tuple[PredictedClass, ...]
    settings: Mapping[str, Any] = field(repr=False)
    segments: tuple[Segment, ...]
    shots: tuple[Shot, ...] | None = None

    @classmethod
    def read(cls, folder: Path, file: str = FILE) -> Predictions:
        """Read the predictions of a video.

        Args:
            folder: of the video.
            file: name of its list of segments.

        Raises:
            PredictionsError: ``segments.json`` is missing, damaged, or of another version.
        """
        path = folder / file
        content = read_json(path)
        again = _remedy(folder)
        version = content.get("version", 1)
        if version != VERSION:
            raise PredictionsError(f"{path} is of version {version}, this zsvss reads version {VERSION}; {again}")
        try:
            return cls(folder=folder, **_fields(content))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise PredictionsError(f"{path} is damaged ({type(error).__name__}: {error}); {again}") from error

    @property
    def num_frames(self) -> int:
        """Number of frames that there are predictions of."""
        return len(self.frame_names)

    def mask(self, frame: int) -> Ids:
        """Segment of each pixel of a frame, int32 ``[H, W]``; 0 is none.

        Raises:
            PredictionsError: the mask is missing, cannot be read, or is not what ``segments.json`` says.
        """
        if self.mask_files is None:
            raise PredictionsError(
                f"{self.folder} has no masks: the run had predictions.masks false. Start it again with "
                "--predictions.masks true"
            )
        path = self.folder / self.mask_files[frame]
        try:
            ids_HW = read_ids(path)
        except (FileNotFoundError, ValueError) as error:
            why = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
            raise PredictionsError(f"{path} {why}; {_remedy(self.folder)}") from error
        if ids_HW.shape != (self.height, self.width):
            found = f"is {ids_HW.shape[1]}x{ids_HW.shape[0]}, not {self.width}x{self.height} as {FILE} says"
        else:
            there = set(present_ids(ids_HW)) - {NOTHING}
            listed = {segment.id for segment in self.segments if segment.is_in(frame)}
            if there == listed:
                return ids_HW
            found = f"has segments {sorted(there)}, but {FILE} says {sorted(listed)}"
        raise PredictionsError(f"{path} {found}; was it edited by another tool? If so, {_remedy(self.folder)}")


def present_ids(ids_HW: Ids) -> list[int]:
    """Values that are in an image of ids, in order."""
    present: list[int] = np.flatnonzero(np.bincount(ids_HW.ravel())).tolist()
    return present


def read_json(path: Path) -> dict[str, Any]:
    """Content of a ``segments.json`` of any version.

    Raises:
        PredictionsError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if (path.parent / LINES).is_file():
            raise PredictionsError(
                f"{path} is not there yet: the run that writes it goes on, or was killed. Start it again, and it "
                "goes on where it was"
            ) from error
        raise PredictionsError(
            f"{path} cannot be read ({error.strerror or error}); was the run interrupted?"
        ) from error
    except ValueError as error:
        raise PredictionsError(f"{path} is damaged ({error}); {_remedy(path.parent)}") from error
    if not isinstance(content, dict):
        raise PredictionsError(f"{path} is damaged: it is no JSON object; {_remedy(path.parent)}")
    return content


def find_predictions(run: Path) -> list[Path]:
    """Folders of the videos with predictions in a run folder, in order of their names.

    Args:
        run: a run folder, its ``predictions``, or the folder of one video in it.

    Raises:
        PredictionsError: there are none; says what is there and how to get predictions.
    """
    if not run.is_dir():
        raise PredictionsError(f"{run} is not a folder; give a run folder, such as runs/predict-1234abcd")
    for place in (run / "predictions", run):
        found = {path.parent for depth in range(_DEPTH + 1) for path in place.glob("*/" * depth + FILE)}
        annotations = {folder / ANNOTATION for folder in found}
        # What the studio is writing there is no video.
        if folders := sorted(folder for folder in found if annotations.isdisjoint(folder.parents)):
            return folders
    if (run / "records" / "test").is_dir() or (run / "media" / "test").is_dir():
        raise PredictionsError(
            f"{run} is a test run that kept no predictions; start it again with --predictions.in_test true"
        )
    raise PredictionsError(f"{run} holds no predictions (no predictions/<video>/{FILE}); give the folder of a run")


def _remedy(folder: Path) -> str:
    """What to do about damaged predictions of a video."""
    if not (folder / ANNOTATION).is_dir():
        return f"delete {folder} and start the run again"
    return f"open it with zsvss studio, which finishes the save; {folder / ANNOTATION} holds your annotation"


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Predictions` from the content of ``segments.json``; files that lie elsewhere are refused."""
    for name in content["mask_files"] or ():
        if not _MASK_FILE.fullmatch(name):
            raise ValueError(f"the mask file {name!r} is not masks/<name>.png")
    for name in content["source"]["files"] or ():
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ValueError(f"the image file {name!r} is no name of a file")
    same = ("video", "complete", "video_length", "height", "width", "overlay_alpha", "taxonomy", "settings")
    source = dict(content["source"])
    for key in ("time_base", "sample_aspect_ratio"):
        source[key] = None if source[key] is None else Fraction(source[key])
    source["files"] = _tuple(source["files"])
    return {
        **{key: content[key] for key in same},
        "labels_are_classes": {"classes": True, "clusters": False}[content["labels"]],
        "source": Source(**source),
        **{key: _tuple(content[key]) for key in ("frame_names", "frame_times", "mask_files")},
        "classes": tuple(PredictedClass(**{**entry, "color": _color(entry["color"])}) for entry in content["classes"]),
        "segments": tuple(map(_segment, content["segments"])),
        "shots": None if content.get("shots") is None else tuple(Shot(**entry) for entry in content["shots"]),
    }


def _segment(entry: Mapping[str, Any]) -> Segment:
    x, y, width, height = entry["box"]
    arrays = {key: np.array(entry[key], dtype=np.int32) for key in ("frames", "areas", "boxes", "parts")}
    if not len(entry["frames"]) or len({len(array) for array in arrays.values()}) != 1:
        raise ValueError(f"segment {entry['id']} has frames, areas, boxes and parts of different lengths")
    return Segment(
        id=entry["id"],
        name=entry["name"],
        class_id=entry["class_id"],
        color=_color(entry["color"]),
        box=(x, y, width, height),
        num_parts=entry["num_parts"],
        **arrays,
    )


def _tuple(values: Any) -> Any:
    return None if values is None else tuple(values)


def _color(values: Any) -> Color:
    red, green, blue = values
    return int(red), int(green), int(blue)
