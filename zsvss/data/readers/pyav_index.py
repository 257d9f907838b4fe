"""How many frames a video file has and when each is shown: by its packets where they can be trusted, else by decoding.

Where every packet is a frame (MP4, MOV, Matroska and WebM with common codecs), reading the packets without decoding
them gives number and times. Decoding the first frames and the last ones tells whether it is so. Every other file is
decoded once from end to end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from zsvss.data.facts import VideoFacts
from zsvss.data.images import upright_size
from zsvss.data.readers.pyav_decoding import VideoDecoder, orientation, pixel_aspect

_log = logging.getLogger(__name__)

_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg", "prores"}
# How many of the first frames are decoded to see whether packets are frames, and at most how many of the last ones.
_FIRST, _LAST = 128, 128
_DEFAULT_RATE = Fraction(25)
_LONG = 100 << 20
_HEADER_BYTES = 4096
_SEGMENT = bytes.fromhex("18538067")


class _Packet(NamedTuple):
    pts: int
    dts: int | None
    duration: int
    is_key: bool


def index_video(path: Path) -> VideoFacts:
    """Number, size and times of a file's frames.

    Raises:
        ValueError: If the file holds no frame, is cut short or damaged.
        av.error.FFmpegError: If it is no video file.
    """
    decoder = VideoDecoder(path)
    try:
        packets = _read_packets(decoder, path)
        if packets is not None:
            facts = _facts_of_packets(decoder, packets)
            if facts is not None and _is_right(decoder, facts):
                return facts
        decoder.restart()
        return _facts_by_decoding(decoder, path)
    finally:
        decoder.close()


def _read_packets(decoder: VideoDecoder, path: Path) -> list[_Packet] | None:
    """The packets in decoding order; None where they may not be the frames."""
    stream = decoder.stream
    _check_whole(decoder, path)
    if decoder.container.format.name not in _FORMATS or stream.codec_context.name not in _CODECS:
        return None
    packets: list[_Packet] = []
    for packet in decoder.container.demux(stream):
        if packet.dts is None and packet.size == 0:
            continue  # the end, for the decoder
        strange = packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
        if strange or packet.pts is None:
            return None
        packets.append(_Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))
    promised = decoder.stream.frames
    unique = len({packet.pts for packet in packets}) == len(packets)
    known = [packet.dts for packet in packets if packet.dts is not None]  # Matroska has them for the later ones
    in_order = all(first < second for first, second in pairwise(known))
    return packets if unique and in_order and packets and promised in (0, len(packets)) else None


def _facts_of_packets(decoder: VideoDecoder, packets: Sequence[_Packet]) -> VideoFacts | None:
    """What the packets say; None if the first frame is not the one that they promise."""
    decoder.restart()
    first = decoder.next()
    stamps = tuple(sorted(packet.pts for packet in packets))
    if first is None or first.pts != stamps[0]:
        return None
    numbers = {stamp: number for number, stamp in enumerate(stamps)}
    key_frames, latest = list[int](), stamps[0]
    for packet in packets:
        # Nothing that is shown behind a key frame may come before it in the file.
        if packet.is_key and packet.pts > latest:
            key_frames.append(numbers[packet.pts])
        latest = max(latest, packet.pts)
    last = max(packets, key=lambda packet: packet.pts)
    return replace(
        _facts_of_frame(decoder, first),
        num_frames=len(stamps),
        stamps=stamps,
        time_base=Fraction(decoder.stream.time_base),
        last_duration=last.duration,
        own_stamps=True,
        key_frames=tuple(key_frames),
    )


def _facts_of_frame(decoder: VideoDecoder, first: Any) -> VideoFacts:
    """What the first frame says."""
    turn = orientation(first)
    return VideoFacts(
        num_frames=1,
        size=upright_size((first.height, first.width), turn),
        sample_aspect_ratio=pixel_aspect(decoder.stream, turn),
        orientation=turn,
    )


def _is_right(decoder: VideoDecoder, facts: VideoFacts) -> bool:
    """Whether decoding gives the first and the last frames that the packets promise; the first one is decoded."""
    for stamp in facts.stamps[1:_FIRST]:
        frame = decoder.next()
        if frame is None or frame.pts != stamp:
            return False
    if len(facts.stamps) <= _FIRST:
        return decoder.next() is None
    if not facts.key_frames or len(facts.stamps) - facts.key_frames[-1] > _LAST:
        return True
    end = facts.stamps[facts.key_frames[-1] :]
    frame = decoder.seek(end[0])
    for stamp in end:
        if frame is None or frame.pts != stamp:
            return False
        frame = decoder.next()
    return frame is None


def _facts_by_decoding(decoder: VideoDecoder, path: Path) -> VideoFacts:
    if path.stat().st_size > _LONG:
        _log.info("%s is decoded once to count its frames, which its container does not tell for certain", path)
    facts, pts, dts, duration = None, list[int | None](), list[int | None](), 0
    while (frame := decoder.next()) is not None:
        facts = facts or _facts_of_frame(decoder, frame)
        pts.append(frame.pts)
        dts.append(frame.dts)
        duration = frame.duration or 0
    if facts is None:
        raise ValueError("it holds no frame that can be decoded")
    facts = replace(facts, num_frames=len(pts), last_duration=duration)
    for own, stamps in ((True, pts), (False, dts)):
        if _are_times(stamps):
            times = tuple(stamp for stamp in stamps if stamp is not None)
            return replace(facts, stamps=times, time_base=Fraction(decoder.stream.time_base), own_stamps=own)
    rate = Fraction(decoder.stream.average_rate or decoder.stream.guessed_rate or _DEFAULT_RATE)
    return replace(facts, stamps=tuple(range(len(pts))), time_base=1 / rate, last_duration=1)


def _are_times(stamps: Sequence[int | None]) -> bool:
    """Whether all are known and each is above the one before."""
    return (
        all(first is not None and second is not None and first < second for first, second in pairwise(stamps))
        and stamps[0] is not None
    )


def _check_whole(decoder: VideoDecoder, path: Path) -> None:
    """Refuse a file of which the end is missing, where the container says how long it should be.

    Raises:
        ValueError: If a frame of the index, or the end that the header promises, lies behind the end of the file.
    """
    num_bytes, name = path.stat().st_size, decoder.container.format.name
    if name.startswith("mov"):
        entries: Any = decoder.stream.index_entries
        missing = sum(entry.pos + entry.size > num_bytes for entry in entries)
        if missing:
            raise ValueError(f"{missing} of its {len(entries)} frames lie behind its end")
    elif name in ("avi", "matroska,webm"):
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
        promised = _riff_size(header) if name == "avi" else _segment_end(header)
        if promised is not None and promised > num_bytes:
            raise ValueError(f"it has {num_bytes} bytes where its header says {promised}")


def _riff_size(header: bytes) -> int | None:
    """Bytes of an AVI file, or of its first gigabytes; None if the program that wrote it was stopped."""
    size = int.from_bytes(header[4:8], "little")
    return 8 + size if header[:4] == b"RIFF" and 0 < size < 0xFFFFFFFF else None


def _segment_end(header: bytes) -> int | None:
    """Where the content of a Matroska file ends; None if it was written without knowing its length."""
    at = header.find(_SEGMENT)
    if at < 0:
        return None
    # A number with as many bytes as its first one has zeros in front, plus one; all ones mean "unknown".
    first = header[at + 4]
    num_bytes = 9 - first.bit_length()
    value = int.from_bytes(header[at + 4 : at + 4 + num_bytes], "big") & ((1 << 7 * num_bytes) - 1)
    return None if first == 0 or value == (1 << 7 * num_bytes) - 1 else at + 4 + num_bytes + value
