"""Videos cut into clips while they are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from zsvss.data.clip import Tail, clip_starts
from zsvss.data.clip_planner import ClipPlanner, Cutout, Frame
from zsvss.data.shots import ShotDetector
from zsvss.stages.clip_buffer import in_clips


def picture(seed: int) -> torch.Tensor:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3))
    return torch.from_numpy(np.kron(cells, np.ones((4, 4, 1))).astype(np.uint8))


def frames_of(lengths: list[int], start: int = 0) -> Iterator[Frame]:
    images = [picture(shot) for shot, length in enumerate(lengths) for _ in range(length)]
    return (Frame(str(number), images[number]) for number in range(start, len(images)))


def summary(cutouts: list[Cutout]) -> list[tuple[int, int, int, int | None]]:
    return [(cutout.start, len(cutout.frames), cutout.num_final, cutout.shot) for cutout in cutouts]


def each_shot_apart(lengths: list[int], clip_length: int, tail: Tail) -> list[tuple[int, int, int, int | None]]:
    clips, first = list[tuple[int, int, int, int | None]](), 0
    for shot, length in enumerate(lengths):
        clips += [(first + start, long, final, shot) for start, long, final in clip_starts(length, clip_length, tail)]
        first += length
    return clips


@pytest.mark.parametrize("shots", [None, ShotDetector()])
@pytest.mark.parametrize("lengths", [[1], [12], [5, 7, 30, 9, 12]])
def test_frames_given_one_by_one_are_cut_likewise(lengths: list[int], shots: ShotDetector | None) -> None:
    frames = [frame.image_HW3 for frame in frames_of(lengths)]
    own = [(len(frames_THW3), shot) for frames_THW3, shot in in_clips(frames, 6, shots and shots.start())]
    planner = ClipPlanner(6, "short", shots)
    assert own == [(len(cutout.frames), cutout.shot) for cutout in planner.clips(frames_of(lengths))]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("tail", ["overlap", "short"])
@pytest.mark.parametrize("lengths", [[1], [6], [31], [20, 20], [5, 7, 30, 9, 12], [12, 12, 24]])
def test_each_shot_is_cut_as_a_video_is(lengths: list[int], tail: Tail, is_known: bool) -> None:
    planner = ClipPlanner(6, tail, ShotDetector(), sum(lengths) if is_known else None)
    cutouts = list(planner.clips(frames_of(lengths)))
    assert summary(cutouts) == each_shot_apart(lengths, 6, tail)
    assert [cutout.index for cutout in cutouts] == list(range(len(cutouts)))
    assert [cutout.is_last for cutout in cutouts] == [False] * (len(cutouts) - 1) + [True]
    for cutout in cutouts:
        names = [str(number) for number in range(cutout.start, cutout.start + len(cutout.frames))]
        assert [frame.name for frame in cutout.frames] == names


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("tail", ["overlap", "short"])
@pytest.mark.parametrize("length", [1, 5, 6, 7, 12, 17, 40])
def test_without_shots_a_video_is_cut_as_it_was(length: int, tail: Tail, is_known: bool) -> None:
    planner = ClipPlanner(6, tail, None, length if is_known else None)
    expected = [(*clip, None) for clip in clip_starts(length, 6, tail)]
    assert summary(list(planner.clips(frames_of([length])))) == expected


def test_a_video_of_known_length_is_not_read_ahead() -> None:
    taken: list[str] = []

    def told() -> Iterator[Frame]:
        for frame in frames_of([40]):
            taken.append(frame.name)
            yield frame

    next(ClipPlanner(6, num_frames=40).clips(told()))
    assert len(taken) == 6


@pytest.mark.parametrize("tail", ["overlap", "short"])
def test_goes_on_after_any_clip(tail: Tail) -> None:
    lengths = [13, 7, 30, 9, 12]
    cutouts = list(ClipPlanner(6, tail, ShotDetector()).clips(frames_of(lengths)))
    for number, cutout in enumerate(cutouts):
        planner = ClipPlanner.at(cutout.place)
        rest = list(planner.clips(frames_of(lengths, planner.start)))
        assert summary(rest) == summary(cutouts[number + 1 :])
        assert [clip.index for clip in rest] == [clip.index for clip in cutouts[number + 1 :]]


def test_no_frame_is_no_clip() -> None:
    assert list(ClipPlanner(6).clips(iter(()))) == []
