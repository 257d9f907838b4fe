"""How many frames a video file has and when each is shown: by its packets where they can be trusted, else by decoding.

Where every packet is a frame (MP4, MOV, Matroska, WebM, MPEG-TS and AVI with common codecs), reading the packets
without decoding them gives number and times. Decoding the first frames, and all from the last key frame on, tells
whether it is so. Every other file is decoded once from end to end.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import av

from zsvss.data.images import upright_size
from zsvss.data.readers.pyav_decoding import VideoDecoder, orientation, pixel_aspect
from zsvss.data.readers.pyav_ends import missing_end, refuse_cut
from zsvss.data.video_facts import VideoFacts

_log = logging.getLogger(__name__)

_CODECS = {"h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg", "prores"}
# Container -> codecs whose packets are frames there, as far as the packets show no sign of the contrary.
_PACKETS_ARE_FRAMES = {
    "mov,mp4,m4a,3gp,3g2,mj2": _CODECS,
    "matroska,webm": _CODECS,
    "mpegts": {"h264", "hevc"},
    "avi": {"h264", "mjpeg"},
}
# Containers in which a packet may be lost, or be half a frame, without a word; in even steps there is neither.
_IN_EVEN_STEPS = {"mpegts", "avi"}
_MOST_UNEVEN = 1.5
# How many of the first frames are decoded to see whether packets are frames.
_FIRST = 128
_DEFAULT_RATE = Fraction(25)
_LONG = 100 << 20


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
        refuse_cut(path, decoder)
        packets = _read_packets(decoder)
        facts = None
        with contextlib.suppress(av.error.InvalidDataError):  # where it is damaged, counting tells
            facts = None if packets is None else _checked_facts(decoder, packets)
        if facts is None:
            decoder.restart()
            facts = _facts_by_decoding(decoder, path)
        if reason := missing_end(path, decoder, facts):
            told = "%s is cut short (%s): the %d frames that can be decoded are taken"
            _log.warning(told, path, reason, facts.num_frames)
        return facts
    finally:
        decoder.close()


def _read_packets(decoder: VideoDecoder) -> list[_Packet] | None:
    """The packets in decoding order; None where they may not be the frames."""
    stream, container = decoder.stream, decoder.container.format.name
    if stream.codec_context.name not in _PACKETS_ARE_FRAMES.get(container, ()):
        return None
    packets: list[_Packet] = []
    for packet in decoder.container.demux(stream):
        if packet.dts is None and packet.size == 0:
            continue  # the end, for the decoder
        strange = packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
        if strange or packet.pts is None or packet.size == 0:
            return None
        packets.append(_Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe))
    promised = stream.frames if container not in _IN_EVEN_STEPS else 0
    unique = len({packet.pts for packet in packets}) == len(packets)
    known = [packet.dts for packet in packets if packet.dts is not None]  # Matroska has them for the later ones
    steps = [second - first for first, second in pairwise(known)]
    in_order = all(step > 0 for step in steps)
    is_even = len(known) == len(packets) and max(steps, default=1) < _MOST_UNEVEN * min(steps, default=1)
    in_order = in_order and (is_even or container not in _IN_EVEN_STEPS)
    return packets if unique and in_order and packets and promised in (0, len(packets)) else None


def _checked_facts(decoder: VideoDecoder, packets: Sequence[_Packet]) -> VideoFacts | None:
    """What the packets say; None if the frames at either end are not those that they promise."""
    decoder.restart()
    first = decoder.next()
    stamps = tuple(sorted(packet.pts for packet in packets))
    if first is None or first.pts != stamps[0]:
        return None
    numbers = {stamp: number for number, stamp in enumerate(stamps)}
    key_frames, latest = list[int](), stamps[0]
    for packet in packets:
        # Nothing that is shown after a key frame may come before it in the file.
        if packet.is_key and packet.pts > latest:
            key_frames.append(numbers[packet.pts])
        latest = max(latest, packet.pts)
    # Stamps of AVI tell packets apart, but not in which order they are shown.
    has_times = decoder.container.format.name != "avi"
    facts = replace(
        _facts_of_frame(decoder, first),
        num_frames=len(stamps),
        stamps=stamps,
        time_base=Fraction(decoder.stream.time_base),
        last_duration=max(packets, key=lambda packet: packet.pts).duration if has_times else 0,
        own_stamps=has_times,
        key_frames=tuple(key_frames) if has_times else (),
    )
    return facts if _is_right(decoder, facts, key_frames[-1] if key_frames else None) else None


def _facts_of_frame(decoder: VideoDecoder, first: Any) -> VideoFacts:
    """What the first frame says."""
    turn = orientation(first)
    return VideoFacts(
        num_frames=1,
        size=upright_size((first.height, first.width), turn),
        sample_aspect_ratio=pixel_aspect(decoder.stream, turn),
        orientation=turn,
    )


def _is_right(decoder: VideoDecoder, facts: VideoFacts, last_key: int | None) -> bool:
    """Whether decoding gives what the packets promise at the begin, and from the last key frame on.

    Args:
        decoder: Has decoded the first frame.
        facts: What the packets promise.
        last_key: Number of the last key frame.
    """
    stamps, num_first = facts.stamps, min(_FIRST, len(facts.stamps))
    begin = [stamps[0], *_next_stamps(decoder, num_first - 1)]
    num_promised = len(set(begin) & set(stamps))
    is_right = begin == list(stamps[:num_first]) if facts.own_stamps else num_promised == num_first
    if not is_right or num_first == len(stamps):
        return is_right and decoder.next() is None
    if last_key is None:
        return False  # to know the last frames is to decode all
    frame = decoder.seek(stamps[last_key])
    end = [] if frame is None else [frame.pts, *_next_stamps(decoder, len(stamps) - last_key)]
    return (end if facts.own_stamps else sorted(end)) == list(stamps[last_key:])


def _next_stamps(decoder: VideoDecoder, num_frames: int) -> list[int]:
    """Stamps of the next frames, fewer at the end."""
    frames = takewhile(lambda frame: frame is not None, (decoder.next() for _ in range(num_frames)))
    return [-1 if frame.pts is None else frame.pts for frame in frames if frame is not None]


def _facts_by_decoding(decoder: VideoDecoder, path: Path) -> VideoFacts:
    if path.stat().st_size > _LONG:
        _log.info("%s is decoded once to count its frames, which its container does not tell for certain", path)
    facts, pts, dts, duration = None, list[int | None](), list[int | None](), 0
    while (frame := _next_or_refuse(decoder, len(pts))) is not None:
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


def _next_or_refuse(decoder: VideoDecoder, number: int) -> Any | None:
    """The next frame, which has that number; None after the last one."""
    try:
        return decoder.next()
    except av.error.FFmpegError as error:
        raise ValueError(f"frame {number}, or one right after it, cannot be decoded: {error.strerror}") from error


def _are_times(stamps: Sequence[int | None]) -> bool:
    """Whether all are known and each is above the one before."""
    return (
        all(first is not None and second is not None and first < second for first, second in pairwise(stamps))
        and stamps[0] is not None
    )
