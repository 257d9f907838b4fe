"""Exports: all of a format's files or none, and no segment lost without a word."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from zsvss.results.exports import FORMATS, ExportError
from zsvss.results.exports.base import Exporter, Options
from zsvss.results.predictions import Color, Predictions, PredictionsError

_PARTIAL = "%partial"


def export(name: str, videos: Sequence[Predictions], output: Path, options: Options | None = None) -> Exporter:
    """Export predictions; the folder is there whole or not at all.

    Args:
        name: one of `FORMATS`.
        videos: what to export.
        output: folder to write; it must not be there, or be empty.
        options: what was chosen.

    Returns:
        What wrote the export: its ``written`` and ``notes``.

    Raises:
        ExportError: there is nothing to export, the format cannot hold it, or the folder is not free.
        PredictionsError: masks are missing or damaged.
    """
    check_format(name)
    _check(videos, output)
    partial = output.with_name(output.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(parents=True)
    try:
        exporter = _exporter(name)(partial, videos, options or Options())
        exporter.notes += _incomplete(videos)
        exporter.write()
        if lost := _lost(exporter, videos):
            raise ExportError(f"{name} would lose {lost}; nothing was written")
        if output.is_dir():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    exporter.output = output
    return exporter


def renamed(video: Predictions, names: Mapping[int, str]) -> Predictions:
    """Predictions with other names for some segments; segments of one name get one colour, and one class.

    Args:
        video: the predictions.
        names: new name by id.

    Raises:
        ExportError: there is no such segment, or a name is empty.
    """
    known = {segment.id for segment in video.segments}
    if unknown := sorted(set(names) - known):
        raise ExportError(
            f"--names: {video.video} has no segment {', '.join(map(str, unknown))}; it has "
            f"{', '.join(map(str, sorted(known)))}"
        )
    if empty := [number for number, name in names.items() if not name.strip()]:
        raise ExportError(f"--names: segment {empty[0]} of {video.video} is given an empty name")
    classes = {entry.name: entry for entry in video.classes}
    colors: dict[str, Color] = {name: entry.color for name, entry in classes.items()}
    segments = []
    for segment in video.segments:
        name = names.get(segment.id, segment.name)
        class_id = classes[name].id if name in classes else None
        color = colors.setdefault(name, segment.color)
        segments.append(replace(segment, name=name, class_id=class_id, color=color))
    return replace(video, segments=tuple(segments))


def check_format(name: str) -> None:
    """Refuse what is no format.

    Raises:
        ExportError: it is unknown; says which are near.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ExportError(f"there is no format {name!r}.{hint} Known: {', '.join(FORMATS)}")


def _exporter(name: str) -> type[Exporter]:
    module, class_name, _ = FORMATS[name]
    exporter: type[Exporter] = getattr(import_module(f"{__package__}.{module}"), class_name)
    return exporter


def _check(videos: Sequence[Predictions], output: Path) -> None:
    if not videos:
        raise ExportError("there is no video to export")
    for video in videos:
        if not video.segments or not video.num_frames:
            raise PredictionsError(
                f"{video.folder} has no segments in {video.num_frames} frames; there is nothing to export"
            )
    if output.exists() and not output.is_dir():
        raise ExportError(f"--output is {output}, which is a file; give a new folder")
    if output.is_dir() and any(output.iterdir()):
        raise ExportError(f"--output is {output}, which is not empty; give a new folder, or delete it")


def _lost(exporter: Exporter, videos: Sequence[Predictions]) -> str:
    """Segments that were not written, for people; empty if there are none."""
    lost = [
        f"segment {segment.id} ({segment.name}) of {video.video}"
        for video in videos
        for segment in video.segments
        if not exporter.written[video.video, segment.id]
    ]
    return ", ".join(lost)


def _incomplete(videos: Sequence[Predictions]) -> list[str]:
    return [
        f"{video.video}: {video.num_frames} of {video.video_length} frames, since the run was interrupted; start it "
        "again for the others"
        for video in videos
        if not video.complete
    ]
