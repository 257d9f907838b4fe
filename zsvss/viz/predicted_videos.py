"""What a page's video browser shows of predictions, which have no ground truth.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zsvss.data.reader import open_frames
from zsvss.results.id_images import NOTHING, VOID_ID
from zsvss.results.predictions import Predictions, Segment
from zsvss.results.segment_colors import UInt8
from zsvss.viz.label_maps import pack, pack_frames, page_size, scaled
from zsvss.viz.page_parts import PageVideo

_AT_ONCE = 8
_GREY = 128  # in place of frames that are gone


@dataclass(frozen=True)
class PredictedRun:
    """The predictions of a run, of videos with a frame at least."""

    name: str
    videos: Sequence[Predictions]


def predicted_videos(runs: Sequence[PredictedRun], max_side: int, max_frames: int) -> Iterator[PageVideo]:
    """The videos of runs, one after the other.

    Args:
        runs: of the page; each is known by its number.
        max_side: longest side of the images in the page.
        max_frames: of a video at most the first so many.
    """
    for number, run in enumerate(runs):
        for video in run.videos:
            yield _video(video, run.name, number, max_side, max_frames)


def _video(video: Predictions, run: str, number: int, max_side: int, max_frames: int) -> PageVideo:
    num_frames = min(video.num_frames, max_frames)
    # As a player shows it: pixels may be wider than high.
    width = max(1, round(video.width * video.source.sample_aspect_ratio))
    size = page_size(video.height, width, max_side)
    # The largest have colours where there are more than a byte counts.
    largest = sorted(video.segments, key=lambda segment: -int(segment.areas.sum(dtype=np.int64)))[:VOID_ID]
    segments = sorted(largest, key=lambda segment: segment.id)
    pieces: dict[str, Any] = {"areas": [_areas(segment, num_frames) for segment in segments]}
    if video.mask_files is not None:
        table = np.full(max((segment.id for segment in video.segments), default=NOTHING) + 1, VOID_ID, np.uint8)
        table[[segment.id for segment in segments]] = np.arange(len(segments))
        maps = [table[scaled(video.mask(t).astype(np.int64), size)] for t in range(num_frames)]
        pieces[f"{number} final"] = pack(np.stack(maps))
    frames, notes = _frames(video, num_frames)
    if video.mask_files is None:
        notes.append("The run wrote no masks (predictions.masks false), so segments have no pictures.")
    if len(segments) < len(video.segments):
        notes.append(f"Of {len(video.segments)} segments the {len(segments)} largest are shown.")
    if not video.complete:
        notes.append(f"The run was interrupted after {video.num_frames} of {video.video_length} frames.")
    return {
        "name": video.video,
        "dataset": run,
        "height": size[0],
        "width": size[1],
        "num_pixels": video.height * video.width,
        "frame_names": list(video.frame_names[:num_frames]),
        "frame_times": None if video.frame_times is None else list(video.frame_times[:num_frames]),
        "num_frames_of_video": video.video_length,
        "runs": [number],
        "labels": [_row(segment, number) for segment in segments],
        "notes": notes,
        "pieces": {**pieces, **pack_frames(frames, size)},
    }


def _row(segment: Segment, run: int) -> dict[str, Any]:
    return {
        "name": segment.name,
        "color": list(segment.color),
        "is_class": segment.class_id is not None,
        "run": run,
        "id": segment.id,
        "num_frames": len(segment.frames),
        "first": segment.first_frame,
        "last": segment.last_frame,
        "mean_area": float(segment.areas.mean()),
        "largest_area": int(segment.areas.max()),
        "num_parts": segment.num_parts,
    }


def _areas(segment: Segment, num_frames: int) -> list[int]:
    """Pixels of a segment in each of the first frames."""
    areas_T = np.zeros(num_frames, dtype=np.int64)
    shown = segment.frames < num_frames
    areas_T[segment.frames[shown]] = segment.areas[shown]
    listed: list[int] = areas_T.tolist()
    return listed


def _frames(video: Predictions, num_frames: int) -> tuple[Iterator[UInt8], list[str]]:
    """The frames where they are still there, and otherwise one grey frame and why."""
    reason = _why_gone(video, num_frames)
    if reason is None:
        return _decoded(video, num_frames), []
    grey_HW3 = np.full((video.height, video.width, 3), _GREY, dtype=np.uint8)
    return iter([grey_HW3]), [f"{reason}; segments are shown without them."]


def _why_gone(video: Predictions, num_frames: int) -> str | None:
    source = video.source
    if not source.path:
        return "The frames were generated and not kept"
    try:
        reader = open_frames(_source(video, num_frames))
    except (ValueError, OSError) as error:
        return f"The frames cannot be read ({error})"
    try:
        if len(reader) < num_frames:
            return f"{source.path} has {len(reader)} frames now, fewer than were segmented"
        height, width = reader.size
    except (ValueError, OSError) as error:
        return f"The frames cannot be read ({error})"
    finally:
        reader.close()
    if (height, width) != (video.height, video.width):
        return f"{source.path} is {width}x{height} now and was {video.width}x{video.height}"
    return None


def _decoded(video: Predictions, num_frames: int) -> Iterator[UInt8]:
    reader = open_frames(_source(video, num_frames))
    try:
        for start in range(0, num_frames, _AT_ONCE):
            yield from reader.read(start, min(start + _AT_ONCE, num_frames)).numpy()
    finally:
        reader.close()


def _source(video: Predictions, num_frames: int) -> Path | list[Path]:
    path = Path(video.source.path)
    if video.source.files is None:
        return path
    return [path / name for name in video.source.files[:num_frames]]
