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


def bit_palette(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct colours for classes that come without their own: the bit-reversed scheme of PASCAL VOC.

    Example:
        >>> bit_palette(4)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """

    def channel(index: int, offset: int) -> int:
        return sum(((index >> (3 * bit + offset)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(num_colours))
