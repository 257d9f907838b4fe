"""The predictions of one video, written frame by frame; `zsvss.results.predictions` reads them back.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from zsvss.data.video_facts import VideoFacts
from zsvss.results.atomic_files import write_atomically
from zsvss.results.id_images import write_segment_png
from zsvss.results.predictions import FILE, FORMAT, LINES, VERSION, PredictedClass
from zsvss.results.segment_colors import UInt8, palette
from zsvss.results.segment_table import FrameLine, SegmentTable, json_pieces, measure
from zsvss.viz.browser_video import BrowserVideo
from zsvss.viz.captions import Captions
from zsvss.viz.overlay import overlay

Labels = npt.NDArray[np.integer[Any]]

_MARKED_FRAMES = 12
"""How many frames of the overlay say that a shot begins."""


@dataclass(frozen=True)
class Origin:
    """Where a video's frames come from.

    Attributes:
        video_length: Number of frames of the whole video; None if as many as are written.
        path: The video file or the folder of its images.
        files: Names of the images.
        facts: What is known of a video file.
    """

    video_length: int | None = None
    path: str = ""
    files: tuple[str, ...] | None = None
    facts: VideoFacts | None = None


@dataclass(frozen=True)
class Meaning:
    """What labels stand for.

    Attributes:
        taxonomy: Name of the benchmark's classes.
        classes: The benchmark's classes.
        are_classes: Whether labels are class ids; otherwise they are clusters.
        colors: uint8 RGB of the labels 0, 1, ..., ``[any, 3]``; `palette` if left out.
    """

    taxonomy: str | None = None
    classes: tuple[PredictedClass, ...] = ()
    are_classes: bool = False
    colors: UInt8 | None = None

    def name(self, label: int, class_id: int | None) -> str:
        """What to call a label that is of a class, or of none."""
        if class_id is not None:
            return self.classes[class_id].name
        if not self.are_classes:
            return f"segment {label + 1}"
        return "void" if label == len(self.classes) else f"new {label + 1}"


class VideoPredictions:
    """The predictions of one video, written frame by frame.

    Args:
        folder: where to write.
        name: the video's name.
        origin: where its frames come from.
        meaning: what its labels stand for.
        settings: of the run.
        masks: write the index PNGs.
        video: write the overlay video.
        captions: write ids and a legend into the overlay.
        fps: frames per second of the overlay; ``None`` takes the times of the source, or 15 where it has none.
        alpha: weight of the segments' colours in the overlay.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        origin: Origin | None = None,
        meaning: Meaning | None = None,
        settings: Mapping[str, Any] | None = None,
        masks: bool = True,
        video: bool = True,
        captions: bool = True,
        fps: float | None = None,
        alpha: float = 0.5,
    ) -> None:
        self.folder, self.name, self.alpha = folder, name, alpha
        self.origin, self.meaning = origin or Origin(), meaning or Meaning()
        self.settings = dict(settings or {})
        self.colors: UInt8 = palette(256) if self.meaning.colors is None else self.meaning.colors
        self.masks = masks
        (folder / "masks" if masks else folder).mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)  # written last, it says that the others are whole
        self._movie = BrowserVideo(folder / "overlay.mp4", fps, self.origin.facts) if video else None
        self._with_captions, self._fps = captions, fps
        self._captions: Captions | None = None
        self._frame_names: list[str] = []
        self._times: list[float] = []
        self._shot_starts: list[int] = []
        self._shot: int | None = None
        self._table = SegmentTable()
        self._lines: IO[str] | None = None
        self._last_image: UInt8 | None = None
        self._size: tuple[int, int] | None = None

    def write(
        self,
        frames_THW3: UInt8,
        labels_THW: Labels,
        names: Sequence[str],
        shot: int | None = None,
        times: Sequence[float] | None = None,
    ) -> None:
        """Write the video's next frames.

        Args:
            frames_THW3: uint8 RGB.
            labels_THW: labels, negative where there is none, at the frames' size.
            names: the frames' names.
            shot: number of the shot that they are of; ``None`` where shots are not followed.
            times: of a stream's frames, seconds from the first one.
        """
        if self._lines is None:
            self._lines = (self.folder / LINES).open("w", encoding="utf-8")
        for t, (frame_HW3, labels_HW, name) in enumerate(zip(frames_THW3, labels_THW, names, strict=True)):
            self._size = (labels_HW.shape[0], labels_HW.shape[1])
            if self.masks:
                write_segment_png(self.folder / "masks" / f"{name}.png", labels_HW, self.colors)
            ids_HW = np.where(labels_HW < 0, 0, labels_HW + 1).astype(np.int32)
            line = FrameLine(name, times[t] if times else None, shot, measure(ids_HW))
            self._take(line)
            if self._movie is not None:
                image_HW3 = overlay(frame_HW3, labels_HW, self.colors, self.alpha)
                if self._with_captions:
                    image_HW3 = self._own_captions().draw(image_HW3, ids_HW, line.segments, self._new_shot())
                self._movie.write(image_HW3, line.time if self._fps is None else None)
                self._last_image = image_HW3
            self._lines.write(line.to_json())
        self._lines.flush()

    def state(self) -> dict[str, Any]:
        """What `resume` needs to go on after the frames that are written by now."""
        return {
            "num_frames": len(self._frame_names),
            "size": self._size,
            "captions": self._captions and self._captions.state,
            "last_image": self._last_image,
            "settings": self._kind(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on after the frames that another process has written, before anything else is written.

        Args:
            state: of that process, by `state`.

        Raises:
            ValueError: what it has written is not there any more, or was written with other settings.
        """
        if state["settings"] != self._kind():
            raise ValueError(f"{self.folder} was written with other settings: {state['settings']}")
        path, num_frames = self.folder / LINES, state["num_frames"]
        try:
            with path.open(encoding="utf-8") as file:
                lines = list(islice(file, num_frames))
            for line in lines:
                self._take(FrameLine.of_json(line))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read ({error})") from error
        if len(self._frame_names) < num_frames:
            raise ValueError(f"{path} has {len(self._frame_names)} lines where {num_frames} are expected")
        write_atomically(path, lines)  # without those after
        self._lines = path.open("a", encoding="utf-8")
        self._size = state["size"]
        if state["captions"] is not None:
            self._own_captions().state = state["captions"]
        if self._movie is not None:
            self._movie.resume(num_frames, state["last_image"])

    def _take(self, line: FrameLine) -> None:
        """Count a frame in."""
        if not self._frame_names or line.shot != self._shot:
            self._shot_starts.append(len(self._frame_names))
            self._shot = line.shot
        self._table.add(len(self._frame_names), line.segments)
        self._frame_names.append(line.name)
        if line.time is not None:
            self._times.append(line.time)

    def _kind(self) -> dict[str, Any]:
        return kind_of(self.masks, self._movie is not None, self._with_captions, self.alpha)

    def close(self, names: Mapping[int, int] | None = None, *, keep_lines: bool = False) -> None:
        """Finish the overlay and write the list of segments.

        Args:
            names: class id of each cluster that was named after the run.
            keep_lines: leave the lines of a finished video too, so that it can be gone on with in its midst.
        """
        if self._movie is not None:
            self._movie.close()
        segments = [self._segment(segment, names or {}) for segment in self._table.ids]
        write_atomically(self.folder / FILE, json_pieces(self._header(), segments, self._table))
        self._table.close()
        if self._lines is not None:
            self._lines.close()
            if self._is_complete and not keep_lines:
                (self.folder / LINES).unlink(missing_ok=True)

    def _new_shot(self) -> int | None:
        """Number, from 1, of the shot whose first frames these are; ``None`` within a shot and in the first one."""
        is_begin = len(self._frame_names) - self._shot_starts[-1] <= _MARKED_FRAMES
        return len(self._shot_starts) if is_begin and len(self._shot_starts) > 1 else None

    def _own_captions(self) -> Captions:
        if self._captions is None:
            assert self._size is not None
            numbered = enumerate(self.meaning.classes if self.meaning.are_classes else (), start=1)
            names = {number: entry.name for number, entry in numbered}
            if self.meaning.are_classes:
                names[len(names) + 1] = "void"
            self._captions = Captions(self._size, self.colors, names)
        return self._captions

    @property
    def _is_complete(self) -> bool:
        return self.origin.video_length in (None, len(self._frame_names))

    def _header(self) -> dict[str, Any]:
        """All of ``segments.json`` but the segments; frames are counted from 0, times are seconds."""
        num_frames, origin, facts = len(self._frame_names), self.origin, self.origin.facts
        height, width = self._size or (0, 0)
        times = self._times or (facts.times[:num_frames] if facts is not None else ())
        ends = [*self._shot_starts[1:], num_frames]
        return {
            "format": FORMAT,
            "version": VERSION,
            "video": self.name,
            "complete": self._is_complete,
            "video_length": origin.video_length or num_frames,
            "num_frames": num_frames,
            "height": height,
            "width": width,
            "source": {
                "path": origin.path,
                "files": origin.files and origin.files[:num_frames],
                "fps": facts and facts.fps,
                "duration": facts and facts.duration,
                "time_base": str(facts.time_base) if facts and facts.stamps else None,
                "sample_aspect_ratio": str(facts.sample_aspect_ratio if facts else 1),
            },
            "shots": [
                {"first_frame": start, "num_frames": end - start}
                for start, end in zip(self._shot_starts, ends, strict=True)
            ]
            if self._shot is not None
            else None,
            "labels": "classes" if self.meaning.are_classes else "clusters",
            "taxonomy": self.meaning.taxonomy,
            "classes": [asdict(entry) for entry in self.meaning.classes],
            "overlay_alpha": None if self._movie is None else self.alpha,
            "settings": self.settings,
            "frame_names": self._frame_names,
            "frame_times": times or None,
            "mask_files": [f"masks/{name}.png" for name in self._frame_names] if self.masks else None,
        }

    def _segment(self, segment: int, names: Mapping[int, int]) -> dict[str, Any]:
        """What is known of a segment besides what was measured."""
        label = segment - 1
        class_id = names.get(label)
        if self.meaning.are_classes and label < len(self.meaning.classes):
            class_id = label
        return {
            "id": segment,
            "name": self.meaning.name(label, class_id),
            "class_id": class_id,
            "color": self.colors[label % len(self.colors)].tolist(),
        }


def kind_of(masks: bool, video: bool, captions: bool, alpha: float) -> dict[str, Any]:
    """What decides how files are written; files of another kind are not gone on with."""
    return {"masks": masks, "video": video, "captions": captions, "alpha": alpha if video else None}
