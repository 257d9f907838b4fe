"""Ids written on the segments of a frame, and a legend below it.

Shapes: H W pixels; 3 is RGB, 4 with opacity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from zsvss.results.segment_colors import UInt8
from zsvss.results.segment_table import Measured

_INK, _PAPER = (240, 240, 240), (24, 24, 24)
_SHARE_OF_LEGEND = 4  # of the frame's height at most a quarter
_STAYS = 0.6  # a caption stays where it is while it has so much of the room that the best place has


class Captions:
    """Writes each segment's id where it has most room, and below the frames a legend of the shot's segments so far.

    A caption stays where it was in the frame before while there is room. All frames get a legend of the same height.

    Args:
        size: height and width of the frames.
        colors: uint8 RGB of the ids 1, 2, ..., ``[any, 3]``; they repeat.
        names: what the legend says of an id beside its number; nothing of those that are absent.
    """

    def __init__(self, size: tuple[int, int], colors: UInt8, names: Mapping[int, str] | None = None) -> None:
        self.height, self.width = size
        self.colors, self.names = colors, dict(names or {})
        self.text_height = max(9, min(26, self.height // 26))
        self._places: dict[int, tuple[int, int]] = {}
        self._seen: dict[int, None] = {}  # in the order in which they appeared
        self._shot: int | None = None
        self._num_rows: int | None = None
        self._legend: tuple[tuple[int | None, int, tuple[int, ...]], UInt8] | None = None

    def draw(
        self,
        image_HW3: UInt8,
        ids_HW: npt.NDArray[np.integer],
        measured: Sequence[Measured],
        new_shot: int | None = None,
    ) -> UInt8:
        """A frame with captions and legend.

        Args:
            image_HW3: uint8 RGB; not changed.
            ids_HW: its segments' ids.
            measured: what `measure` says of them.
            new_shot: number of a shot that begins, which is told in the upper left corner.

        Returns:
            uint8 RGB; as wide as the frame and higher by the legend.
        """
        image_HW3 = image_HW3.copy()
        if new_shot not in (None, self._shot):
            self._places, self._seen, self._shot = {}, {}, new_shot
        for segment in measured:
            if (place := self._place(ids_HW, segment)) is not None:
                _paste(image_HW3, _stamp(str(segment.id), self.text_height), place)
        if new_shot is not None:
            stamp_hw4 = _stamp(f"shot {new_shot}", self.text_height)
            margin = self.text_height // 2
            _paste(image_HW3, stamp_hw4, (margin + stamp_hw4.shape[1] // 2, margin + stamp_hw4.shape[0] // 2))
        present = tuple(segment.id for segment in measured)
        self._seen |= dict.fromkeys(present)
        self._places = {segment: place for segment, place in self._places.items() if segment in present}
        return np.concatenate([image_HW3, self._legend_of(present)])

    @property
    def state(self) -> tuple[dict[int, tuple[int, int]], list[int], int | None, int | None]:
        """Where captions stand, the shot's segments, the legend's rows, the shot: what the next frame depends on."""
        return dict(self._places), list(self._seen), self._num_rows, self._shot

    @state.setter
    def state(self, state: tuple[dict[int, tuple[int, int]], list[int], int | None, int | None]) -> None:
        self._places, self._seen = dict(state[0]), dict.fromkeys(state[1])
        self._num_rows, self._shot = state[2:]

    def _place(self, ids_HW: npt.NDArray[np.integer], segment: Measured) -> tuple[int, int] | None:
        """Centre (x, y) of a segment's caption; None where there is no room for it."""
        x, y, width, height = segment.box
        step = max(1, max(width, height) // 96)
        mask_hw = (ids_HW[y : y + height : step, x : x + width : step] == segment.id).astype(np.uint8)
        room_hw = cv2.distanceTransform(np.pad(mask_hw, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, column = np.unravel_index(int(room_hw.argmax()), room_hw.shape)
        best = float(room_hw[row, column])
        if best * step < self.text_height / 2:
            self._places.pop(segment.id, None)
            return None
        chosen = x + int(column) * step, y + int(row) * step
        if (before := self._places.get(segment.id)) is not None:
            across, down = (before[0] - x) // step, (before[1] - y) // step
            inside = 0 <= down < room_hw.shape[0] and 0 <= across < room_hw.shape[1]
            if inside and room_hw[down, across] >= _STAYS * best:
                chosen = before
        self._places[segment.id] = chosen
        return chosen

    def _legend_of(self, present: tuple[int, ...]) -> UInt8:
        state = self._shot, len(self._seen), present
        if self._legend is None or self._legend[0] != state:
            self._legend = state, self._draw_legend(present)
        return self._legend[1]

    def _draw_legend(self, present: tuple[int, ...]) -> UInt8:
        font = _font(self.text_height)
        line = round(1.6 * self.text_height)
        places = self._layout(font, line)
        if self._num_rows is None:
            # One row more than the first frame needs, for what appears later.
            needed = 1 + max((row for _, _, row in places), default=0)
            self._num_rows = max(1, min(needed + 1, self.height // _SHARE_OF_LEGEND // line))
        strip = Image.new("RGB", (self.width, line * self._num_rows), _PAPER)
        draw = ImageDraw.Draw(strip)
        shown = [place for place in places if place[2] < self._num_rows]
        for segment, left, row in shown:
            strength = 1.0 if segment in present else 0.35
            top = row * line + (line - self.text_height) // 2
            color = tuple(int(c) for c in self.colors[(segment - 1) % len(self.colors)])
            draw.rectangle(
                (left, top, left + self.text_height - 1, top + self.text_height - 1),
                fill=_faded(color, strength),
                outline=_faded(_INK, strength / 2),
            )
            draw.text(
                (left + 1.4 * self.text_height, row * line + line / 2),
                self._entry(segment), font=font, fill=_faded(_INK, strength), anchor="lm",
            )  # fmt: skip
        if len(shown) < len(self._seen):
            note = f" +{len(self._seen) - len(shown)} "
            spot = (self.width - 1, line * self._num_rows - line / 2)
            draw.rectangle(draw.textbbox(spot, note, font=font, anchor="rm"), fill=_PAPER)
            draw.text(spot, note, font=font, fill=_INK, anchor="rm")
        return np.asarray(strip)

    def _entry(self, segment: int) -> str:
        return f"{segment} {self.names[segment]}" if segment in self.names else str(segment)

    def _layout(self, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, line: int) -> list[tuple[int, int, int]]:
        """Id, left edge and row of each entry, in the order in which the segments appeared."""
        places, left, row = [], line // 3, 0
        for segment in self._seen:
            width = round(2.6 * self.text_height + font.getlength(self._entry(segment)))
            if left + width > self.width and left > line // 3:
                left, row = line // 3, row + 1
                if self._num_rows is not None and row >= self._num_rows:
                    break  # however many there are, only those that fit are drawn
            places.append((segment, left, row))
            left += width
        return places


@cache
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=height)


@lru_cache(maxsize=512)
def _stamp(text: str, height: int) -> UInt8:
    """A caption, white with a black rim, uint8 RGB and opacity ``[H, W, 4]``."""
    rim = max(1, height // 8)
    font = _font(height)
    left, top, right, bottom = font.getbbox(text, stroke_width=rim)
    image = Image.new("RGBA", (round(right - left) + 2, round(bottom - top) + 2), (0, 0, 0, 0))
    ImageDraw.Draw(image).text(
        (1 - left, 1 - top), text, font=font, fill=(255, 255, 255, 255), stroke_width=rim, stroke_fill=(0, 0, 0, 255)
    )
    return np.asarray(image)


def _paste(image_HW3: UInt8, stamp_hw4: UInt8, centre: tuple[int, int]) -> None:
    """Blend a caption into an image, as far as it lies inside."""
    height, width = stamp_hw4.shape[:2]
    left, top = centre[0] - width // 2, centre[1] - height // 2
    right, bottom = min(left + width, image_HW3.shape[1]), min(top + height, image_HW3.shape[0])
    part = stamp_hw4[max(0, -top) : bottom - top, max(0, -left) : right - left].astype(np.uint16)
    there = image_HW3[max(0, top) : bottom, max(0, left) : right]
    opacity = part[..., 3:]
    there[:] = ((part[..., :3] * opacity + there * (255 - opacity)) // 255).astype(np.uint8)


def _faded(color: Sequence[int], strength: float) -> tuple[int, ...]:
    return tuple(round(paper + (ink - paper) * strength) for ink, paper in zip(color, _PAPER, strict=True))
