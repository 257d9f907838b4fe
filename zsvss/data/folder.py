"""Your own videos: a video file or a folder of numbered images, with masks if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import check_images, list_images, mask_size, read_mask
from zsvss.data.input_kinds import is_stream, without_userinfo
from zsvss.data.loader import call_with_time_limit
from zsvss.data.own_masks import read_own_masks
from zsvss.data.reader import Decoder, first_line, is_video_file, open_frames
from zsvss.data.sources import find_sources, tell_left_out, video_name
from zsvss.data.stream import StreamVideo, WhenLate, stream_name
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import UNKNOWN_LENGTH, UNLABELLED, FileVideo, Video
from zsvss.data.video_facts import VideoFacts

# Of so many videos all are looked into before the run; of more each one when its turn comes.
_LOOKED_INTO = 32


class VideoFolder(VideoDataModule):
    """One video or a folder of videos; masks turn it into a benchmark, or are propagated in ``predict``.

    Layouts::

        input                                         masks (optional)
        swan.mp4                                      <masks>/00000.png ...  (number of the frame)
        swan/00000.jpg ...                            <masks>/00000.png ...  (name of the frame)
        videos/{swan.mp4, bear/00000.jpg ...}         <masks>/{swan,bear}/00000.png ...

    Masks are single-channel or palette PNGs of the frames' size; their values are class numbers. Masks that hold
    exactly 0 and 255 are background and object. In ``test``, frames without a mask are not scored. In ``predict``,
    masks are given labels: the truth of their frames, from which the others are labelled.

    Args:
        input: A video file, an image, a folder of numbered images, or a folder of videos; or a stream: a URL (RTSP,
            HTTP, UDP ...), a camera device, or ``-`` for the standard input.
        masks: Folder of masks.
        class_names: Names of the mask values 0, 1, ...; numbered names up to the largest value if left out.
        ignore_value: Mask value that is not scored and leaves pixels open; ``auto``: 255, unless the masks hold exactly
            0 and 255; ``None`` takes every value for a label.
        name: Name of the data set in results and random seeds; that of the input if left out.
        fps: Frames a second to take of a stream; all if left out.
        when_late: What to do with a stream's frames that come too fast: ``drop`` or ``wait``; see `StreamVideo`.
    """

    def __init__(
        self,
        input: str | Path,
        masks: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        ignore_value: int | Literal["auto"] | None = "auto",
        name: str | None = None,
        fps: float | None = None,
        when_late: WhenLate | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if class_names is not None and masks is None:
            raise ValueError("data.class_names names the values of masks, but data.masks is not given")
        if "" in (input, masks):  # as a path, the current folder
            raise ValueError(f"data.{'masks' if input else 'input'} is empty; give a video file or a folder")
        self.stream = str(input) if is_stream(str(input)) else None
        self.input = Path(input).expanduser()
        _check_stream(self.stream, masks=masks, fps=fps, when_late=when_late)
        self.fps, self.when_late = fps, when_late
        self.masks = None if masks is None else Path(masks).expanduser()
        self.class_names = None if class_names is None else tuple(class_names)
        self.ignore_value = ignore_value
        self.name = name or (stream_name(self.stream) if self.stream else video_name(self.input))
        self._taxonomy: Taxonomy | None = None
        self._single_label: int | None = None
        if masks is not None:
            self.given_frames = "all"

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The mask values and their names; None without masks."""
        if self.masks is not None and self._taxonomy is None:
            self._taxonomy, self._single_label = read_own_masks(
                self.masks, self.name, self.class_names, self.ignore_value
            )
        return self._taxonomy

    def find_videos(self) -> list[Video]:
        """The videos in the numeric order of their names."""
        if self.stream is not None:
            held = 2 * self.clip_length
            name = f"{self.name}-{datetime.now():%Y%m%d-%H%M%S}"  # so that no recording replaces another
            return [StreamVideo(name, UNKNOWN_LENGTH, self.stream, self.fps, self.when_late, held, self.time_limit)]
        sources = find_sources(self.input, self.masks)
        if len(sources) > _LOOKED_INTO and self.masks is None and self.decoder != "decord":
            return [self._unread(source) for source in sources]
        videos: list[Video] = []
        for source in sources:
            name = video_name(source)
            folder = self.masks / name if self.masks is not None and len(sources) > 1 else self.masks
            try:
                frames, facts = self._frames(source)
                numbers = {} if isinstance(frames, Path) else {path.stem: number for number, path in enumerate(frames)}
                labels = None if folder is None else _match_masks(folder, numbers, facts.num_frames, facts.size)
            except ValueError as error:
                if len(sources) == 1:
                    raise
                self.unreadable[name] = str(error)
                continue
            kept = facts if isinstance(frames, Path) else None
            videos.append(FileVideo(name, facts.num_frames, frames, labels, read_mask, self.decoder, kept))
        if not videos:
            raise ValueError(f"{self.input}: no video can be read: {'; '.join(self.unreadable.values())}")
        if self.masks is not None and not any(video.has_ground_truth for video in videos):
            raise ValueError(f"{self.masks}: no mask belongs to a video of {self.input}")
        self._taxonomy = None
        _ = self.taxonomy
        return videos

    def _unread(self, source: Path) -> Video:
        """A video of which nothing is known but its place."""
        frames = source if source.is_file() else tuple(list_images(source))
        return FileVideo(video_name(source), UNKNOWN_LENGTH, frames, decoder=self.decoder)

    def _frames(self, source: Path) -> tuple[Path | tuple[Path, ...], VideoFacts]:
        """The video file or the images, and what is known of them."""
        if not is_video_file(source):
            images = list_images(source) if source.is_dir() else (source,)
            if source.is_dir():
                tell_left_out(source, images, self.masks, "no images")
            return images, VideoFacts(len(images), check_images(images).size)
        if self.decoder != "decord":
            return source, _probe(source, self.decoder)
        try:  # of some damaged files Decord never comes back
            return source, call_with_time_limit(_probe, source, self.decoder, seconds=self.time_limit)
        except TimeoutError as error:
            raise ValueError(
                f"{source} cannot be read as a video (decoding its first and last frame takes more than "
                f"{self.time_limit:g} s): is the file damaged? Copy it again or convert it with ffmpeg"
            ) from error

    @override
    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "predict" and self.masks is not None and self._single_label is not None:
            ignored = UNLABELLED if self.ignore_value == "auto" else self.ignore_value
            raise ValueError(
                f"{self.masks}: the masks give no label but {self._single_label} (data.ignore_value, {ignored}, leaves "
                "pixels open), so there is nothing to tell apart; give every object a value of its own, or take every "
                "value for a label by --data.ignore_value null"
            )


def _check_stream(stream: str | None, *, masks: Any, fps: float | None, when_late: WhenLate | None) -> None:
    """Refuse what only streams have, and what they cannot have."""
    if stream is not None and masks is not None:
        raise ValueError(
            f"data.masks cannot be given for the stream {without_userinfo(stream)}: record it first and give the file"
        )
    if fps is not None and fps <= 0:
        raise ValueError(f"data.fps is {fps}; it must be above 0")
    for key, value in {"fps": fps, "when_late": when_late}.items():
        if stream is None and value is not None:
            raise ValueError(
                f"data.{key} is {value}, but data.input is no stream (a URL, a camera device, or - for the standard "
                f"input): leave data.{key} out"
            )


def _match_masks(
    folder: Path, numbers: dict[str, int], num_frames: int, size: tuple[int, int]
) -> tuple[Path | None, ...]:
    """The mask of every frame, by the frame's name or, for a video file, by its number."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} not found; data.masks must be a folder of mask PNGs")
    masks = list_images(folder)
    if not masks:
        raise ValueError(f"{folder} holds no masks; expected one PNG a frame, with the frame's name")
    labels: list[Path | None] = [None] * num_frames
    for path in masks:
        number = numbers.get(path.stem, -1) if numbers else int(path.stem) if path.stem.isdecimal() else -1
        if not 0 <= number < num_frames:
            allowed = (
                f"{next(iter(numbers))} .. {next(reversed(numbers))}" if numbers else f"00000 .. {num_frames - 1:05d}"
            )
            raise ValueError(f"{path} belongs to no frame; name the masks like the frames: {allowed}")
        if labels[number] is not None:
            raise ValueError(f"{path} and {labels[number]} are two masks of one frame; remove one")
        if mask_size(path) != size:
            height, width = mask_size(path)
            raise ValueError(
                f"{path} is {width}x{height} but the frames are {size[1]}x{size[0]}; resize the masks to the frames' "
                "size (nearest neighbour)"
            )
        labels[number] = path
    return tuple(labels)


def _probe(path: Path, decoder: Decoder) -> VideoFacts:
    """What is known of a video file; reads the last frame by Decord, which finds only thus that it is cut short."""
    reader = open_frames(path, decoder)
    try:
        if decoder == "decord":
            reader.read(len(reader) - 1, len(reader))
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read to its end ({first_line(error)}): is it complete? Copy it again or "
            "convert it with ffmpeg"
        ) from error
    finally:
        reader.close()
    return reader.facts
