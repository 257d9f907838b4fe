"""Images whose pixels are ids: written in palette mode, so that viewers show colours, and read back.

Shapes: H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from zsvss.results.segment_colors import palette

VOID_ID = 255
"""Value of a pixel without a label in the run folder's media, see `zsvss.results.media`."""
NOTHING = 0
"""Value of a pixel of no segment in predictions, whose ids begin at 1."""
LARGEST_ID = 65535
"""The largest id that an image of 16 bits holds."""


def write_index_png(path: Path | str, labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None) -> None:
    """Write ids as a PNG in palette mode: the pixel values are the ids, and viewers show colours.

    Args:
        path: file to write.
        labels_HW: ids 0..255; negative ones (no label) are written as 255.
        colors: uint8 RGB of 0, 1, ...; by default `palette`. An id without one, and 255, is black.

    Raises:
        ValueError: an id above 255.
    """
    if labels_HW.size and labels_HW.max() > VOID_ID:
        raise ValueError(f"{path}: id {labels_HW.max()} does not fit into an index PNG; allowed are 0..{VOID_ID}")
    table = np.zeros((256, 3), dtype=np.uint8)
    known = palette(VOID_ID) if colors is None else np.asarray(colors, dtype=np.uint8)[:VOID_ID]
    table[: len(known)] = known
    image = Image.fromarray(np.where(labels_HW < 0, VOID_ID, labels_HW).astype(np.uint8))
    image.putpalette(table.tobytes())
    image.save(path, format="PNG")


def write_segment_png(
    path: Path | str, labels_HW: npt.NDArray[np.integer], colors: npt.ArrayLike | None = None
) -> None:
    """Write segments as a PNG whose pixel values are their ids, which are the labels + 1; 0 is no segment.

    The image is in palette mode, or in 16-bit grey where an id is above 255.

    Args:
        path: file to write.
        labels_HW: labels 0..65534, negative where there is none.
        colors: uint8 RGB of the labels 0, 1, ...; by default `palette`. No segment, and a label without a colour, is
            black; a 16-bit image has no colours.

    Raises:
        ValueError: a label above 65534.
    """
    highest = int(labels_HW.max(initial=-1))
    if highest >= LARGEST_ID:
        raise ValueError(f"{path}: label {highest} does not fit into 16 bits; allowed are 0..{LARGEST_ID - 1}")
    ids_HW = np.where(labels_HW < 0, NOTHING, labels_HW + 1)
    known = palette(255) if colors is None else np.asarray(colors, dtype=np.uint8)
    write_ids(path, ids_HW, np.concatenate([np.zeros((1, 3), np.uint8), known]))


def write_ids(path: Path | str | IO[bytes], ids_HW: npt.NDArray[np.integer], colors: npt.ArrayLike) -> None:
    """Write ids 0..65535 as they are: in palette mode, or in 16-bit grey where one is above 255.

    Args:
        path: file to write, or an open one.
        ids_HW: what the pixels are.
        colors: uint8 RGB of the ids 0, 1, ...; the others are black.
    """
    if ids_HW.max(initial=0) > 255:
        Image.fromarray(ids_HW.astype(np.uint16)).save(path, format="PNG")
        return
    table = np.zeros((256, 3), dtype=np.uint8)
    known = np.asarray(colors, dtype=np.uint8)[:256]
    table[: len(known)] = known
    image = Image.fromarray(ids_HW.astype(np.uint8))
    image.putpalette(table.tobytes())
    image.save(path, format="PNG")


def read_ids(path: Path) -> npt.NDArray[np.int32]:
    """Ids of an image that `write_ids` wrote, int32 ``[H, W]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read or is no image of ids.
    """
    try:
        with Image.open(path) as image:
            ids_HW = np.array(image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image of ids ({error})") from error
    if ids_HW.ndim != 2:
        raise ValueError(f"{path} is a colour image; an image of ids is in palette mode or grey")
    return ids_HW.astype(np.int32)
