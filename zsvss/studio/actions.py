"""The steps that a page may ask for: from a request's fields to entries of the journal.

Each function takes the session and the fields, and returns entries; it changes nothing but that it may write the file
of a new mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zsvss.results.predictions import Ids
from zsvss.studio.editing import Mask, Stroke, region
from zsvss.studio.journal import Entry
from zsvss.studio.request_fields import FieldError, Fields
from zsvss.studio.session import Session

MOST_POINTS = 4000
LARGEST_RADIUS = 500.0

Action = Callable[[Session, Fields], Sequence[Entry]]


def name(session: Session, fields: Fields) -> list[Entry]:
    """Name segments: those of one name are one class."""
    return [{"op": "name", "segments": _segments(session, fields), "name": fields.name("name")}]


def merge(session: Session, fields: Fields) -> list[Entry]:
    """Make several segments one, in all frames."""
    segments, into = _segments(session, fields), fields.integer("into", 1, 2**31)
    if into not in segments or len(segments) < 2:
        raise FieldError(f"segments are {segments} and into is {into}; give two or more segments, one of which stays")
    return [{"op": "merge", "segments": [segment for segment in segments if segment != into], "into": into}]


def delete(session: Session, fields: Fields) -> list[Entry]:
    """Take segments away, in all frames; none of these may be accepted."""
    segments = _segments(session, fields)
    for number in sorted(session.state.accepted):
        if not set(segments).isdisjoint(session.areas(number)):
            raise FieldError(f"frame {number + 1} is accepted and shows what you would delete; open it again first")
    return [{"op": "delete", "segments": segments}]


def brush(session: Session, fields: Fields) -> list[Entry]:
    """Paint a segment, or nothing (segment 0), with a brush whose border may snap to borders of colour."""
    number, segment = _frame(session, fields), _segment_or_nothing(session, fields, "segment")
    height, width = session.original.height, session.original.width
    stroke = Stroke(
        fields.points("points", MOST_POINTS, width, height),
        fields.number("radius", 0.5, LARGEST_RADIUS),
        fields.flag("snaps"),
    )
    ids_HW = session.mask(number)
    covered_HW = stroke.pixels(session.frames.read(number))
    if segment == 0 and (only := fields.integer("only", 0, 2**31)):
        covered_HW &= ids_HW == only
    return _painted(session, number, ids_HW, covered_HW, segment)


def fill(session: Session, fields: Fields) -> list[Entry]:
    """Give a connected region to a segment, or to nothing."""
    number, segment = _frame(session, fields), _segment_or_nothing(session, fields, "segment")
    x = fields.integer("x", 0, session.original.width - 1)
    y = fields.integer("y", 0, session.original.height - 1)
    ids_HW = session.mask(number)
    return _painted(session, number, ids_HW, region(ids_HW, x, y), segment)


def accept(session: Session, fields: Fields) -> list[Entry]:
    """Lock a frame as it is, or open it again."""
    number = fields.integer("frame", 0, session.original.num_frames - 1)
    accepted = fields.flag("accepted")
    if accepted == (number in session.state.accepted):
        raise FieldError(f"frame {number + 1} is {'' if accepted else 'not '}accepted already")
    return [{"op": "accept", "frame": number, "accepted": accepted}]


def release(session: Session, fields: Fields) -> list[Entry]:
    """Let the next propagation change a frame that was corrected; its mask stays until then."""
    number = _frame(session, fields)
    if number not in session.state.given:
        raise FieldError(f"frame {number + 1} was not corrected, so there is nothing to give back")
    return [{"op": "release", "frame": number}]


def add(session: Session, fields: Fields) -> list[Entry]:
    """Open a new segment, which is nowhere until it is painted."""
    (segment,) = session.new_ids(1)
    return [{"op": "add", "segment": segment, "parent": 0}]


ACTIONS: Mapping[str, tuple[str, Action]] = {
    "name": ("name", name),
    "merge": ("merge", merge),
    "delete": ("delete", delete),
    "brush": ("brush", brush),
    "fill": ("fill", fill),
    "accept": ("accept", accept),
    "release": ("give back", release),
    "add": ("new segment", add),
}
"""Of each step: what people call it, and what makes its entries."""


def _painted(session: Session, number: int, ids_HW: Ids, covered_HW: Mask, segment: int) -> list[Entry]:
    painted_HW = np.where(covered_HW, np.int32(segment), ids_HW)
    if np.array_equal(painted_HW, ids_HW):
        raise FieldError("nothing would change there")
    return [session.new_mask(number, painted_HW, corrected=True)]


def _frame(session: Session, fields: Fields) -> int:
    """Number of a frame that may be changed."""
    number = fields.integer("frame", 0, session.original.num_frames - 1)
    if number in session.state.accepted:
        raise FieldError(f"frame {number + 1} is accepted; open it again to change it")
    return number


def _segments(session: Session, fields: Fields) -> list[int]:
    known = {segment.id for segment in session.segments()}
    segments = fields.integers("segments", 10_000)
    if unknown := sorted(set(segments) - known):
        raise FieldError(f"there is no segment {', '.join(map(str, unknown))}")
    return segments


def _segment_or_nothing(session: Session, fields: Fields, field: str) -> int:
    segment = fields.integer(field, 0, 2**31)
    if segment and segment not in {shown.id for shown in session.segments()}:
        raise FieldError(f"there is no segment {segment}")
    return segment
