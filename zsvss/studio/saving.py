"""Names and masks written back into a run, so that whatever reads predictions reads the annotation.

The first time, the predictions as the run left them are kept below ``studio/original``. What is to be saved is written
beside the old files and then put in their place; if that is interrupted, it is finished when the studio opens again.

Shapes: H W pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zsvss.results.atomic_files import flush, write_atomically
from zsvss.results.id_images import write_ids
from zsvss.results.predictions import FILE, Predictions, read_json
from zsvss.results.segment_table import SegmentTable, json_pieces, measure
from zsvss.studio.journal import JournalError
from zsvss.studio.session import ORIGINAL, ORIGINAL_FILE, Session, digest_of
from zsvss.viz.browser_video import BrowserVideo
from zsvss.viz.captions import Captions
from zsvss.viz.overlay import overlay

EXPORTING = "exporting"
"""Where an annotation is written to be exported."""
_NEW, _OLD = "saving", "masks.old"
_OVERLAY = "overlay.mp4"
_MASKS = "masks"

Progress = Callable[[int], None]


def save(session: Session, progress: Progress = lambda done: None) -> None:
    """Put an annotation in the place of its run's predictions.

    Args:
        session: the annotation.
        progress: told how many frames are written.

    Raises:
        OSError: the disk is full; the predictions are as they were.
        ValueError: a mask or a frame cannot be read.
    """
    new = session.place / _NEW
    clear(new)
    write_annotation(session, new, progress, with_overlay=session.original.overlay_alpha is not None)
    original = session.place / ORIGINAL
    if not original.exists():
        partial = session.place / f"{ORIGINAL}.partial"
        clear(partial)
        (partial / _MASKS).mkdir(parents=True)
        _keep(session.folder / FILE, partial / ORIGINAL_FILE)
        for name in session.original.mask_files or ():
            _keep(session.folder / name, partial / name)
        flush(partial)
        partial.rename(original)
        with session.lock:  # whoever reads a mask has its path from there
            session.original = Predictions.read(original, ORIGINAL_FILE)
    flush(new)
    flush(session.place, below=False)  # the names of both folders
    with session.lock:  # from here on, the save is finished whatever happens
        session.journal.append({"op": "saved", "predictions": digest_of(new / FILE)})
    put_in_place(session)


def put_in_place(session: Session) -> None:
    """Finish a save, or take away one that was not complete, and what an export has left.

    Raises:
        JournalError: the run's predictions are neither the original ones nor those that were saved last.
    """
    new, folder = session.place / _NEW, session.folder
    saved = [entry["predictions"] for entry in session.journal.entries if entry["op"] == "saved"]
    wanted = saved[-1] if saved else digest_of_original(session)
    if (new / FILE).exists() and digest_of(new / FILE) == wanted:
        if (new / _MASKS).exists():
            if (folder / _MASKS).exists():
                (folder / _MASKS).rename(new / _OLD)
            (new / _MASKS).rename(folder / _MASKS)
        if (new / _OVERLAY).exists():
            (new / _OVERLAY).replace(folder / _OVERLAY)
        (new / FILE).replace(folder / FILE)
        flush(new, below=False)
        flush(folder, below=False)
    clear(new)
    clear(session.place / EXPORTING)
    if not (folder / FILE).exists() or digest_of(folder / FILE) != wanted:
        raise JournalError(
            f"{folder / FILE} is not what was saved there: the run was computed again, or another tool has changed it. "
            f"Move {session.place} away to annotate what is there now"
        )


def clear(folder: Path) -> None:
    """Remove a folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def _keep(path: Path, copy: Path) -> None:
    """Keep a file by a second name; where the disk has none, by a copy."""
    try:
        os.link(path, copy)
    except OSError:
        shutil.copyfile(path, copy)


def digest_of_original(session: Session) -> str:
    """SHA-256 of the predictions that the annotation began with."""
    kept = session.place / ORIGINAL / ORIGINAL_FILE
    return digest_of(kept if kept.exists() else session.folder / FILE)


def write_annotation(
    session: Session, folder: Path, progress: Progress = lambda done: None, *, with_overlay: bool = False
) -> None:
    """Write an annotation as predictions: ``segments.json`` and masks.

    Args:
        session: the annotation.
        folder: to write into; made anew.
        progress: told how many frames are written.
        with_overlay: write the overlay video as well.
    """
    original, colors = session.original, session.colors()
    assert original.mask_files is not None
    (folder / _MASKS).mkdir(parents=True)
    shown = {segment.id: segment for segment in session.segments()}
    table = SegmentTable()
    movie = _Overlay(session, folder / _OVERLAY, colors) if with_overlay else None
    for number, name in enumerate(original.mask_files):
        ids_HW = session.mask(number)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_ids(folder / name, ids_HW, colors)
        measured = measure(ids_HW)
        table.add(number, measured)
        if movie is not None:
            movie.write(number, ids_HW)
        progress(number + 1)
    if movie is not None:
        movie.close()
    class_ids = {entry.name: entry.id for entry in original.classes}
    segments: list[Mapping[str, Any]] = [
        {
            "id": number,
            "name": shown[number].name,
            "class_id": class_ids.get(shown[number].name),
            "color": list(shown[number].color),
        }
        for number in table.ids
    ]
    write_atomically(folder / FILE, json_pieces(_header(session), segments, table))
    table.close()
    json.loads((folder / FILE).read_text(encoding="utf-8"))  # before it takes the place of anything


def _header(session: Session) -> dict[str, Any]:
    """All of ``segments.json`` but the segments: as it was, and which frames hold the truth."""
    kept = session.original.folder / (ORIGINAL_FILE if session.original.folder.name == ORIGINAL else FILE)
    header = {key: value for key, value in read_json(kept).items() if key != "segments"}
    state = session.state
    if state.names or state.merged or state.added:
        header["labels"] = "clusters"  # an id says nothing of its class any more; `class_id` does
    return header | {"annotated": {"given": state.given, "accepted": sorted(state.accepted)}}


class _Overlay:
    """The overlay video of an annotation."""

    def __init__(self, session: Session, path: Path, colors: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        original = session.original
        self._frames, self._colors = session.frames, colors[1:]
        self._alpha = 0.5 if original.overlay_alpha is None else original.overlay_alpha
        self._movie = BrowserVideo(path, source=self._frames.facts())
        names = {segment.id: segment.name for segment in session.segments() if segment.id in session.state.names}
        self._captions = Captions((original.height, original.width), self._colors, names)

    def write(self, number: int, ids_HW: np.ndarray[Any, np.dtype[np.int32]]) -> None:
        """Append a frame."""
        image_HW3 = overlay(self._frames.read(number), ids_HW - 1, self._colors, self._alpha)
        self._movie.write(self._captions.draw(image_HW3, ids_HW, measure(ids_HW)))

    def close(self) -> None:
        """Finish the file."""
        self._movie.close()
