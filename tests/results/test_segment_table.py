from __future__ import annotations

import json
import tracemalloc

import numpy as np
from scipy.ndimage import label

from zsvss.results.segment_table import Measured, SegmentTable, json_pieces, measure


def test_measures_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        ids_HW = rng.integers(0, 5, rng.integers(1, 20, 2)) * rng.integers(1, 60)
        measured = {entry.id: entry for entry in measure(ids_HW)}
        assert list(measured) == [number for number in np.unique(ids_HW) if number]
        for number, entry in measured.items():
            rows, columns = np.nonzero(ids_HW == number)
            assert entry.area == len(rows)
            assert entry.box == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert entry.num_parts == label(ids_HW == number, np.ones((3, 3)))[1]


def test_rows_on_disk_come_back_in_order() -> None:
    table = SegmentTable()
    for frame in range(700):
        present = [number for number in (1, 2, 9) if number != 2 or frame % 3 == 0]
        table.add(frame, [Measured(number, 10 * frame + number, (frame, 1, 2, 3), 1 + frame % 2) for number in present])
    assert table.ids == [1, 2, 9]
    content = json.loads("".join(json_pieces({"a": 1}, [{"id": number} for number in table.ids], table)))
    table.close()
    assert content["a"] == 1
    for segment in content["segments"]:
        frames = [frame for frame in range(700) if segment["id"] != 2 or frame % 3 == 0]
        assert segment["frames"] == frames
        assert segment["areas"] == [10 * frame + segment["id"] for frame in frames]
        assert segment["boxes"] == [[frame, 1, 2, 3] for frame in frames]
        assert segment["parts"] == [1 + frame % 2 for frame in frames]
        assert (segment["first_frame"], segment["last_frame"], segment["num_frames"]) == (
            frames[0], frames[-1], len(frames),
        )  # fmt: skip
        assert segment["box"] == [0, 1, frames[-1] + 2, 3]
        assert segment["num_parts"] == 2


def test_no_segments_are_a_list_too() -> None:
    assert json.loads("".join(json_pieces({"a": None}, [], SegmentTable()))) == {"a": None, "segments": []}


def test_memory_stays_flat() -> None:
    """2,560 frames of 5 segments take no more than 1,024 frames do."""

    def peak(num_frames: int) -> int:
        tracemalloc.start()
        table = SegmentTable()
        rows = [Measured(number, 1, (1, 2, 3, 4), 1) for number in range(1, 6)]
        for frame in range(num_frames):
            table.add(frame, rows)
        for _ in json_pieces({}, [{"id": number} for number in table.ids], table):
            pass
        table.close()
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(256)  # what is made once
    # 1,536 frames of 5 segments are 210 kB of numbers, and ten times as much as tuples.
    assert peak(2560) < peak(1024) + 50_000
