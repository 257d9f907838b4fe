"""Label maps and frames as text that a page unpacks.

Label maps become one byte a pixel, a number in the video's list of labels (255: none), frame after frame as differences
to the frame before, deflated: a few hundred bytes a frame.

Shapes: T frames, H W pixels or tokens.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image

from zsvss.results.media import Labels
from zsvss.results.segment_colors import UInt8
from zsvss.stages.nearest_resizing import nearest

_CHUNK = 1_000_000
"""Characters of frames in one piece, about."""


def pack(indices_THW: UInt8) -> dict[str, Any]:
    """Deflated differences between frames, in base64, with the size of a frame.

    >>> packed = pack(np.zeros((3, 2, 4), np.uint8))
    >>> packed["height"], packed["width"]
    (2, 4)
    """
    # Bytes wrap around, here and in the page.
    differences_THW = np.diff(indices_THW, axis=0, prepend=np.zeros_like(indices_THW[:1]))
    data = base64.b64encode(zlib.compress(differences_THW.tobytes(), level=9)).decode()
    return {"height": indices_THW.shape[1], "width": indices_THW.shape[2], "data": data}


def pack_frames(frames: Iterable[UInt8], size: tuple[int, int]) -> dict[str, list[str]]:
    """Frames at a size, as JPEGs in base64, by the name of the piece that holds them; ``frames 0`` begins with frame 0.

    >>> [(name, len(jpegs)) for name, jpegs in pack_frames([np.zeros((2, 4, 3), np.uint8)] * 3, (2, 4)).items()]
    [('frames 0', 3)]
    """
    pieces: dict[str, list[str]] = {}
    current: list[str] = []
    weight = 0
    for number, frame_HW3 in enumerate(frames):
        if not pieces or weight > _CHUNK:
            current = pieces[f"frames {number}"] = []
            weight = 0
        current.append(_jpeg(frame_HW3, size))
        weight += len(current[-1])
    return pieces


def scaled(labels_HW: Labels | None, size: tuple[int, int]) -> Labels:
    """At this size, nearest neighbour; no labels where there is no map."""
    if labels_HW is None:
        return np.full(size, -1, dtype=np.int64)
    small: Labels = nearest(torch.from_numpy(labels_HW), size).numpy()
    return small


def page_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """Height and width at which a page shows a video: its own, unless a side is longer than `max_side`."""
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(scale * height)), max(1, round(scale * width))


def _jpeg(frame_HW3: UInt8, size: tuple[int, int]) -> str:
    image = Image.fromarray(frame_HW3)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True)
    return base64.b64encode(file.getvalue()).decode()
