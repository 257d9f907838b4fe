"""What takes longer than a click: propagating corrections and splitting segments through a video, frame by frame.

Each frame is written down as soon as it is computed, so that a crash keeps what was done. All belongs to one step,
which is undone at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from zsvss.results.predictions import Ids
from zsvss.studio.journal import Entry
from zsvss.studio.model import MOST_GIVEN, Model
from zsvss.studio.request_fields import FieldError
from zsvss.studio.session import Session

_log = logging.getLogger(__name__)

MOST_PARTS = 12


@dataclass
class Work:
    """Something that is being computed.

    Attributes:
        what: for people.
        total: frames to compute.
        done: frames that are computed.
        error: what went wrong, if anything did.
        stopping: set to stop after the next frame.
    """

    what: str
    total: int
    done: int = 0
    error: str | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


def propagation(session: Session, model: Model, number: int, *, backwards: bool) -> tuple[Work, Callable[[], None]]:
    """Prepare to label the frames after the last given one, up to the next given one or the end.

    Args:
        session: the annotation.
        model: computes it.
        number: of the frame that is shown; the given frame at or before it is where the propagation begins.
        backwards: go to the beginning in place of the end, from the given frame at or after it.

    Returns:
        the work, and what does it in the model's thread.

    Raises:
        FieldError: no frame there was corrected or accepted, or there is none to label.
    """
    given, num_frames = session.state.given, session.original.num_frames
    begins = [frame for frame in given if (frame >= number if backwards else frame <= number)]
    if not begins:
        where = "at or after" if backwards else "at or before"
        raise FieldError(
            f"no frame {where} {number + 1} was corrected or accepted; correct one, or accept one that is right"
        )
    start = begins[0] if backwards else begins[-1]
    ahead = range(start - 1, -1, -1) if backwards else range(start + 1, num_frames)
    numbers = []
    for frame in ahead:
        if frame in given:
            break
        numbers.append(frame)
    if not numbers:
        raise FieldError(f"frame {start + 1} has no neighbour that could be labelled from it")
    # The nearest ones last; of many these alone count, so no others are read.
    order = sorted(given, key=lambda frame: (frame == start, -abs(frame - start)))[-MOST_GIVEN:]
    work = Work("propagation", len(numbers))

    def frames() -> Iterator[Entry]:
        masks = {frame: session.mask(frame) for frame in order}
        for frame, ids_HW in model.propagate(session.frames, num_frames, masks, numbers):
            yield session.new_mask(frame, ids_HW, corrected=False)

    return work, lambda: _run(session, work, [], frames())


def split(session: Session, model: Model, number: int, segment: int, num: int) -> tuple[Work, Callable[[], None]]:
    """Prepare to split a segment into parts that look different, in all frames but those that are accepted.

    Args:
        session: the annotation.
        model: computes it.
        number: of the frame whose clusters the parts are.
        segment: to split.
        num: of parts; one of them keeps the segment's id.

    Returns:
        the work, and what does it in the model's thread.
    """
    here = session.mask(number) == segment
    if not here.any():
        raise FieldError(f"segment {segment} is not in frame {number + 1}")
    accepted = session.state.accepted
    numbers = [number]
    numbers += [
        frame
        for frame in range(session.original.num_frames)
        if frame != number and segment in session.areas(frame) and frame not in accepted
    ]
    if number in accepted:
        raise FieldError(f"frame {number + 1} is accepted; open it again to change it")
    new = session.new_ids(num - 1)
    ids_K = np.array([segment, *new], np.int32)
    work = Work("split", len(numbers))

    def frames() -> Iterator[Entry]:
        centers_Kc = model.centers(session.frames, session.original.num_frames, number, here, num)
        for frame in numbers:
            ids_HW = session.mask(frame)
            parts_HW = model.parts(session.frames, session.original.num_frames, frame, centers_Kc)
            yield session.new_mask(frame, np.where(ids_HW == segment, ids_K[parts_HW], ids_HW), corrected=False)

    added = [{"op": "add", "segment": number, "parent": segment} for number in new]
    return work, lambda: _run(session, work, added, frames())


def split_preview(session: Session, model: Model, number: int, segment: int, num: int) -> Ids:
    """Part 1..K of each pixel of a segment in one frame, int32 ``[H, W]``; 0 outside it. For the model's thread.

    Raises:
        FieldError: the segment is not in the frame.
        ModelError: it is too small there.
    """
    inside_HW = session.mask(number) == segment
    if not inside_HW.any():
        raise FieldError(f"segment {segment} is not in frame {number + 1}")
    num_frames = session.original.num_frames
    centers_Kc = model.centers(session.frames, num_frames, number, inside_HW, num)
    parts_HW = model.parts(session.frames, num_frames, number, centers_Kc)
    return np.where(inside_HW, parts_HW + 1, 0).astype(np.int32)


def _run(session: Session, work: Work, first: Sequence[Entry], frames: Iterator[Entry]) -> None:
    """Write down frame after frame; what goes wrong is told by the work, and what was done before stays."""
    step = session.new_step()
    try:
        for entry in frames:
            # The segments that a split opens come with its first frame: a split that fails leaves none behind.
            session.extend(step, work.what, [*first, entry])
            first = []
            work.done += 1
            if work.stopping.is_set():
                break
    except Exception as error:  # whatever it is, a person waits for it
        _log.debug("%s stopped", work.what, exc_info=True)
        work.error = f"{work.what} stopped: {str(error) or type(error).__name__}"
    finally:
        session.busy = None
        work.finished.set()
