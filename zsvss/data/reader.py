"""Opening the frames of one video: PyAV for video files, Decord and Pillow for images, behind one contract.

Measured on what each decoder returns: Decord's frames of 8-bit PNGs (RGB, RGBA, palette, grey) equal Pillow's to the
bit, 16-bit PNGs and grey JPEGs to one level, JPEGs with full chroma to three. JPEGs with subsampled chroma differ (one
level in the mean, about 40 at sharp colour edges), because the two upsample chroma differently: use PNG frames or
``decoder: pillow`` where numbers must be compared with code that reads JPEGs by Pillow.

Video files are read by PyAV. Decord's seeking gives wrong frames of AVI, MPEG-TS, edit lists, open GOPs and WMV, and
whether a file is free of all that shows only when it has been decoded otherwise; ``decoder: decord`` still insists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zsvss.data.images import check_images, is_image, list_images, num_frames_of
from zsvss.data.readers.base import FrameReader, first_line
from zsvss.data.readers.by_decord import DecordReader, has_decord, why_not
from zsvss.data.readers.by_pillow import AnimationReader, PillowReader
from zsvss.data.readers.by_pyav import PyAVReader
from zsvss.data.video_facts import VideoFacts

__all__ = ["Decoder", "FrameReader", "check_decoder", "first_line", "has_decord", "open_frames"]

Decoder = Literal["auto", "decord", "pillow", "pyav"]


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


def open_frames(
    source: Path | Sequence[Path], decoder: Decoder = "auto", facts: VideoFacts | None = None
) -> FrameReader:
    """Open a video, whatever it is.

    Args:
        source: A video file, an image file (a video of one frame, or of all its frames if it is animated), a folder of
            numbered images, or the images themselves in order.
        decoder: ``auto`` takes PyAV for video files, and for images Decord where it can read them, else Pillow; the
            other names insist.
        facts: What is known of a video file from a reader that was open before; spares PyAV to find it out again.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it holds no frame or one that cannot be read, images of different sizes, or the named decoder
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
    if not is_image(source):
        return _open_video(source, decoder, facts)
    if num_frames_of(source) == 1:
        return _open_images((source,), decoder)
    return _open_animation(source, decoder, facts)


def is_video_file(path: Path) -> bool:
    """Whether a file is a video by itself: no image, or one of several frames.

    Raises:
        ValueError: If it is an image by its name but cannot be read.
    """
    return path.is_file() and not (is_image(path) and num_frames_of(path) == 1)


def _open_images(images: tuple[Path, ...], decoder: Decoder) -> FrameReader:
    if decoder == "pyav":
        raise ValueError("`decoder: pyav` reads video files only; for images choose auto, decord or pillow")
    reason = why_not(check_images(images))
    if decoder == "decord" and reason is not None:
        raise ValueError(f"{images[0]}: {reason}: use `decoder: auto`")
    if decoder == "decord" or (decoder == "auto" and reason is None and has_decord()):
        return DecordReader(images)
    return PillowReader(images)


def _open_animation(path: Path, decoder: Decoder, facts: VideoFacts | None) -> FrameReader:
    """A PNG is read by PyAV, which knows its first frame from a stand-in for viewers that cannot animate it."""
    is_png = path.read_bytes()[:4] == b"\x89PNG"
    allowed = ("auto", "pyav" if is_png else "pillow")
    if decoder not in allowed:
        raise ValueError(
            f"{path} holds several frames, which `decoder: {decoder}` cannot read; allowed: {', '.join(allowed)}"
        )
    return _open_video(path, "pyav", facts) if is_png else AnimationReader(path)


def _open_video(path: Path, decoder: Decoder, facts: VideoFacts | None) -> FrameReader:
    if decoder == "pillow":
        raise ValueError(f"{path}: `decoder: pillow` reads images only; for video files choose auto, decord or pyav")
    try:
        return DecordReader(path) if decoder == "decord" else PyAVReader(path, facts)
    except Exception as error:  # the decoders raise types of their own
        raise ValueError(
            f"{path} cannot be read as a video ({first_line(error)}): is the file complete? "
            "Copy it again, or convert it with `ffmpeg -i FILE frames/%05d.png` and give the folder"
        ) from error
