"""Label maps whose borders were smoothed: resized with interpolation, or once saved as JPEG.

Classes cover areas; what interpolation or JPEG puts between two classes lies in thin lines and would be scored as
classes of its own.

Shapes: H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

# A label map of so many values is looked at; no benchmark's frame shows so many classes.
_MANY_VALUES = 40
_SHOWN = 3


class ValueCounts(NamedTuple):
    """Pixels of each value.

    Attributes:
        all_V: int64 [256], all pixels.
        solid_V: int64 [256], those in a square of 2x2 pixels of one value.
    """

    all_V: Counts
    solid_V: Counts

    @classmethod
    def of(cls, values_HW: NDArray[np.uint8]) -> ValueCounts:
        """Count one label map."""
        same_right = values_HW[:, :-1] == values_HW[:, 1:]
        same_below = values_HW[:-1] == values_HW[1:]
        squares = same_right[:-1] & same_right[1:] & same_below[:, :-1]
        solid_HW = np.zeros(values_HW.shape, dtype=bool)
        for rows in (slice(None, -1), slice(1, None)):
            for columns in (slice(None, -1), slice(1, None)):
                solid_HW[rows, columns] |= squares
        return cls(*(np.bincount(values.ravel(), minlength=256) for values in (values_HW, values_HW[solid_HW])))

    def __add__(self, other: object) -> ValueCounts:
        """Counts of both."""
        assert isinstance(other, ValueCounts)
        return ValueCounts(self.all_V + other.all_V, self.solid_V + other.solid_V)

    def noise(self, more_than: int) -> list[int]:
        """Values that lie mostly in thin lines of an image of areas, commonest first.

        Args:
            more_than: so many are none: small objects are thin too.

        Returns:
            empty unless they are the larger part of all values.
        """
        present_V = self.all_V > 0
        thin_V = present_V & (2 * self.solid_V < self.all_V)
        areas = 2 * self.solid_V.sum() >= self.all_V.sum()
        if not areas or thin_V.sum() <= more_than or 2 * thin_V.sum() <= present_V.sum():
            return []
        return sorted(np.flatnonzero(thin_V).tolist(), key=lambda value: -self.all_V[value])


def refuse_smoothed(path: Path, values_HW: NDArray[np.uint8]) -> None:
    """Refuse one label map of far more values than it shows areas.

    Raises:
        ValueError: naming the file, and what is wrong with it.
    """
    if np.count_nonzero(np.bincount(values_HW.ravel())) > _MANY_VALUES:
        counts = ValueCounts.of(values_HW)
        noise = counts.noise(more_than=_MANY_VALUES // 2)
        if noise:
            raise ValueError(smoothed(path, noise, counts))


def smoothed(path: Path, noise: list[int], counts: ValueCounts) -> str:
    """What to say of a label map with values that are noise."""
    shown = ", ".join(f"{value} ({counts.all_V[value]} pixels)" for value in noise[:_SHOWN])
    more = f" and {len(noise) - _SHOWN} more" if len(noise) > _SHOWN else ""
    return (
        f"{path}: the values {shown}{more} lie only along borders; the mask was resized with smoothing, or saved as "
        "JPEG, and this noise would be scored as classes. Use the original masks, or resize them by nearest neighbour"
    )
