"""Videos whose frames carry their number in their pixels, written with PyAV."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

_BITS = 6


def numbered_frames(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Grey frames with the bits of their number, below 64, as black and white columns."""
    numbers = np.arange(num_frames)[:, None] >> np.arange(_BITS) & 1
    columns = np.repeat(numbers * 255, -(-width // _BITS), axis=1)[:, :width].astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(columns[:, None, :, None], (num_frames, height, width, 3)))


def numbers_of(frames_THW3: Any) -> list[int]:
    """The numbers that frames carry."""
    frames = np.asarray(frames_THW3)
    columns = np.array_split(np.arange(frames.shape[2]), _BITS)
    centres = [int(column[len(column) // 2]) for column in columns]
    bits = frames[:, :, centres].mean((1, 3)) > 127
    return [int(number) for number in (bits << np.arange(_BITS)).sum(1)]


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    stamps: Iterable[int] | None = None,
    prepare: Callable[[Any], None] = lambda codec_context: None,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write a video of 25 frames a second, or with time stamps in 1/25 s."""
    frames = list(frames)
    if codec.startswith("libvpx") and _decord_is_loaded():
        _in_another_process("encode", path, frames, codec, pix_fmt, stamps, **options)
        return path
    times = list(range(len(frames))) if stamps is None else list(stamps)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 25)
        prepare(stream.codec_context)
        for array, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, path: Path, first_key: int = 0, shift: int = 0) -> Path:
    """Copy the packets into another file from the given key frame on, shown ``shift`` frames earlier."""
    num_keys = 0
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        stream = read.streams.video[0]
        copy = written.add_stream_from_template(stream)
        step = round(1 / (25 * stream.time_base))
        for packet in read.demux(stream):
            num_keys += packet.is_keyframe
            if packet.dts is not None and num_keys > first_key:
                packet.pts, packet.dts = packet.pts - shift * step, packet.dts - shift * step
                packet.stream = copy
                written.mux(packet)
    return path


def palette_avi(path: Path, frames: np.ndarray) -> Path:
    """Raw palette video, black and white."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[7] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "pal8"
        for array in frames:
            frame = av.VideoFrame.from_ndarray(((array[..., 0] > 127).astype(np.uint8) * 7, palette), format="pal8")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def change_of_size(path: Path, first: np.ndarray, second: np.ndarray) -> Path:
    """A VP8 stream that goes on at another size."""
    if _decord_is_loaded():
        _in_another_process("change_of_size", path, first, second)
        return path
    with av.open(str(path), "w") as container:
        stream: Any = None
        for part, (frames, begin) in enumerate(((first, 0), (second, len(first)))):
            codec: Any = container.add_stream("libvpx", rate=25) if part == 0 else av.CodecContext.create("libvpx", "w")
            stream = stream or codec
            codec.height, codec.width = frames.shape[1:3]
            codec.pix_fmt = "yuv420p"
            context = codec.codec_context if part == 0 else codec
            context.time_base = Fraction(1, 25)
            context.bit_rate = 2_000_000
            packets = []
            for number, array in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = begin + number, Fraction(1, 25)
                packets += codec.encode(frame)
            for packet in packets + codec.encode(None):
                packet.stream = stream
                container.mux(packet)
    return path


def _decord_is_loaded() -> bool:
    """Decord puts the symbols of its own libvpx before everybody's, and PyAV's encoder then fails."""
    return "decord" in sys.modules


def _in_another_process(function: str, *arguments: Any, **options: str) -> None:
    code = (
        f"import pickle, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import numbered_videos; "
        "name, arguments, options = pickle.load(sys.stdin.buffer); "
        "getattr(numbered_videos, name)(*arguments, **options)"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps((function, arguments, options)), check=True)
