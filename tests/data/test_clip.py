import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsvss.data.clip import Clip, clip_starts


@given(st.integers(1, 80), st.integers(1, 20), st.sampled_from(["overlap", "short"]), st.booleans())
def test_the_final_frames_of_all_clips_are_the_video_in_order(num_frames, clip_length, tail, repeat):
    clips = clip_starts(num_frames, clip_length, tail, repeat)
    final = [frame for start, _, num_final in clips for frame in range(start, start + num_final)]
    assert final == list(range(num_frames))


@given(st.integers(1, 80), st.integers(1, 20), st.sampled_from(["overlap", "short"]), st.booleans())
def test_clips_have_the_length_asked_for(num_frames, clip_length, tail, repeat):
    clips = clip_starts(num_frames, clip_length, tail, repeat)
    full = clips if tail == "overlap" or num_frames % clip_length == 0 else clips[:-1]
    assert {length for _, length, _ in full} <= {min(clip_length, num_frames)}
    assert all(start + length <= num_frames and 0 <= num_final <= length for start, length, num_final in clips)


@given(st.integers(1, 80), st.integers(1, 20))
def test_frames_that_are_not_final_are_predicted_again(num_frames, clip_length):
    clips = clip_starts(num_frames, clip_length, "overlap", repeat_last_clip=True)
    for (start, length, num_final), (next_start, _, _) in itertools.pairwise(clips):
        assert next_start == start + num_final <= start + length


def test_the_published_repetition_needs_a_length_that_divides():
    assert clip_starts(28, 14, repeat_last_clip=True) == [(0, 14, 14), (14, 14, 0), (14, 14, 14)]
    assert clip_starts(14, 14, repeat_last_clip=True) == [(0, 14, 0), (0, 14, 14)]
    assert clip_starts(29, 14, repeat_last_clip=True) == clip_starts(29, 14)


def test_a_short_video_is_one_short_clip():
    assert clip_starts(1, 14) == [(0, 1, 1)]
    assert clip_starts(13, 14, repeat_last_clip=True) == [(0, 13, 13)]


@pytest.mark.parametrize(("num_frames", "clip_length"), [(0, 14), (5, 0), (-1, 3)])
def test_nothing_cannot_be_cut(num_frames, clip_length):
    with pytest.raises(ValueError, match=f"num_frames {num_frames}, clip_length {clip_length}"):
        clip_starts(num_frames, clip_length)


def test_an_unknown_tail_names_the_allowed_ones():
    with pytest.raises(ValueError, match="'drop'; allowed: 'overlap', 'short'"):
        clip_starts(5, 2, tail="drop")


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("num_frames", [1, 3, 4, 6, 7])
def test_exactly_one_clip_is_first_and_one_last(num_frames, repeat):
    clips = []
    for index, (start, length, num_final) in enumerate(clip_starts(num_frames, 3, repeat_last_clip=repeat)):
        names = tuple(str(number) for number in range(start, start + length))
        frames, labelled = torch.zeros(length, 2, 2, 3, dtype=torch.uint8), torch.zeros(length, dtype=torch.bool)
        clips.append(Clip("video", index, start, frames, None, labelled, num_final, num_frames, names))
    assert [clip.is_first for clip in clips] == [True] + [False] * (len(clips) - 1)
    assert [clip.is_last for clip in clips] == [False] * (len(clips) - 1) + [True]
