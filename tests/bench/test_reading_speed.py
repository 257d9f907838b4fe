from __future__ import annotations

import json
from pathlib import Path

import pytest

from zsvss.bench.command import main
from zsvss.bench.reading_speed import measure
from zsvss.data.reader import has_decord


def test_loader_reads_what_plain_loops_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--size", "96", "128", "--num-videos", "2", "--num-frames", "5", "--input-size", "64", "64"]
    assert main(["--data-only", *size, "--repeats", "1", "--json", str(tmp_path / "b.json")]) == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "b.json").read_text())}
    assert len(rows) == (8 if has_decord() else 5)
    checksums = {row["checksum"] for name, row in rows.items() if "pillow" in name.lower()}
    assert len(checksums) == 1, "the loader's frames and masks are those that Pillow reads, whatever the workers"
    assert len({row["checksum"] for name, row in rows.items() if "decord" in name}) == has_decord()
    assert all(row["frames_per_second"] > 0 for row in rows.values())
    assert "frames/s a core" in capsys.readouterr().out


def test_wrong_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-only", "--root", str(tmp_path)]) == 1
    assert "val.txt not found" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        measure(tmp_path, 1, 1, 1, (64, 64))
