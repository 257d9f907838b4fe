"""What the values of a user's own masks mean, found from all masks together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from zsvss.data.images import is_image, read_mask
from zsvss.data.smoothing import ValueCounts, smoothed
from zsvss.data.taxonomy import Taxonomy, bit_palette, in_words
from zsvss.data.video import UNLABELLED

_log = logging.getLogger(__name__)

_OBJECT = 255
_BINARY_NAMES = ("background", "object")
_FEW_SMALL_CLASSES = 5
_NEARLY_ALL = 0.9


class OwnMasks(NamedTuple):
    """What masks hold.

    Attributes:
        taxonomy: Meaning of their values.
        only_value: The one value that is a class, if there is no other.
    """

    taxonomy: Taxonomy
    only_value: int | None


def read_own_masks(
    folder: Path,
    name: str,
    class_names: Sequence[str] | None = None,
    ignore_value: int | Literal["auto"] | None = "auto",
) -> OwnMasks:
    """Read all masks below a folder and say what their values are.

    Values are class numbers, but masks that hold exactly 0 and 255, as most tools write them for one object, are
    background and object, unless ``ignore_value`` says otherwise or ``class_names`` names another number of classes.

    Args:
        folder: Of masks, searched to any depth.
        name: Of the data set.
        class_names: Names of the values 0, 1, ...
        ignore_value: Value that is no class; ``auto``: 255, unless the masks hold exactly 0 and 255; ``None``: none.

    Raises:
        ValueError: If a value has no name, nothing is scored, or the values are the noise of smoothed borders.
    """
    counts, first_of = _count(folder)
    present = np.flatnonzero(counts.all_V).tolist()
    if present == [0, _OBJECT] and ignore_value == "auto" and (class_names is None or len(class_names) == 2):
        return OwnMasks(_binary(name, class_names or _BINARY_NAMES, counts), None)
    ignored = UNLABELLED if ignore_value == "auto" else ignore_value
    scored = [value for value in present if value != ignored]
    noise = counts.noise(more_than=_FEW_SMALL_CLASSES)
    if ignore_value == "auto" and {0, _OBJECT} <= set(present):
        noise = noise or _between(counts)
    if noise:
        raise ValueError(smoothed(first_of[noise[0]], noise, counts))
    if not scored:
        raise ValueError(
            f"{folder}: every pixel of the masks is {ignored}, which is not scored; set data.ignore_value to another "
            "value, or give masks that show a class"
        )
    names = tuple(class_names or (f"class {value}" for value in range(scored[-1] + 1)))
    nameless = {value: int(counts.all_V[value]) for value in scored if value >= len(names)}
    if nameless:
        largest = max(nameless)
        raise ValueError(
            f"{first_of[largest]} has the value {largest} but data.class_names has {len(names)} names (values 0.."
            f"{len(names) - 1}); without a name are {in_words(nameless)}: name all values, or set data.ignore_value to "
            "the one that is not a class"
        )
    if len(scored) == 1:
        _log.warning(
            "%s: the masks hold one class alone, %r (value %d), so that every score compares it with itself; "
            "data.ignore_value says which value is no class, null that all are",
            folder,
            names[scored[0]],
            scored[0],
        )
    class_of_raw = {value: value for value in range(len(names)) if value != ignored}
    void = frozenset() if ignored is None else frozenset({ignored})
    taxonomy = Taxonomy(f"{name}-masks", names, bit_palette(len(names)), class_of_raw, void=void)
    return OwnMasks(taxonomy, scored[0] if len(scored) == 1 else None)


def _binary(name: str, names: Sequence[str], counts: ValueCounts) -> Taxonomy:
    background, object_ = names
    # Where nearly all is 255, that may stand for what strokes leave open.
    unsure = counts.all_V[_OBJECT] > _NEARLY_ALL * counts.all_V.sum()
    _log.log(
        logging.WARNING if unsure else logging.INFO,
        "masks hold the values 0 and 255 alone: 0 is %r (%d pixels), 255 is %r (%d pixels); data.ignore_value 255 "
        "leaves 255 out%s",
        background,
        counts.all_V[0],
        object_,
        counts.all_V[_OBJECT],
        ", where strokes need a value of their own for each object and for the background" if unsure else "",
    )
    meaning = f"{name}-masks (0: {background}, 255: {object_})"
    return Taxonomy(meaning, (background, object_), bit_palette(2), {0: 0, _OBJECT: 1}, void=frozenset())


def _between(counts: ValueCounts) -> list[int]:
    """Values of a smoothed binary mask: they lie along borders alone, and are no numbers of a few classes."""
    between = [value for value in np.flatnonzero(counts.all_V).tolist() if 0 < value < _OBJECT]
    is_thin = all(2 * counts.solid_V[value] < counts.all_V[value] for value in between)
    return between if between and is_thin and max(between) > 2 * len(between) + 8 else []


def _count(folder: Path) -> tuple[ValueCounts, dict[int, Path]]:
    """Pixels of each value in all masks, and the first mask that holds it."""
    counts = ValueCounts(np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64))
    first_of: dict[int, Path] = {}
    for path in sorted(folder.rglob("*")):
        if is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            of_mask = ValueCounts.of(read_mask(path))
            for value in np.flatnonzero(of_mask.all_V).tolist():
                first_of.setdefault(value, path)
            counts += of_mask
    return counts, first_of
