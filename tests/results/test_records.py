"""Records on disk: whole or not at all, of one run, by one process at a time."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from zsvss.data.video import FileVideo
from zsvss.results.atomic_files import write_atomically
from zsvss.results.fingerprint import decisive_settings, differences, digest, video_source
from zsvss.results.records import RecordFolder

FINGERPRINT = {"model.seed": 0, "weights": "ab"}
DIGEST = digest(FINGERPRINT)


@pytest.fixture
def records(tmp_path: Path) -> RecordFolder:
    folder = RecordFolder(tmp_path / "run" / "records" / "test")
    folder.open(FINGERPRINT, {"videos": ["a"]})
    return folder


@pytest.mark.parametrize("name", ["bear", "city/seq 1", "../../up", ".", "ü" * 90, "x" * 300, "a%2Fb", "C:\\x"])
def test_any_name(records: RecordFolder, name: str) -> None:
    records.write(name, DIGEST, {"result": {"score": 0.1 + 0.2}})
    found, damaged = records.read()
    assert found == {name: {"video": name, "fingerprint": DIGEST, "result": {"score": 0.1 + 0.2}}}
    assert not damaged
    assert records.path(name).parent == records.videos
    assert len(records.path(name).name.encode()) < 255


def test_names_that_look_alike_have_files_of_their_own(records: RecordFolder) -> None:
    names = ["a/b", "a%2Fb", "a b", "a_b", "x" * 300, "x" * 301]
    for name in names:
        records.write(name, DIGEST, {})
    assert set(records.read()[0]) == set(names)


@pytest.mark.parametrize("keep", [0, 1, 64, 65, 66, 100, -2])
def test_half_a_record_is_no_record(records: RecordFolder, keep: int) -> None:
    records.write("a", DIGEST, {"result": 1})
    path = records.path("a")
    path.write_bytes(path.read_bytes()[:keep])
    assert records.read() == ({}, {"a.json": "damaged or half-written: its checksum is wrong"})


def test_a_flipped_bit_is_noticed(records: RecordFolder) -> None:
    records.write("a", DIGEST, {"result": 1})
    whole = records.path("a").read_bytes()
    for position in range(len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 4
        records.path("a").write_bytes(flipped)
        found, damaged = records.read()
        assert not found
        assert list(damaged) == ["a.json"]


def test_record_of_another_run(records: RecordFolder) -> None:
    records.write("a", digest({"model.seed": 1}), {"result": 1})
    found, damaged = records.read()
    assert not found
    assert "written by another run" in damaged["a.json"]


def test_another_fingerprint_is_refused_with_what_differs(records: RecordFolder) -> None:
    records.close()
    other = RecordFolder(records.folder)
    with pytest.raises(ValueError, match="another run") as refused:
        other.open({"model.seed": 1, "weights": "ab", "data.init_args.split": "val"}, {})
    message = str(refused.value)
    assert "model.seed: recorded 0, now 1" in message
    assert "data.init_args.split: recorded nothing, now val" in message
    assert "weights" not in message
    assert DIGEST[:12] in message
    assert digest({"model.seed": 1, "weights": "ab", "data.init_args.split": "val"})[:12] in message
    assert records.run()["facts"] == {"videos": ["a"]}


def test_damaged_run_file(records: RecordFolder) -> None:
    records.close()
    (records.folder / "run.json").write_text('{"fingerprint": {}')
    with pytest.raises(ValueError, match=r"run.json is damaged.*delete"):
        RecordFolder(records.folder).open(FINGERPRINT, {})


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results of a test run"):
        RecordFolder(tmp_path / "records" / "test").run()


def _try_to_open(folder: Path, queue: Any) -> None:
    try:
        RecordFolder(folder).open(FINGERPRINT, {})
        queue.put("open")
    except ValueError as error:
        queue.put(str(error))


def _opened_by_another_process(folder: Path) -> str:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_try_to_open, args=(folder, queue))
    process.start()
    said: str = queue.get(timeout=60)
    process.join()
    return said


def test_one_process_at_a_time(records: RecordFolder) -> None:
    said = _opened_by_another_process(records.folder)
    assert f"is in use by process {os.getpid()} on " in said
    assert "--output" in said
    records.close()
    assert _opened_by_another_process(records.folder) == "open"


def test_a_forked_worker_does_not_keep_the_folder(records: RecordFolder) -> None:
    """Decoders outlive a killed run by seconds; its second start must not wait for them."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    worker = context.Process(target=stop.wait)
    worker.start()
    records.close()
    assert _opened_by_another_process(records.folder) == "open"
    stop.set()
    worker.join()


def test_leftovers_of_a_killed_write_are_removed(records: RecordFolder) -> None:
    leftover = records.videos / ".tmp-123"
    leftover.write_text("half")
    records.close()
    RecordFolder(records.folder).open(FINGERPRINT, {})
    assert not leftover.exists()


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zsvss.results.records.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_failures(records: RecordFolder) -> None:
    assert records.read_failures() == {}
    records.write_failures({})
    assert not (records.folder / "failures.json").exists()
    records.write_failures({"b": "truncated", "a": "empty"})
    assert records.read_failures() == {"a": "empty", "b": "truncated"}
    records.write_failures({})
    assert records.read_failures() == {}
    (records.folder / "failures.json").write_text("{")
    assert records.read_failures() == {}


def test_decisive_settings() -> None:
    settings = {
        "trainer": {"devices": 2},
        "output": "runs/x",
        "model": {"backbone": {"class_path": "X", "init_args": {"weights": "/w", "num_steps": 25}}, "refinement": None},
        "data": {"class_path": "VSPW", "init_args": {"root": "/data", "num_workers": 3, "protocol": "raw"}},
    }
    assert decisive_settings(settings) == {
        "model.backbone.class_path": "X",
        "model.backbone.init_args.num_steps": 25,
        "model.refinement": None,
        "data.class_path": "VSPW",
        "data.init_args.protocol": "raw",
    }


def test_what_was_read_back_equals_what_was_written() -> None:
    settings = {"model": {"windows": (8, 16), "input_size": None, "strength": 1e-7}}
    plain = decisive_settings(settings)
    assert differences(json.loads(json.dumps(plain)), plain) == {}


def test_source_of_a_video(tmp_path: Path) -> None:
    frames = tuple(tmp_path / f"{number}.png" for number in range(4))
    for path in frames:
        path.write_bytes(b"123")
    video = FileVideo("a", 4, frames)
    before = video_source(video)
    assert before.startswith("4 frames, 4 files ")
    frames[1].write_bytes(b"1234")
    assert video_source(video) != before
    movie = tmp_path / "movie.mp4"
    movie.write_bytes(b"12345")
    assert video_source(FileVideo("b", 10, movie)).startswith("10 frames, 1 files ")


def test_source_of_a_video_tells_edited_masks_of_the_same_size(tmp_path: Path) -> None:
    frame, mask = tmp_path / "0.png", tmp_path / "mask.png"
    frame.write_bytes(b"123")
    mask.write_bytes(b"456")
    times = mask.stat()
    video = FileVideo("a", 1, (frame,), (mask,))
    before = video_source(video)
    mask.write_bytes(b"457")
    os.utime(mask, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert video_source(video) != before
    mask.write_bytes(b"456")
    assert video_source(video) == before
