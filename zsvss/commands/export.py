"""``zsvss export RUN --format FORMAT --output FOLDER``: predictions for annotation tools, evaluators and editors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zsvss.commands.refusals import OneLineParser
from zsvss.results.exports import FORMATS, ExportError
from zsvss.results.exports.base import Options
from zsvss.results.exports.writing import check_format, export, renamed
from zsvss.results.predictions import Predictions, find_predictions


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        check_format(options.format)
        chosen = Options(frames=options.frames, tolerance=options.tolerance, url=options.url)
        videos = read_videos(options.run, options.videos, options.names)
        exporter = export(options.format, videos, options.output, chosen)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for note in exporter.notes:
        print(f"note: {note}")
    num_frames = sum(video.num_frames for video in videos)
    num_segments = sum(len(video.segments) for video in videos)
    print(
        f"{options.format} of {len(videos)} videos, {num_frames} frames and {num_segments} segments in {options.output}"
    )
    return 0


def read_videos(run: Path, wanted: Sequence[str] | None, names: Sequence[str] | None) -> list[Predictions]:
    """The predictions of a run, with the names that were given.

    Args:
        run: run folder, or the folder of a video in it.
        wanted: names of the videos to take; all, if left out.
        names: ``ID=NAME`` of segments of the one video, or a JSON or YAML file.

    Raises:
        PredictionsError: there are none, or they are damaged.
        ExportError: there is no such video or segment, or the names cannot be read.
    """
    videos = [Predictions.read(folder) for folder in find_predictions(run)]
    if wanted is not None:
        known = {video.video: video for video in videos}
        if unknown := [name for name in wanted if name not in known]:
            raise ExportError(f"--videos: {run} has no video {', '.join(unknown)}; it has {', '.join(known)}")
        videos = [known[name] for name in wanted]
    if not names:
        return videos
    given = _names(names, [video.video for video in videos])
    return [renamed(video, given.get(video.video, {})) for video in videos]


def _names(values: Sequence[str], videos: Sequence[str]) -> dict[str, dict[int, str]]:
    """Names by video and segment."""
    if len(values) == 1 and "=" not in values[0]:
        content = _read(Path(values[0]))
    else:
        if unclear := [value for value in values if "=" not in value]:
            raise ExportError(f"--names has {unclear[0]!r}; give ID=NAME, such as 3=road, or one JSON or YAML file")
        content = dict(value.split("=", 1) for value in values)
    nested = {str(key): value for key, value in content.items() if isinstance(value, Mapping)}
    if nested and len(nested) == len(content):
        if unknown := [name for name in nested if name not in videos]:
            raise ExportError(f"--names: there is no video {', '.join(unknown)}; there are {', '.join(videos)}")
        return {name: _numbered(value) for name, value in nested.items()}
    if len(videos) > 1:
        raise ExportError(
            f"--names names segments of one video, and there are {len(videos)}: choose one by --videos, or give a file "
            "that maps each video's name to its ids and names"
        )
    return {videos[0]: _numbered(content)}


def _numbered(content: Mapping[Any, Any]) -> dict[int, str]:
    try:
        return {int(key): str(value) for key, value in content.items()}
    except ValueError as error:
        raise ExportError(f"--names: an id is a whole number from 1 ({error})") from error


def _read(path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExportError(f"--names: {path} cannot be read ({error}); give ID=NAME, or a JSON or YAML file") from error
    if not isinstance(content, dict):
        raise ExportError(f"--names: {path} maps no ids to names; write a line such as 3: road a segment")
    return content


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:20}{says}" for name, (_, _, says) in FORMATS.items())
    parser = OneLineParser(
        prog="zsvss export",
        description="Write the predictions of a run in another format.",
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="run folder of predict, or of test with --predictions.in_test true"
    )
    parser.add_argument("--format", required=True, metavar="FORMAT", help="one of those below")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="a new folder to write")
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="only these videos (default: all)")
    parser.add_argument(
        "--names", nargs="+", metavar="ID=NAME",
        help="names of segments, or a JSON or YAML file of them; segments of one name are one class",
    )  # fmt: skip
    parser.add_argument("--frames", action="store_true", help="write the frames as well, beside the labels")
    parser.add_argument(
        "--tolerance", type=float, default=Options.tolerance, metavar="PIXELS",
        help=f"polygons may leave the borders by so many pixels (default: {Options.tolerance}; 0 keeps every corner)",
    )  # fmt: skip
    parser.add_argument("--url", default="", help="what stands before the paths in Label Studio's tasks")
    return parser
