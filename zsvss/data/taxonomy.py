"""What the raw ground-truth values of a benchmark mean: names, colours, and which values are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE_INDEX = -1


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a benchmark and how its raw 8-bit ground truth maps to them.

    Attributes:
        name: Name of the label set, such as ``camvid-11`` or ``vspw-shifted``.
        classes: Class names; the position is the class id.
        palette: RGB colour (0..255) of each class id.
        class_of_raw: Class id of each scored raw value (0..255); a value that is absent is ignored.
        objects: Class ids that are single objects, which J and F are measured of; none in a benchmark of classes.
        void: Raw values that are ignored by design. Others that are ignored too are strangers, and are told.

    Raises:
        ValueError: If the parts disagree in length or a raw value or class id is out of range.

    Example:
        >>> taxonomy = Taxonomy("two", ("sky", "road"), ((0, 0, 255), (90, 90, 90)), {1: 0, 2: 1})
        >>> taxonomy.class_ids(torch.tensor([0, 1, 2, 255], dtype=torch.uint8))
        tensor([-1,  0,  1, -1])
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    class_of_raw: Mapping[int, int]
    objects: tuple[int, ...] = ()
    void: frozenset[int] = frozenset({255})

    def __post_init__(self) -> None:
        if len(self.classes) != len(self.palette):
            raise ValueError(f"{self.name}: {len(self.classes)} class names but {len(self.palette)} colours")
        for raw, class_id in self.class_of_raw.items():
            if not 0 <= raw <= 255 or not 0 <= class_id < len(self.classes):
                raise ValueError(
                    f"{self.name}: raw value {raw} -> class {class_id}; raw values are 0..255 and "
                    f"class ids 0..{len(self.classes) - 1}"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes that are scored."""
        return len(self.classes)

    def class_ids(self, raw: Tensor) -> Tensor:
        """Translate raw ground-truth values.

        Args:
            raw: Integer tensor of any shape, values 0..255.

        Returns:
            int64 tensor of the same shape: class ids, ``IGNORE_INDEX`` where the value is ignored.
        """
        table = torch.full((256,), IGNORE_INDEX, dtype=torch.int64)
        for value, class_id in self.class_of_raw.items():
            table[value] = class_id
        return table.to(raw.device)[raw.long()]

    def strangers(self, raw: Tensor) -> dict[int, int]:
        """Raw values that are neither a class nor void, and their number of pixels.

        Args:
            raw: Integer tensor of any shape, values 0..255.

        Example:
            >>> colours = ((0, 0, 255), (90, 90, 90))
            >>> taxonomy = Taxonomy("two", ("sky", "road"), colours, {1: 0, 2: 1}, void=frozenset({0}))
            >>> taxonomy.strangers(torch.tensor([0, 1, 7, 7, 255]))
            {7: 2, 255: 1}
        """
        counts = torch.bincount(raw.flatten().long(), minlength=256).tolist()
        return {
            value: count
            for value, count in enumerate(counts)
            if count and value not in self.class_of_raw and value not in self.void
        }


def in_words(pixels_of_value: Mapping[int, int], limit: int = 8) -> str:
    """Values with their numbers of pixels, the first few of them.

    Example:
        >>> in_words({7: 2, 255: 1})
        '7 (2 pixels), 255 (1 pixel)'
    """
    words = [f"{value} ({count} pixel{'s' * (count != 1)})" for value, count in pixels_of_value.items()]
    more = f" and {len(words) - limit} more values" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more


def bit_palette(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct colours for classes that come without their own: the bit-reversed scheme of PASCAL VOC.

    Example:
        >>> bit_palette(4)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """

    def channel(index: int, offset: int) -> int:
        return sum(((index >> (3 * bit + offset)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(num_colours))
