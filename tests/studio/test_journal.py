from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zsvss.studio.journal import Journal, JournalError

HEADER = {"video": "swan", "predictions": "abc"}


def written(path: Path, num: int = 3) -> list[dict]:
    journal = Journal(path, HEADER)
    entries = [journal.append({"op": "name", "segments": [n], "name": "Schwäne"}) for n in range(num)]
    journal.close()
    return entries


def test_entries_are_numbered_and_read_back(tmp_path: Path) -> None:
    entries = written(tmp_path / "studio.jsonl")
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    again = Journal(tmp_path / "studio.jsonl", HEADER)
    assert again.entries == entries
    assert again.append({"op": "undo"}) == {"number": 4, "op": "undo"}
    assert again.revision == 4
    lines = (tmp_path / "studio.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"format": "zsvss-studio", "version": 1, **HEADER}
    assert len(lines) == 5


def test_a_last_line_that_was_cut_off_is_dropped_wherever_the_cut_is(tmp_path: Path) -> None:
    path = tmp_path / "studio.jsonl"
    entries = written(path)
    content = path.read_bytes()
    start = content[:-1].rindex(b"\n") + 1
    for end in range(start, len(content)):
        path.write_bytes(content[:end])
        journal = Journal(path, HEADER)
        assert journal.entries == entries[:2]
        assert path.read_bytes() == content[:start]
        journal.append({"op": "undo"})
        journal.close()
        assert len(Journal(path, HEADER).entries) == 3
    path.write_bytes(content[:start] + b"\0" * (len(content) - start - 1) + b"\n")  # length kept, content lost
    assert Journal(path, HEADER).entries == entries[:2]


def test_what_was_answered_for_outlives_a_kill(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from zsvss.studio.journal import Journal\n"
        f"journal = Journal(pathlib.Path(sys.argv[1]), {HEADER!r})\n"
        "while True: print(journal.append({'op': 'name', 'name': 'x' * 5000})['number'], flush=True)"
    )
    path = tmp_path / "studio.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 40:
            break
    process.send_signal(signal.SIGKILL)
    told = [40, *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    journal = Journal(path, HEADER)
    assert told <= journal.revision <= told + 1
    assert {len(entry["name"]) for entry in journal.entries} == {5000}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [*lines[:2], b'{"number": 2', *lines[3:]], "line 3, is damaged"),
        (lambda lines: [*lines[:2], *lines[3:]], "has number 3, not 2"),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":9'), *lines[1:]], "no annotation of version 1"),
        (lambda lines: [lines[0].replace(b"abc", b"xyz"), *lines[1:]], "annotates other predictions"),
        (lambda lines: [b"[]", *lines[1:]], "line 1, is damaged"),
    ],
)
def test_damage_is_refused(tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "studio.jsonl"
    written(path)
    damaged = b"\n".join(change(path.read_bytes().splitlines())) + b"\n"
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match=says):
        Journal(path, HEADER)
    assert path.read_bytes() == damaged


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "studio.jsonl"
    journal = Journal(path, HEADER)
    journal.append({"op": "undo"})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.append({"op": "redo"})
    assert path.read_bytes() == before
    assert journal.revision == 1
