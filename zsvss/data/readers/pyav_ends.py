"""Whether the end of a video file is missing, where that can be told: by its header, its last bytes or its last frames.

Raw streams of H.264 and HEVC often do not tell, and MPEG-TS and MPEG do not where they end with a whole packet.
"""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from zsvss.data.readers.pyav_decoding import VideoDecoder
from zsvss.data.video_facts import VideoFacts

_HEADER_BYTES = 4096
_SEGMENT = bytes.fromhex("18538067")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# MPEG-TS by itself, of Blu-ray and camcorders (4 bytes before each packet), and with checksums.
_TS_PACKETS = ((0, 188), (4, 192), (0, 204))
_TS_SYNC = 0x47
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER = 0x21, 0x2C, 0x3B
_FLV_TAGS = {8, 9, 18}  # sound, video, data
_FLV_HEAD = 11
_OGG_PAGE = b"OggS"
_OGG_LARGEST = 27 + 255 + 255 * 255
_OGG_LAST = 4
_SECOND = 1_000_000
# Some programs count the 8 bytes of an AVI file's head as content, or leave out the last pad byte.
_RIFF_SLACK = 8


def refuse_cut(path: Path, decoder: VideoDecoder) -> None:
    """Refuse a file that is shorter than its header says.

    Raises:
        ValueError: If a frame of the index, or the end that the header promises, lies after the end of the file.
    """
    num_bytes, name = path.stat().st_size, decoder.container.format.name
    if name.startswith("mov"):
        entries: Any = decoder.stream.index_entries
        missing = sum(entry.pos + entry.size > num_bytes for entry in entries)
        if missing:
            raise ValueError(f"{missing} of its {len(entries)} frames lie after its end")
    elif name in _SIZES:
        with path.open("rb") as file:
            promised = _SIZES[name](file.read(_HEADER_BYTES))
        slack = _RIFF_SLACK if name == "avi" else 0
        if promised is not None and promised > num_bytes + slack:
            raise ValueError(f"it has {num_bytes} bytes where its header says {promised}")


def missing_end(path: Path, decoder: VideoDecoder, facts: VideoFacts) -> str | None:
    """How it shows that the end of a file is missing, although the file can be read; None if nothing shows it.

    Args:
        path: The file.
        decoder: Has decoded its last frame.
        facts: Number and times of its frames.
    """
    name, stream = decoder.container.format.name, decoder.stream
    if decoder.is_damaged:
        return "its last frame is incomplete"
    if name == "ivf" and stream.frames > decoder.num_packets:
        return f"its header says {stream.frames} packets, it has {decoder.num_packets}"
    if name == "mxf" and stream.duration and facts.duration is not None:
        header = float(stream.duration * stream.time_base)
        if header > facts.duration + 1:
            return f"its header says {header:.1f} s, its frames last {facts.duration:.1f} s"
    if name not in _ENDS:
        return None
    header = (decoder.container.duration or 0) / _SECOND
    is_longer = header > 1 + (float(facts.stamps[-1] * facts.time_base) if facts.stamps else 0)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        return _ENDS[name](data, header if is_longer else 0)


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


def _asf_size(header: bytes) -> int | None:
    """Bytes of a WMV or ASF file; None of a broadcast, which does not know them."""
    at = header.find(_ASF_FILE)
    if not header.startswith(_ASF) or at < 0 or len(header) < at + 92:
        return None
    is_broadcast = header[at + 88] & 1
    return None if is_broadcast else int.from_bytes(header[at + 40 : at + 48], "little")


def _end_of_ts(data: mmap, _seconds: float) -> str | None:
    for offset, size in _TS_PACKETS:
        if all(data[start] == _TS_SYNC for start in range(offset, min(_HEADER_BYTES, len(data)), size)):
            over = len(data) % size
            # What begins otherwise is no packet, but padding.
            is_packet = over > offset and data[len(data) - over + offset] == _TS_SYNC
            return f"its last packet has {over} bytes of {size}" if is_packet else None
    return None


def _end_of_flv(data: mmap, seconds: float) -> str | None:
    """Go from tag to tag, since a video may begin later, or end earlier, than the sound.

    Args:
        data: The file.
        seconds: How long it is by its header, if its frames are shorter than that.
    """
    at, latest = int.from_bytes(data[5:9], "big") + 4, 0
    while at + _FLV_HEAD <= len(data) and data[at] in _FLV_TAGS:
        latest = max(latest, int.from_bytes(data[at + 4 : at + 7], "big") + (data[at + 7] << 24))
        at += _FLV_HEAD + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    # Behind a tag's content is its length once more, in 4 bytes.
    if at - 4 > len(data) or (at < len(data) < at + _FLV_HEAD and data[at] in _FLV_TAGS):
        return "its last tag is incomplete"
    if seconds > latest / 1000 + 1:
        return f"its header says {seconds:.1f} s, its last tag is of {latest / 1000:.1f} s"
    return None


def _end_of_ogg(data: mmap, _seconds: float) -> str | None:
    at = data.rfind(_OGG_PAGE, max(0, len(data) - _OGG_LARGEST))
    page = data[at:] if at >= 0 else b""
    num_segments = page[26] if len(page) > 26 else 0
    whole = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if len(page) < whole or len(page) < 27:
        return "its last page is incomplete"
    return None if page[5] & _OGG_LAST else "no page is marked as its last"


def _end_of_gif(data: mmap, _seconds: float) -> str | None:
    """Go from block to block; tools leave bytes behind the trailer."""
    at = 13 + _colour_table(data[10])
    while at < len(data):
        if data[at] == _GIF_TRAILER:
            return None
        if data[at] == _GIF_EXTENSION:
            at = _behind_blocks(data, at + 2)
        elif data[at] == _GIF_IMAGE:
            at = _behind_blocks(data, at + 10 + _colour_table(*data[at + 9 : at + 10]) + 1)
        else:
            at += 1
    return "its trailer is missing"


def _colour_table(flags: int = 0) -> int:
    """Bytes of the table of colours after a screen's or an image's flags."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: mmap, at: int) -> int:
    """Where a chain of blocks, each after its length, has ended with one of length 0."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _end_of_mjpeg(data: mmap, _seconds: float) -> str | None:
    return None if data.rfind(_JPEG_END) > data.rfind(_JPEG_BEGIN) else "its last image has no end"


_SIZES = {"avi": _riff_size, "matroska,webm": _segment_end, "asf": _asf_size}
_ENDS = {
    "mpegts": _end_of_ts,
    "flv": _end_of_flv,
    "ogg": _end_of_ogg,
    "gif": _end_of_gif,
    "mjpeg": _end_of_mjpeg,
}
