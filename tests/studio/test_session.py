"""An annotation on disk: steps, undo, masks, saving into the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from predicted import predict
from studio_video import BANDS_THW, FRAMES_THW3, HEIGHT, LABELS_THW, NUM_FRAMES, WIDTH, open_desk, write_video

from zsvss.callbacks.video_predictions import Meaning
from zsvss.results.exports.writing import export
from zsvss.results.id_images import LARGEST_ID, write_ids
from zsvss.results.predictions import FILE, PredictedClass, Predictions, PredictionsError, find_predictions
from zsvss.results.segment_colors import BACKGROUND
from zsvss.studio.actions import ACTIONS
from zsvss.studio.background_work import propagation
from zsvss.studio.editing import Stroke
from zsvss.studio.journal import Journal, JournalError
from zsvss.studio.request_fields import FieldError, Fields
from zsvss.studio.saving import put_in_place, save, write_annotation
from zsvss.studio.scoring import score
from zsvss.studio.session import ConflictError, LockedError, Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_video(tmp_path)


@pytest.fixture
def session(folder: Path):
    session = Session(folder)
    yield session
    session.close()


def do(session: Session, step: str, **fields: object) -> None:
    label, action = ACTIONS[step]
    session.perform(session.revision, label, lambda session: action(session, Fields(fields)))


def brush(session: Session, frame: int, segment: int, points: list, radius: float = 4, **others: object) -> None:
    fields = {"points": points, "radius": radius, "snaps": False, "only": 0, **others}
    do(session, "brush", frame=frame, segment=segment, **fields)


def names(session: Session) -> dict[int, str]:
    return {segment.id: segment.name for segment in session.segments()}


def test_steps_are_a_fold_of_the_journal_and_can_be_taken_back(folder: Path, session: Session) -> None:
    do(session, "name", segments=[1, 2], name="water")
    do(session, "merge", segments=[2, 1], into=1)
    assert names(session) == {1: "water", 3: "segment 3"}
    np.testing.assert_array_equal(session.mask(3), np.array([0, 1, 1, 3])[LABELS_THW[3] + 1])
    do(session, "delete", segments=[3])
    assert session.areas(0) == {1: int((LABELS_THW[0] < 2).sum())}
    for _ in range(3):
        session.undo(session.revision)
    assert names(session) == {1: "segment 1", 2: "segment 2", 3: "segment 3"}
    np.testing.assert_array_equal(session.mask(3), LABELS_THW[3] + 1)
    with pytest.raises(ConflictError, match="nothing to undo"):
        session.undo(session.revision)
    session.redo(session.revision)
    session.redo(session.revision)
    revision = session.revision
    session.close()
    again = Session(folder)
    assert again.revision == revision
    assert names(again) == {1: "water", 3: "segment 3"}
    again.redo(again.revision)
    assert list(names(again)) == [1]
    again.undo(again.revision)
    do(again, "name", segments=[3], name="bank")
    with pytest.raises(ConflictError, match="nothing to redo"):
        again.redo(again.revision)
    again.close()


def test_segments_of_one_name_are_one_class_in_one_colour(session: Session) -> None:
    do(session, "name", segments=[1, 3], name="tree")
    first, second, third = session.segments()
    assert first.color == third.color != second.color


def test_a_stroke_is_the_points_within_its_radius(session: Session) -> None:
    brush(session, 2, 2, [[10, 50], [40, 50]], radius=5)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(np.maximum(np.maximum(10 - x, x - 40), 0), y - 50)
    painted = session.mask(2) == 2
    was = LABELS_THW[2] == 1
    assert painted[distance < 4].all()
    np.testing.assert_array_equal(painted[distance > 6], was[distance > 6])
    np.testing.assert_array_equal(session.mask(1), LABELS_THW[1] + 1)
    assert session.state.given == [2]
    assert session.areas(2) == {n: int((session.mask(2) == n).sum()) for n in (1, 2, 3)}


def test_borders_of_a_stroke_snap_to_those_of_colours() -> None:
    frame_HW3 = np.full((60, 80, 3), 60, np.uint8)
    frame_HW3[:, 40:] = (220, 60, 40)
    frame_HW3 += np.random.default_rng(0).integers(0, 6, frame_HW3.shape, np.uint8)
    points = np.array([[34.0, 15.0], [34.0, 45.0]])
    plain = Stroke(points, 8, snaps=False).pixels(frame_HW3)
    snapped = Stroke(points, 8).pixels(frame_HW3)
    assert plain[30, 40:42].all()
    np.testing.assert_array_equal(np.flatnonzero(snapped[30])[-1], 39)
    assert snapped[30, 30:40].all()
    assert snapped[20:41, 34].all()


def test_eraser_fill_and_new_segments(session: Session) -> None:
    brush(session, 0, 0, [[48, 16]], radius=6, only=1)  # on the border of 1 and 2
    assert set(np.unique(session.mask(0)[13:20, 45:52])) == {0, 2}
    do(session, "fill", frame=0, segment=2, x=48, y=12)
    assert (session.mask(0) == 0).sum() == 0
    do(session, "add")
    assert names(session)[4] == "segment 4"
    brush(session, 1, 4, [[20, 20]])
    session.undo(session.revision)
    session.undo(session.revision)
    do(session, "add")
    assert 5 in names(session), "an id that was taken back is not given again"


def test_accepted_frames_are_locked(session: Session) -> None:
    do(session, "accept", frame=2, accepted=True)
    assert session.state.given == [2]
    for act in (
        lambda: brush(session, 2, 1, [[10, 10]]),
        lambda: do(session, "fill", frame=2, segment=1, x=1, y=60),
        lambda: do(session, "delete", segments=[1]),
        lambda: do(session, "accept", frame=2, accepted=True),
    ):
        with pytest.raises(FieldError, match="accepted"):
            act()
    do(session, "accept", frame=2, accepted=False)
    brush(session, 2, 1, [[10, 60]])


def test_of_many_given_frames_the_nearest_alone_are_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zsvss.studio.background_work.MOST_GIVEN", 2)
    for frame in (0, 1, 3):
        do(session, "accept", frame=frame, accepted=True)
    asked: list[int] = []

    class Model:
        def propagate(self, frames: object, num_frames: int, given: dict, numbers: list) -> list:
            asked.extend(given)
            return []

    work, run = propagation(session, Model(), 4, backwards=False)
    run()
    assert work.error is None
    assert asked == [1, 3], "the one that it begins at is the last"


def test_a_corrected_frame_can_be_given_back(session: Session) -> None:
    with pytest.raises(FieldError, match="frame 3 was not corrected"):
        do(session, "release", frame=2)
    brush(session, 2, 1, [[10, 60]])
    painted = session.mask(2)
    do(session, "release", frame=2)
    assert session.state.given == []
    np.testing.assert_array_equal(session.mask(2), painted)
    session.undo(session.revision)
    assert session.state.given == [2]


@pytest.mark.parametrize(
    ("step", "fields", "says"),
    [
        ("name", {"segments": [1], "name": " "}, "name has 0 characters"),
        ("name", {"segments": [1], "name": "x" * 101}, "name has 101 characters"),
        ("name", {"segments": [1], "name": "a\u202eb"}, r"U\+202E"),
        ("name", {"segments": [1], "name": "a\x00"}, r"U\+0000"),
        ("name", {"segments": [1], "name": "\ud800"}, r"U\+D800"),
        ("name", {"segments": [9], "name": "x"}, "no segment 9"),
        ("name", {"segments": [], "name": "x"}, "segments is"),
        ("name", {"segments": [True], "name": "x"}, "segments is"),
        ("name", {"name": "x"}, "segments is missing"),
        ("merge", {"segments": [1, 2], "into": 3}, "one of which stays"),
        ("merge", {"segments": [1], "into": 1}, "two or more"),
        ("brush", {"frame": 99, "segment": 1}, "frame is 99; allowed is a whole number 0..5"),
        ("brush", {"frame": 0, "segment": 1, "points": [[1]], "radius": 3, "snaps": True}, "a point is two numbers"),
        ("brush", {"frame": 0, "segment": 1, "points": [[True, 0]], "radius": 3, "snaps": True}, "two numbers"),
        ("brush", {"frame": 0, "segment": 1, "points": [[10**400, 0]], "radius": 3, "snaps": True}, "far outside"),
        ("brush", {"frame": 0, "segment": 1, "points": [[1e9, 0]], "radius": 3, "snaps": True}, "far outside"),
        ("brush", {"frame": 0, "segment": 1, "points": [[float("nan"), 0]], "radius": 3, "snaps": True}, "two numbers"),
        ("brush", {"frame": 0, "segment": 1, "points": [[0, 0]] * 4001, "radius": 3, "snaps": True}, "4001 points"),
        ("brush", {"frame": 0, "segment": 1, "points": [[0, 0]], "radius": 1e9, "snaps": True}, "radius is"),
        ("brush", {"frame": 0, "segment": 1, "points": [[5, 5]], "radius": 1, "snaps": False}, "nothing would change"),
        ("fill", {"frame": 0, "segment": 1, "x": WIDTH, "y": 0}, "x is 96"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(session: Session, step, fields, says) -> None:
    with pytest.raises(FieldError, match=says):
        do(session, step, **fields)
    assert session.revision == 0


def test_names_are_composed(session: Session) -> None:
    do(session, "name", segments=[1], name="  cafe\u0301   bar ")
    assert names(session)[1] == "caf\u00e9 bar"


def test_a_second_studio_is_refused(folder: Path, session: Session) -> None:
    with pytest.raises(LockedError, match="open in another studio"):
        Session(folder)
    session.close()
    Session(folder).close()


def annotate(session: Session) -> None:
    do(session, "name", segments=[1], name="water")
    do(session, "merge", segments=[2, 3], into=2)
    do(session, "add")
    brush(session, 1, 4, [[20, 40], [60, 44]])


def test_saved_predictions_are_what_the_annotation_shows(folder: Path, session: Session, tmp_path: Path) -> None:
    annotate(session)
    before = {path.name: path.read_bytes() for path in (folder / "masks").iterdir()}
    save(session)
    saved = Predictions.read(folder)
    assert {segment.id: segment.name for segment in saved.segments} == names(session)
    assert saved.frame_names == session.original.frame_names
    for number in range(NUM_FRAMES):
        np.testing.assert_array_equal(saved.mask(number), session.mask(number))
    assert json.loads((folder / FILE).read_text())["annotated"] == {"given": [1], "accepted": []}
    export("davis", [saved], tmp_path / "davis")
    kept = Predictions.read(folder / "studio" / "original", "predictions.json")
    for number in range(NUM_FRAMES):
        np.testing.assert_array_equal(kept.mask(number), LABELS_THW[number] + 1)
    assert {path.name: path.read_bytes() for path in (kept.folder / "masks").iterdir()} == before
    session.close()
    again = Session(folder)
    put_in_place(again)
    again.undo(again.revision)
    np.testing.assert_array_equal(again.mask(1), np.array([0, 1, 2, 2])[LABELS_THW[1] + 1])
    save(again)
    assert [segment.id for segment in Predictions.read(folder).segments] == [1, 2]
    again.close()


@pytest.mark.parametrize("renames", range(5))
def test_a_save_that_is_cut_off_leaves_the_old_predictions_or_is_finished(
    folder: Path, session: Session, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    annotate(session)
    wanted = [session.mask(number) for number in range(NUM_FRAMES)]
    left = renames

    def cut(of: str):
        real = getattr(Path, of)

        def move(path: Path, target: Path) -> Path:
            nonlocal left
            if "saving" in str(path) or path == folder / "masks" or path.name == "original.partial":
                if left == 0:
                    raise OSError("the power went")
                left -= 1
            return real(path, target)

        monkeypatch.setattr(Path, of, move)

    cut("rename")
    cut("replace")
    with pytest.raises(OSError, match="power"):
        save(session)
    monkeypatch.undo()
    session.close()
    again = Session(folder)
    put_in_place(again)
    found = Predictions.read(folder)
    was_decided = any(entry["op"] == "saved" for entry in again.journal.entries)
    assert was_decided == (renames > 1)
    for number in range(NUM_FRAMES):
        np.testing.assert_array_equal(found.mask(number), wanted[number] if was_decided else LABELS_THW[number] + 1)
    assert not (folder / "studio" / "saving").exists()
    again.close()


def test_a_save_is_on_the_disk_before_it_is_promised(
    folder: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    real_fsync, real_append = os.fsync, Journal.append

    def fsync(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def append(journal: Journal, entry: dict) -> dict:
        if entry["op"] == "saved":
            written = [*(folder / "studio" / "saving").rglob("*"), *(folder / "studio" / "original").rglob("*")]
            assert len(written) == 2 * (NUM_FRAMES + 2)
            assert {path.stat().st_ino for path in (*written, folder / "studio")} <= flushed
        return real_append(journal, entry)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Journal, "append", append)
    annotate(session)
    before = (folder / "masks" / "00000.png").stat().st_ino
    save(session)
    assert (folder / "studio" / "original" / "masks" / "00000.png").stat().st_ino == before, "the file itself is kept"


def test_what_the_studio_writes_is_no_video(folder: Path, session: Session) -> None:
    run = folder.parents[1]
    for name in ("exporting", "saving"):
        write_annotation(session, session.place / name)
    assert find_predictions(run) == find_predictions(folder) == [folder]
    put_in_place(session)
    assert not (session.place / "exporting").exists()


@pytest.mark.parametrize("name", ["../../../secret.png", "/etc/secret.png", "masks/../../x.png", "00000.png"])
def test_masks_lie_in_their_run(folder: Path, name: str) -> None:
    content = json.loads((folder / FILE).read_text())
    content["mask_files"][3] = name
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(PredictionsError, match=r"is not masks/<name>\.png"):
        Session(folder)


def test_frames_and_steps_lie_in_their_folders(folder: Path, session: Session) -> None:
    session.extend(1, "brush", [session.new_mask(0, np.ones((HEIGHT, WIDTH), np.int32), corrected=True)])
    session.close()
    journal = folder / "studio" / "studio.jsonl"
    journal.write_text(journal.read_text().replace("000000-0000001.png", "../../masks/00001.png"))
    with pytest.raises(JournalError, match="is no name of a mask"):
        Session(folder)
    content = json.loads((folder / FILE).read_text())
    content["source"]["files"][0] = "../secret.jpg"
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(PredictionsError, match="is no name of a file"):
        Predictions.read(folder)


def test_damage_beside_an_annotation_does_not_ask_to_delete_it(folder: Path, session: Session) -> None:
    (folder / FILE).write_text("{")
    with pytest.raises(PredictionsError, match="open it with zsvss studio") as told:
        Predictions.read(folder)
    assert "delete" not in str(told.value)


def test_a_mask_that_another_tool_has_edited_is_refused(folder: Path, session: Session) -> None:
    path = folder / "masks" / "00001.png"
    write_ids(path, np.full((HEIGHT, WIDTH), 77), np.zeros((3, 3), np.uint8))
    with pytest.raises(PredictionsError, match=r"00001.png has segments \[77\]"):
        session.mask(1)
    write_ids(path, np.ones((HEIGHT, WIDTH - 1)), np.zeros((3, 3), np.uint8))
    with pytest.raises(PredictionsError, match=f"00001.png is {WIDTH - 1}x{HEIGHT}, not {WIDTH}x{HEIGHT}"):
        session.mask(1)


def test_a_class_whose_own_colour_is_black_is_seen(tmp_path: Path) -> None:
    classes = (PredictedClass(0, "background", (0, 0, 0), 0), PredictedClass(1, "object", (255, 255, 255), 1))
    meaning = Meaning("binary", classes, are_classes=True)
    predict(tmp_path, "bands", labels_THW=LABELS_THW.clip(0, 1), meaning=meaning)
    session = Session(tmp_path / "bands")
    assert [segment.color for segment in session.segments()] == [BACKGROUND, (255, 255, 255)]
    do(session, "name", segments=[2], name="background")
    assert [segment.color for segment in session.segments()] == [BACKGROUND, BACKGROUND]
    session.close()


def test_ids_that_no_mask_holds_are_not_given(session: Session) -> None:
    session.extend(1, "new segment", [{"op": "add", "segment": LARGEST_ID, "parent": 0}])
    with pytest.raises(FieldError, match="up to 65535"):
        do(session, "add")


def test_a_run_that_was_computed_again_is_not_annotated_as_before(folder: Path, session: Session) -> None:
    annotate(session)
    session.close()
    content = (folder / FILE).read_text()
    (folder / FILE).write_text(content + " ")
    with pytest.raises(JournalError, match="computed again"):
        Session(folder)
    (folder / FILE).write_text(content)
    again = Session(folder)
    save(again)
    again.close()
    (folder / FILE).write_text(content)
    with pytest.raises(JournalError, match="not what was saved there"):
        open_desk(folder).session()


def test_score_of_the_original_predictions(folder: Path, session: Session) -> None:
    with pytest.raises(FieldError, match="nothing to score"):
        score(session)
    do(session, "name", segments=[1, 2], name="top")
    do(session, "name", segments=[3], name="bottom")
    do(session, "accept", frame=0, accepted=True)
    brush(session, 3, 1, [[WIDTH / 2, 45]], radius=6)
    save(session)
    found = score(session)
    now, was = session.mask(3), LABELS_THW[3] + 1
    top = [((now <= 2) & (was <= 2)).sum() / ((now <= 2) | (was <= 2)).sum()]
    bottom = [((now == 3) & (was == 3)).sum() / ((now == 3) | (was == 3)).sum()]
    assert [frame["frame"] for frame in found["frames"]] == [0, 3]
    assert found["frames"][0]["J"] == 1
    np.testing.assert_allclose(found["frames"][1]["J"], (top[0] + bottom[0]) / 2)
    np.testing.assert_allclose(found["J"], ((1 + top[0]) / 2 + (1 + bottom[0]) / 2) / 2)
    assert 0.9 < found["mIoU"] < 1
    masks = Path(found["masks"])
    assert sorted(path.name for path in masks.iterdir()) == ["00000.png", "00003.png"]
    assert """--data.class_names '["top", "bottom"]'""" in found["command"]


def test_frames_that_are_gone_are_told(folder: Path, session: Session) -> None:
    for path in (folder.parents[2] / "frames" / "bands").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="put the video back"):
        brush(session, 0, 1, [[50, 50]])
    assert session.revision == 0
    assert FRAMES_THW3.shape[:3] == BANDS_THW.shape
