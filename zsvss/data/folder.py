"""Your own videos: a video file or a folder of numbered images, with masks if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsvss.data.datamodule import VideoDataModule
from zsvss.data.images import check_images, is_image, list_images, mask_size, read_mask
from zsvss.data.loader import call_with_time_limit
from zsvss.data.own_masks import read_taxonomy
from zsvss.data.reader import Decoder, first_line, open_frames
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import FileVideo, Video

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class VideoFolder(VideoDataModule):
    """One video or a folder of videos; masks turn it into a benchmark.

    Layouts::

        input                                         masks (optional)
        swan.mp4                                      <masks>/00000.png ...  (number of the frame)
        swan/00000.jpg ...                            <masks>/00000.png ...  (name of the frame)
        videos/{swan.mp4, bear/00000.jpg ...}         <masks>/{swan,bear}/00000.png ...

    Masks are single-channel or palette PNGs of the frames' size; their values are class numbers. Masks that hold
    exactly 0 and 255 are background and object. Frames without a mask are not scored.

    Args:
        input: A video file, an image, a folder of numbered images, or a folder of videos.
        masks: Folder of masks.
        class_names: Names of the mask values 0, 1, ...; numbered names up to the largest value if left out.
        ignore_value: Mask value that is not scored; if left out, 255, unless the masks hold exactly 0 and 255.
        name: Name of the data set in results and random seeds; that of the input if left out.
    """

    def __init__(
        self,
        input: str | Path,
        masks: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        ignore_value: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if class_names is not None and masks is None:
            raise ValueError("data.class_names names the values of masks, but data.masks is not given")
        self.input = Path(input).expanduser()
        self.masks = None if masks is None else Path(masks).expanduser()
        self.class_names = None if class_names is None else tuple(class_names)
        self.ignore_value = ignore_value
        self.name = name or self.input.stem
        self._taxonomy: Taxonomy | None = None

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The mask values and their names; None without masks."""
        if self.masks is not None and self._taxonomy is None:
            self._taxonomy = read_taxonomy(self.masks, self.name, self.class_names, self.ignore_value)
        return self._taxonomy

    def find_videos(self) -> list[Video]:
        """The videos in the numeric order of their names."""
        sources = find_sources(self.input)
        videos: list[Video] = []
        for source in sources:
            folder = self.masks / source.stem if self.masks is not None and len(sources) > 1 else self.masks
            try:
                frames, num_frames, size = self._frames(source)
                numbers = {} if isinstance(frames, Path) else {path.stem: number for number, path in enumerate(frames)}
                labels = None if folder is None else _match_masks(folder, numbers, num_frames, size)
            except ValueError as error:
                if len(sources) == 1:
                    raise
                self.unreadable[source.stem] = str(error)
                continue
            videos.append(FileVideo(source.stem, num_frames, frames, labels, read_mask, self.decoder))
        if not videos:
            raise ValueError(f"{self.input}: no video can be read: {'; '.join(self.unreadable.values())}")
        if self.masks is not None and not any(video.has_ground_truth for video in videos):
            raise ValueError(f"{self.masks}: no mask belongs to a video of {self.input}")
        self._taxonomy = None
        _ = self.taxonomy
        return videos

    def _frames(self, source: Path) -> tuple[Path | tuple[Path, ...], int, tuple[int, int]]:
        """The video file or the images, their number, height and width."""
        if source.is_dir() or is_image(source):
            images = list_images(source) if source.is_dir() else (source,)
            size, _, _ = check_images(images)
            return images, len(images), size
        try:
            num_frames, size = call_with_time_limit(_probe, source, self.decoder, seconds=self.time_limit)
        except TimeoutError as error:
            raise ValueError(
                f"{source} cannot be read as a video (decoding its first and last frame takes more than "
                f"{self.time_limit:g} s): is the file damaged? Copy it again or convert it with ffmpeg"
            ) from error
        return source, num_frames, size


def find_sources(path: Path) -> list[Path]:
    """The videos in a place: itself, or the video files and image folders in it.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If there is no video in it, or two of one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} not found; data.input must be a video file or a folder of numbered images")
    if list_images(path):
        return [path]
    sources = [
        entry
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name)
        if (entry.is_dir() and list_images(entry)) or (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES)
    ]
    if not sources:
        raise ValueError(
            f"{path} holds no frames; expected numbered images (00000.jpg, 00001.jpg ...; PNG or JPEG), "
            f"folders of them, or video files ({' '.join(VIDEO_SUFFIXES)})"
        )
    names = [source.stem for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path} holds two videos named {name!r}; rename one of them")
    return sources


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


def _probe(path: Path, decoder: Decoder) -> tuple[int, tuple[int, int]]:
    """Number of frames and size; reads the last frame too, which a truncated file does not have."""
    reader = open_frames(path, decoder)
    try:
        reader.read(len(reader) - 1, len(reader))
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read to its end ({first_line(error)}): is it complete? Copy it again or "
            "convert it with ffmpeg"
        ) from error
    return len(reader), reader.size
