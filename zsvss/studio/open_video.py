"""One video on the page: being segmented, or open to be annotated; what is known of it as plain values.

A video is opened when it is first looked at. Ids in the page are those of the masks' files; ``merged`` says what they
have become, so that a merge needs no new masks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from zsvss.results.atomic_files import file_stem
from zsvss.results.predictions import Predictions
from zsvss.studio.background_work import Work
from zsvss.studio.live_segmentation import Live
from zsvss.studio.model import Model
from zsvss.studio.saving import EXPORTING, clear, put_in_place, save, write_annotation
from zsvss.studio.session import ConflictError, Session, color_of

UNCHANGED = "original"


class Desk:
    """A video of the studio.

    Args:
        name: of the video.
        folder: of its predictions.
        root: where exports are written to.
        live: the video while it is being segmented.
    """

    def __init__(self, name: str, folder: Path, root: Path, live: Live | None = None) -> None:
        self.name, self.folder, self.root, self.live = name, folder, root, live
        self.work: Work | None = None
        self._session: Session | None = None
        self._lock = threading.RLock()

    @property
    def is_live(self) -> bool:
        """Whether it is still being segmented."""
        return self._session is None and self.live is not None and not self.live.is_done

    def session(self) -> Session:
        """The annotation; opened by the first call.

        Raises:
            ConflictError: the video is still being segmented.
            ValueError: it cannot be opened.
        """
        with self._lock:
            if self._session is None:
                if self.is_live:
                    raise ConflictError("the video is still being segmented")
                session = Session(self.folder)
                try:
                    put_in_place(session)
                except BaseException:
                    session.close()
                    raise
                self._session = session
                if self.live is not None:
                    self.live.frames.close()
            return self._session

    def close(self) -> None:
        """Let it go."""
        if self.work is not None:
            self.work.stopping.set()
        if self._session is not None:
            self._session.close()
        elif self.live is not None:
            self.live.frames.close()

    def pulse(self) -> list[Any]:
        """What changes whenever the page has something to ask for."""
        work = self.work and [self.work.what, self.work.done, self.work.error, self.work.finished.is_set()]
        if self.is_live:
            assert self.live is not None
            return ["live", self.live.look(), self.live.segmenting.is_running]
        return ["open", self._session.revision if self._session else -1, work]

    def facts(self) -> dict[str, Any]:
        """What stays as it is while the page is open."""
        if self.is_live:
            assert self.live is not None
            (height, width), fps, num_frames = self.live.size, self.live.fps, len(self.live.frame_names)
            return {
                "name": self.name, "live": True, "height": height, "width": width, "fps": fps,
                "num_frames": num_frames, "areas": [], "classes": [],
            }  # fmt: skip
        original = self.session().original
        areas: list[list[list[int]]] = [[] for _ in range(original.num_frames)]
        for segment in original.segments:
            for frame, area in zip(segment.frames.tolist(), segment.areas.tolist(), strict=True):
                areas[frame].append([segment.id, area])
        return {
            "name": self.name,
            "live": False,
            "height": original.height,
            "width": original.width,
            "fps": original.source.fps,
            "num_frames": original.num_frames,
            "areas": areas,
            "classes": [entry.name for entry in original.classes],
            "complete": original.complete,
            "video_length": original.video_length,
        }

    def now(self) -> dict[str, Any]:
        """What steps have changed."""
        if self.is_live:
            return self._now_live()
        session = self.session()
        with session.lock:
            state, history = session.state, session.history
            saved = [entry["number"] for entry in session.journal.entries if entry["op"] == "saved"]
            return {
                "live": None,
                "revision": session.revision,
                "segments": [segment._asdict() for segment in session.segments()],
                "named": sorted(state.names),
                "merged": {number: state.root(number) for number in state.merged},
                "frames": {
                    number: {"version": frame.file, "areas": sorted(frame.areas.items()), "corrected": frame.corrected}
                    for number, frame in state.frames.items()
                },
                "given": state.given,
                "accepted": sorted(state.accepted),
                "undo": history.done[-1].label if history.done else None,
                "redo": history.undone[-1].label if history.undone else None,
                "saved": session.revision == (saved[-1] if saved else 0),
                "work": self._work(),
            }

    def mask(self, number: int, version: str) -> bytes:
        """File of a frame's mask.

        Args:
            number: of the frame.
            version: that `now` gave.

        Raises:
            ConflictError: the frame has another version by now.
            OSError: the file is not there.
        """
        if self.is_live:
            assert self.live is not None
            _check_version(number, version, UNCHANGED)
            return self.live.mask_path(number).read_bytes()
        session = self.session()
        with session.lock:  # no step comes between the check and the file
            changed = session.state.frames.get(number)
            _check_version(number, version, changed.file if changed else UNCHANGED)
            return session.mask_path(number).read_bytes()

    def jpeg(self, number: int) -> bytes:
        """A frame as a JPEG file."""
        if self.is_live:
            assert self.live is not None
            return self.live.frames.jpeg(number)
        return self.session().frames.jpeg(number)

    def num_frames(self) -> int:
        """Frames that can be shown."""
        if self.is_live:
            assert self.live is not None
            return len(self.live.frame_names)
        return self.session().original.num_frames

    def start(self, revision: int, prepare: Callable[[Session], tuple[Work, Callable[[], None]]], model: Model) -> None:
        """Begin something that is computed; raises what `Session.perform` raises, and `prepare`."""
        session = self.session()
        with session.lock:
            session.check(revision)
            work, run = prepare(session)
            session.busy = work.what
            self.work = work
        model.submit(run)

    @contextmanager
    def _occupied(self, what: str, revision: int) -> Iterator[tuple[Session, Callable[[int], None]]]:
        """While this lasts, the annotation can be looked at and not changed.

        Yields:
            the annotation, and what is to be told how many frames are done.
        """
        session = self.session()
        with session.lock:
            session.check(revision)
            work = self.work = Work(what, session.original.num_frames)
            session.busy = what
        try:
            yield session, partial(setattr, work, "done")
        finally:
            session.busy = None
            work.finished.set()

    def save(self, revision: int) -> None:
        """Write the annotation into the run; raises what `Session.perform` and `save` raise."""
        with self._occupied("saving", revision) as (session, progress):
            save(session, progress)

    def export(self, revision: int, name: str, *, with_frames: bool) -> dict[str, Any]:
        """Export the annotation as it is, saved or not; returns the folder and what to know of it.

        Raises:
            ExportError: the format cannot hold it, or a library is missing.
        """
        # Here: a format's libraries are read when it is asked for.
        from zsvss.results.exports.base import Options
        from zsvss.results.exports.writing import check_format, export

        check_format(name)
        with self._occupied("export", revision) as (session, progress):
            written = session.place / EXPORTING
            try:
                clear(written)
                write_annotation(session, written, progress)
                folder = _free(self.root / "exports" / f"{file_stem(self.name)}-{name}")
                exporter = export(name, [Predictions.read(written)], folder, Options(frames=with_frames))
            finally:
                clear(written)
        return {"folder": str(folder), "notes": exporter.notes}

    def score(self, revision: int) -> dict[str, Any]:
        """The run's own predictions against the frames that hold the truth; raises what `score` raises."""
        from zsvss.studio.scoring import score  # its library takes seconds to import, and few score

        with self._occupied("score", revision) as (session, progress):
            return score(session, progress)

    def _work(self) -> dict[str, Any] | None:
        work = self.work
        if work is None:
            return None
        finished = work.finished.is_set()
        return {"what": work.what, "done": work.done, "total": work.total, "error": work.error, "finished": finished}

    def _now_live(self) -> dict[str, Any]:
        live = self.live
        assert live is not None
        done = live.look()
        numbers = sorted({segment for areas in live.areas for segment in areas})
        problem = live.segmenting.problem
        if problem is None and not live.segmenting.is_running and not live.is_done:
            problem = "the run has ended without this video"
        return {
            "live": {"done": done, "total": len(live.frame_names), "problem": problem},
            "revision": 0,
            "segments": [{"id": n, "name": f"segment {n}", "color": color_of(n)} for n in numbers],
            "named": [], "merged": {}, "given": [], "accepted": [], "undo": None, "redo": None, "saved": True,
            "frames": {
                number: {"version": UNCHANGED, "areas": sorted(areas.items()), "corrected": False}
                for number, areas in enumerate(live.areas)
            },
            "work": None,
        }  # fmt: skip


def _check_version(number: int, wanted: str, present: str) -> None:
    if wanted != present:
        raise ConflictError(f"the mask of frame {number + 1} is {present}, not {wanted}; ask for the state again")


def _free(folder: Path) -> Path:
    """This folder, or the same with a number after its name, that is not there yet."""
    candidates = (folder, *(folder.with_name(f"{folder.name}-{number}") for number in range(2, 10_000)))
    return next(candidate for candidate in candidates if not candidate.exists())
