"""What the page sends, field by field: anything that is not as it should be is refused by its name."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST_NAME = 100
# Control and format characters (directions that hide what a name says), halves of characters, private and unassigned.
_REFUSED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


class FieldError(ValueError):
    """A request that is not as it should be; names the field."""


class Fields:
    """The fields of a request.

    Args:
        content: of the request, as JSON has it.

    Raises:
        FieldError: it is no object; every method raises it where its field is missing or wrong.
    """

    def __init__(self, content: Any) -> None:
        if not isinstance(content, Mapping):
            raise FieldError(f"the request is {type(content).__name__}; an object is wanted")
        self._content = content

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._content

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number low..high."""
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise FieldError(f"{name} is {_short(value)}; allowed is a whole number {low}..{high}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """A number low..high."""
        value = self._value(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise FieldError(f"{name} is {_short(value)}; allowed is a number {low:g}..{high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise FieldError(f"{name} is {_short(value)}; allowed are true and false")
        return value

    def chosen(self, name: str, known: Mapping[str, Any]) -> str:
        """One of some words."""
        value = self._value(name)
        if not isinstance(value, str) or value not in known:
            raise FieldError(f"{name} is {_short(value)}; known: {', '.join(known)}")
        return value

    def name(self, name: str) -> str:
        """A name that people can read; see `clean_name`."""
        return clean_name(self._value(name), name)

    def integers(self, name: str, longest: int) -> list[int]:
        """One to so many whole numbers, each once."""
        value = self._value(name)
        whole = isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
        if not whole or not 1 <= len(value) <= longest or len(set(value)) != len(value):
            raise FieldError(f"{name} is {_short(value)}; allowed are 1 to {longest} different whole numbers")
        return list(value)

    def points(self, name: str, longest: int, width: int, height: int) -> npt.NDArray[np.float64]:
        """One to so many points in a frame or no farther beside it than its size; float64 ``[n, 2]`` of x and y."""
        value = self._value(name)
        if not isinstance(value, list) or not 1 <= len(value) <= longest:
            raise FieldError(f"{name} has {len(value) if isinstance(value, list) else 'no'} points; 1 to {longest}")
        for point in value:
            pair = isinstance(point, list) and len(point) == 2
            if not pair or not all(_is_number(one) for one in point):
                raise FieldError(f"{name} has {_short(point)}; a point is two numbers, x and y")
            if not (-width <= point[0] <= 2 * width and -height <= point[1] <= 2 * height):
                raise FieldError(f"{name} has {_short(point)}, which is far outside the frame of {width}x{height}")
        return np.array(value, dtype=np.float64)

    def _value(self, name: str) -> Any:
        if name not in self._content:
            raise FieldError(f"{name} is missing")
        return self._content[name]


def clean_name(value: Any, field: str = "name") -> str:
    r"""A name without spaces around it, in Unicode's composed form.

    Raises:
        FieldError: it is empty or too long, or has characters that nobody sees or that hide others.

    >>> clean_name(" cafe\u0301 ")
    'café'
    """
    if not isinstance(value, str):
        raise FieldError(f"{field} is {_short(value)}; a text is wanted")
    for character in value:
        if unicodedata.category(character) in _REFUSED:
            raise FieldError(f"{field} has the character U+{ord(character):04X}, which cannot be seen; leave it out")
    name = " ".join(unicodedata.normalize("NFC", value).split())
    if not 1 <= len(name) <= LONGEST_NAME:
        raise FieldError(f"{field} has {len(name)} characters; allowed are 1 to {LONGEST_NAME}")
    return name


def _is_number(value: Any) -> bool:
    """Whether it is a number that is not infinite; a whole one of JSON may be too large for a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
