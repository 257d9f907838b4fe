"""Reading the frames of one video: Decord for video files and numbered images, Pillow and PyAV behind one contract.

T frames, H W pixels; 3 is RGB.

Measured on what each decoder returns: Decord's frames of 8-bit PNGs (RGB, RGBA, palette, grey) equal Pillow's to the
bit, 16-bit PNGs and grey JPEGs to one level, JPEGs with full chroma to three. JPEGs with subsampled chroma differ (one
level in the mean, about 40 at sharp colour edges), because the two upsample chroma differently: use PNG frames or
``decoder: pillow`` where numbers must be compared with code that reads JPEGs by Pillow. PyAV's frames of video files
equal Decord's to the bit, and come about four times as fast from files with rare key frames (every 250 frames), because
Decord has to start again from a key frame for every clip if its memory is to stay bounded.
"""

from __future__ import annotations

import gc
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from torch import Tensor

from zsvss.data.images import check_images, is_image, list_images, read_rgb

try:
    import decord
except ImportError:  # it has no wheel for Apple silicon
    decord = None
else:
    # A forked process that collects a reader inherited as garbage would wait for ever for threads it does not have;
    # what is frozen before the fork is never collected in it.
    os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

Decoder = Literal["auto", "decord", "pillow", "pyav"]

# Decord cannot copy narrow frames whose rows are padded ("from_size == to_size"); all widths from here on work.
_DECORD_MIN_WIDTH = 128
# Of one or two images it finds no duration ("broken metadata").
_DECORD_MIN_IMAGES = 3
_DECORD_MODES = {"RGB", "RGBA", "P", "L", "I;16"}
_DECORD_SUFFIXES = {"PNG": "png", "JPEG": "jpg"}
# Editing programs leave a few frames in the header's count that are not to be shown.
_MIN_COMPLETE = 0.9
_DECORD_PREFIX = re.compile(r"\[[0-9:]+\] \S+:[0-9]+: ")
_DECORD_UNKNOWN_CODECS = {"av1", "libdav1d"}


class FrameReader(ABC):
    """The frames of one video, decoded on demand."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every frame: its number, zero-padded, unless the reader knows a better one."""
        return tuple(f"{number:05d}" for number in range(len(self)))

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1.

        Returns:
            uint8 RGB of shape (stop - start, H, W, 3).

        Raises:
            IndexError: If the range is empty or leaves the video.
        """

    def close(self) -> None:  # noqa: B027
        """Free what the reader holds; it cannot be used afterwards."""

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"frames {start}..{stop} of a video of {len(self)} frames")


class DecordReader(FrameReader):
    """A video file, or PNG/JPEG frames as an image sequence, decoded by Decord.

    Image sequences must be numbered without gaps, so the images are linked under new numbers in a temporary folder
    first. Videos are turned upright as their rotation metadata says.

    Args:
        source: A video file, or the images in order; all PNG or all JPEG, of one size.
    """

    def __init__(self, source: Path | Sequence[Path]) -> None:
        check_decoder("decord")
        decord.logging.set_level(decord.logging.FATAL)
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._names: tuple[str, ...] | None = None
        location = str(source)
        if not isinstance(source, Path):
            _, formats, _ = check_images(source)
            self._links = tempfile.TemporaryDirectory(prefix="zsvss-frames-")
            self._names = tuple(path.stem for path in source)
            location = _link_frames(source, Path(self._links.name), _DECORD_SUFFIXES[formats.pop()])
        self._reader: Any = decord.VideoReader(location, num_threads=1)
        self._size: tuple[int, int] = tuple(self._get([0]).shape[1:3])

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self._size

    @property
    def names(self) -> tuple[str, ...]:
        """File stems of images, zero-padded numbers for a video file."""
        return self._names or super().names

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(self._get(list(range(start, stop))))

    def close(self) -> None:
        """Free the decoder and remove the links."""
        self._reader = None
        if self._links is not None:
            self._links.cleanup()

    def _get(self, indices: list[int]) -> Any:
        frames_THW3 = self._reader.get_batch(indices).asnumpy()
        # Otherwise Decord goes on decoding in the background and keeps every frame.
        self._reader.seek(0)
        return frames_THW3


class PillowReader(FrameReader):
    """Image files decoded one by one by Pillow: any mode and format, a single image, mixed formats.

    Args:
        images: The images in order, of one size.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._images = tuple(images)
        self._size, _, _ = check_images(images)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self._size

    @property
    def names(self) -> tuple[str, ...]:
        """File stems."""
        return tuple(path.stem for path in self._images)

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(np.stack([read_rgb(path) for path in self._images[start:stop]]))


class PyAVReader(FrameReader):
    """A video file decoded by PyAV: where Decord has no wheel, and for what it cannot read (AV1, narrow videos).

    Raises:
        ValueError: If the file holds no frames.
    """

    def __init__(self, path: Path) -> None:
        self._container: Any = av.open(str(path))
        self._stream: Any = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        packets = self._container.demux(self._stream)
        self._times = sorted(packet.pts for packet in packets if packet.pts is not None and not packet.is_discard)
        if not self._times:
            raise ValueError("no frames")
        self._next = -1
        self._frames: Any = iter(())
        self._size: tuple[int, int] = self._decode(0).shape[:2]

    def __len__(self) -> int:
        return len(self._times)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""
        return self._size

    def read(self, start: int, stop: int) -> Tensor:
        """Decode the frames start..stop-1."""
        self._check_range(start, stop)
        return torch.from_numpy(np.stack([self._decode(index) for index in range(start, stop)]))

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _decode(self, index: int) -> Any:
        if index != self._next:
            self._container.seek(self._times[index], stream=self._stream)
            self._frames = self._container.decode(self._stream)
        frame = next((frame for frame in self._frames if frame.pts >= self._times[index]), None)
        if frame is None:
            raise ValueError(f"frame {index} of {len(self)} cannot be decoded")
        self._next = index + 1
        return np.rot90(frame.to_ndarray(format="rgb24"), round(getattr(frame, "rotation", 0) / 90)).copy()


def has_decord() -> bool:
    """Whether Decord is installed."""
    return decord is not None


def check_decoder(decoder: Decoder) -> None:
    """Refuse a decoder that is not installed.

    Raises:
        ValueError: If it is Decord and that is missing.
    """
    if decoder == "decord" and not has_decord():
        raise ValueError(
            "data.decoder is 'decord', which is not installed (it has no wheel for every platform); take auto, which "
            "finds another, pillow for images or pyav for video files"
        )


def open_frames(source: Path | Sequence[Path], decoder: Decoder = "auto") -> FrameReader:
    """Open a video, whatever it is.

    Args:
        source: A video file, an image file (a video of one frame), a folder of numbered images, or the images
            themselves in order.
        decoder: ``auto`` takes Decord where it can read the source, else Pillow for images and PyAV for video
            files; the other names insist.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it holds no frame or one that cannot be read, frames of different sizes, or the named decoder
            cannot read it.
    """
    check_decoder(decoder)
    if not isinstance(source, Path):
        return _open_images(tuple(source), decoder)
    if source.is_dir():
        images = list_images(source)
        if not images:
            raise ValueError(f"{source} holds no images; put numbered .png or .jpg frames there")
        return _open_images(images, decoder)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such video file or folder of frames")
    return _open_images((source,), decoder) if is_image(source) else _open_video(source, decoder)


def _open_images(images: tuple[Path, ...], decoder: Decoder) -> FrameReader:
    if decoder == "pyav":
        raise ValueError("`decoder: pyav` reads video files only; for images choose auto, decord or pillow")
    (_, width), formats, modes = check_images(images)
    suited = len(images) >= _DECORD_MIN_IMAGES and width >= _DECORD_MIN_WIDTH and modes <= _DECORD_MODES
    suited = suited and len(formats) == 1 and formats <= _DECORD_SUFFIXES.keys()
    if decoder == "decord" and not suited:
        raise ValueError(
            f"{images[0]}: Decord reads {_DECORD_MIN_IMAGES} or more PNG or JPEG frames of one format, "
            f"{_DECORD_MIN_WIDTH} pixels wide or more; found {len(images)} frames, {width} wide, {sorted(formats)} "
            f"{sorted(modes)}: use `decoder: auto`"
        )
    if decoder == "decord" or (decoder == "auto" and suited and decord is not None):
        return DecordReader(images)
    return PillowReader(images)


def _open_video(path: Path, decoder: Decoder) -> FrameReader:
    if decoder == "pillow":
        raise ValueError(f"{path}: `decoder: pillow` reads images only; for video files choose auto, decord or pyav")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it has no video stream")
            stream = container.streams.video[0]
            codec, num_promised = stream.codec_context, stream.frames
        narrow = min(codec.width, codec.height) < _DECORD_MIN_WIDTH
        if decoder == "auto" and (decord is None or narrow or codec.name in _DECORD_UNKNOWN_CODECS):
            decoder = "pyav"
        reader = PyAVReader(path) if decoder == "pyav" else DecordReader(path)
        if len(reader) < _MIN_COMPLETE * num_promised:
            raise ValueError(f"it holds {len(reader)} frames where its header says {num_promised}")
        return reader
    except Exception as error:  # the decoders raise types of their own
        raise ValueError(
            f"{path} cannot be read as a video ({first_line(error)}): is the file complete? "
            "Copy it again, or convert it with `ffmpeg -i FILE frames/%05d.png` and give the folder"
        ) from error


def _link_frames(images: Sequence[Path], folder: Path, suffix: str) -> str:
    """Link the images as 00000000.suffix, 00000001.suffix ... and return the pattern."""
    for number, path in enumerate(images):
        (folder / f"{number:08d}.{suffix}").symlink_to(path.resolve())
    return f"{folder}/%08d.{suffix}"


def first_line(error: BaseException) -> str:
    """What an exception says, without Decord's time stamps and source lines."""
    lines = _DECORD_PREFIX.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
