"""Whether the end of a video file is missing, where that can be told: by its header, its last bytes or its last frames.

Raw streams of H.264 and HEVC often do not tell, and MPEG-TS and MPEG do not where they end with a whole packet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zsvss.data.facts import VideoFacts
from zsvss.data.readers.pyav_decoding import VideoDecoder

_HEADER_BYTES = 4096
_SEGMENT = bytes.fromhex("18538067")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# MPEG-TS by itself, of Blu-ray and camcorders (4 bytes before each packet), and with checksums.
_TS_PACKETS = ((0, 188), (4, 192), (0, 204))
_TS_SYNC = 0x47
_JPEG_END = b"\xff\xd9"
_OGG_PAGE = b"OggS"
_OGG_LARGEST = 27 + 255 + 255 * 255
_OGG_LAST = 4
_SECOND = 1_000_000


def refuse_cut(path: Path, decoder: VideoDecoder) -> None:
    """Refuse a file that is shorter than its header says.

    Raises:
        ValueError: If a frame of the index, or the end that the header promises, lies behind the end of the file.
    """
    num_bytes, name = path.stat().st_size, decoder.container.format.name
    if name.startswith("mov"):
        entries: Any = decoder.stream.index_entries
        missing = sum(entry.pos + entry.size > num_bytes for entry in entries)
        if missing:
            raise ValueError(f"{missing} of its {len(entries)} frames lie behind its end")
    elif name in _SIZES:
        with path.open("rb") as file:
            promised = _SIZES[name](file.read(_HEADER_BYTES))
        if promised is not None and promised > num_bytes:
            raise ValueError(f"it has {num_bytes} bytes where its header says {promised}")


def missing_end(path: Path, decoder: VideoDecoder, facts: VideoFacts) -> str | None:
    """How it shows that the end of a file is missing, although the file can be read; None if nothing shows it.

    Args:
        path: The file.
        decoder: Has decoded its last frame.
        facts: Number and times of its frames.
    """
    name, promised = decoder.container.format.name, decoder.stream.frames
    if decoder.is_damaged:
        return "its last frame is incomplete"
    if name == "ivf" and promised > facts.num_frames:
        return f"its header says {promised} frames"
    if name in ("flv", "mxf") and decoder.container.duration and facts.duration is not None:
        header = decoder.container.duration / _SECOND
        if header > facts.duration + 1:
            return f"its header says {header:.1f} s, its frames last {facts.duration:.1f} s"
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        file.seek(max(0, path.stat().st_size - _OGG_LARGEST))
        return _ENDS[name](head, file.read(), path.stat().st_size) if name in _ENDS else None


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


def _end_of_ts(head: bytes, _tail: bytes, num_bytes: int) -> str | None:
    for offset, size in _TS_PACKETS:
        starts = range(offset, min(len(head), num_bytes), size)
        if all(head[start] == _TS_SYNC for start in starts):
            over = num_bytes % size
            return f"its last packet has {over} bytes of {size}" if over else None
    return None


def _end_of_ogg(_head: bytes, tail: bytes, _num_bytes: int) -> str | None:
    page = tail[tail.rfind(_OGG_PAGE) :]
    num_segments = page[26] if len(page) > 26 else 0
    whole = 27 + num_segments + sum(page[27 : 27 + num_segments])
    if len(page) < whole or len(page) < 27:
        return "its last page is incomplete"
    return None if page[5] & _OGG_LAST else "no page is marked as its last"


def _end_of_gif(_head: bytes, tail: bytes, _num_bytes: int) -> str | None:
    return None if tail.rstrip(b"\0").endswith(b";") else "its trailer is missing"


def _end_of_mjpeg(_head: bytes, tail: bytes, _num_bytes: int) -> str | None:
    return None if tail.rstrip(b"\0").endswith(_JPEG_END) else "its last image has no end"


_SIZES = {"avi": _riff_size, "matroska,webm": _segment_end, "asf": _asf_size}
_ENDS = {"mpegts": _end_of_ts, "ogg": _end_of_ogg, "gif": _end_of_gif, "mjpeg": _end_of_mjpeg}
