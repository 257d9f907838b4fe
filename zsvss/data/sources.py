"""Which videos lie in a place: a video file, a folder of numbered images, or a folder of these."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zsvss.data.images import is_image

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv", ".ogv", ".ogg", ".rm", ".rmvb"),
    *(".gif", ".apng", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".obu", ".ivf", ".mjpg", ".mjpeg", ".y4m"),
)
_NAMED = 5
_RUNS = Path("runs")  # where runs are written, unless `output` says otherwise


def video_name(source: Path) -> str:
    """Name of a video or a data set by its place: a folder's own name, a file's without its ending.

    >>> video_name(Path("nowhere/clip.mp4"))
    'clip'
    """
    path = Path(os.path.abspath(source))  # "." and ".." have a name too; links keep theirs
    return (path.name if path.is_dir() else path.stem) or "videos"


def find_sources(path: Path, masks: Path | None = None) -> list[Path]:
    """The videos in a place: itself, or the video files and image folders in it.

    Hidden entries are left out. What is no video is left out too and named in the log, such as a cover picture beside
    a video.

    Args:
        path: The place.
        masks: Folder of masks, which may lie in it and is no video.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If there is no video in it, two of one name, or both video files and numbered images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} not found; data.input must be a video file or a folder of numbered images")
    entries = _visible(path)
    files = [entry for entry in entries if entry.is_file()]
    images = [entry for entry in files if is_image(entry)]
    videos = [entry for entry in files if entry.suffix.lower() in VIDEO_SUFFIXES]
    folders = [entry for entry in entries if entry.is_dir() and any(is_image(inner) for inner in entry.iterdir())]
    folders = [folder for folder in folders if masks is None or folder.resolve() != masks.resolve()]
    numbered = [image for image in images if any(character.isdigit() for character in image.stem)]
    if videos and len(numbered) > 1:
        raise ValueError(
            f"{path} holds both video files ({videos[0].name} ...) and {len(numbered)} numbered images "
            f"({numbered[0].name} ...); give the video file itself, or put the images into a folder of their own"
        )
    if images and (len(numbered) > 1 or not videos + folders):
        return [path]
    sources = sorted(videos + folders, key=lambda entry: entry.name)
    if not sources:
        raise ValueError(
            f"{path} holds no frames; expected numbered images (00000.jpg, 00001.jpg ...; PNG or JPEG), "
            f"folders of them, or video files ({' '.join(VIDEO_SUFFIXES)}); found {_endings(entries) or 'nothing'}"
        )
    tell_left_out(path, sources, masks, "neither videos nor folders of images")
    names = [video_name(source) for source in sources]
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise ValueError(f"{path} holds two videos named {twice[0]!r}; rename one of them")
    return sources


def _visible(folder: Path) -> list[Path]:
    """What is in a folder and not hidden, in order."""
    return [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]


def tell_left_out(folder: Path, taken: Sequence[Path], masks: Path | None, what: str) -> None:
    """Name in the log what lies in a folder beside what is taken, the masks and the run folders, and what it is not."""
    known = set(taken)
    own = [path.resolve() for path in (masks, _RUNS) if path is not None]
    skipped = [entry for entry in _visible(folder) if entry not in known]
    skipped = [entry for entry in skipped if not any(path.is_relative_to(entry.resolve()) for path in own)]
    if skipped:
        _log.warning("%s: left out, since they are %s: %s", folder, what, _endings(skipped))


def _endings(entries: Sequence[Path]) -> str:
    """Names of some entries, sorted by their endings, and how many there are of each ending."""
    kinds = Counter("folders" if entry.is_dir() else entry.suffix.lower() or "no ending" for entry in entries)
    parts = []
    for kind, number in sorted(kinds.items()):
        names = [
            entry.name
            for entry in entries
            if ("folders" if entry.is_dir() else entry.suffix.lower() or "no ending") == kind
        ]
        parts.append(f"{number} x {kind} ({', '.join(names[:_NAMED])}{' ...' if number > _NAMED else ''})")
    return "; ".join(parts)
