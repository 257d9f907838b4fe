from typing import Any

import pytest
from rich.console import Console

from zsvss.results.terminal_tables import provenance, result_tables

SCORES = ["mIoU", "fwIoU", "pixel_accuracy", "mIoU_video_mean", "self_consistency8", "self_consistency16"]


def summary(**changes: Any) -> dict[str, Any]:
    numbers = {f"test/{name}": 0.25 for name in SCORES}
    numbers |= {"test/num_videos": 2, "test/num_frames": 60, "test/num_labelled_frames": 2}
    return {
        "numbers": numbers,
        "dataset": "cityscapes",
        "backbone": "StableDiffusion",
        "naming": {"name": "labelled_frame", "note": "by a labelled frame"},
        "consistency": "self",
        "consistency_caveat": None,
        "objects": None,
        "notes": {},
        "taxonomy": "cityscapes-19",
        "frames_per_second": 1.0,
        "num_videos_expected": 2,
        "run": {"device": "a GPU"},
        **changes,
    }


@pytest.mark.parametrize("width", [140, 80, 60])
def test_every_column_can_be_told_from_the_others(width: int) -> None:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(*result_tables(summary()))
    lines = capture.get().splitlines()[2:]
    head = lines[: next(number for number, line in enumerate(lines) if line.startswith("┡"))]
    cells = zip(*([cell.strip() for cell in line.strip("┃").split("┃")] for line in head), strict=True)
    assert sorted("".join(parts) for parts in cells) == sorted(SCORES)


def test_what_makes_a_number_mean_less_stands_beside_it() -> None:
    notes = {f"video {number}": ["is strange"] for number in range(7)}
    text = provenance(summary(consistency_caveat="frames are a second apart", notes=notes))
    lines = text.splitlines()
    assert lines[3] == "note: frames are a second apart"
    assert lines[4:] == [
        *(f"note: video {number}: is strange" for number in range(5)),
        "note: 2 more notes on videos in metrics.json",
    ]
    assert "note" not in provenance(summary())
