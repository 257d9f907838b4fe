import itertools

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from zsvss.data.datamodule import shard_videos
from zsvss.data.procedural import ProceduralVideo, ProceduralVideos


def video(number, num_frames):
    return ProceduralVideo(f"video {number}", num_frames, number, num_frames, 64, 64, False)


def small(**kwargs):
    return ProceduralVideos(height=64, width=64, **{"num_videos": 3, "num_frames": 7, "clip_length": 3} | kwargs)


lengths = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@given(lengths, st.integers(1, 8))
def test_every_video_is_on_exactly_one_rank_in_order(num_frames, num_ranks):
    videos = [video(number, length) for number, length in enumerate(num_frames)]
    shards = shard_videos(videos, num_ranks)
    assert len(shards) == num_ranks
    assert sorted(v.seed for shard in shards for v in shard) == list(range(len(videos)))
    for shard in shards:
        assert shard == sorted(shard, key=lambda v: v.seed)
    if len(videos) >= num_ranks:
        assert all(shards)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 3))
def test_the_longest_rank_is_near_the_best_of_all_assignments(num_frames, num_ranks):
    shards = shard_videos([video(number, length) for number, length in enumerate(num_frames)], num_ranks)
    ours = max(sum(v.num_frames for v in shard) for shard in shards)
    best = min(
        max(sum(length for length, rank in zip(num_frames, ranks, strict=True) if rank == r) for r in range(num_ranks))
        for ranks in itertools.product(range(num_ranks), repeat=len(num_frames))
    )
    # Graham's bound for longest processing time first.
    assert ours <= (4 / 3 - 1 / (3 * num_ranks)) * best + 1e-9


def test_sharding_by_hand():
    shards = shard_videos([video(number, length) for number, length in enumerate([5, 9, 4, 9, 1])], 2)
    assert [[v.seed for v in shard] for shard in shards] == [[0, 1], [2, 3, 4]]


def test_a_name_that_comes_twice_is_refused(monkeypatch):
    data = small()
    monkeypatch.setattr(data, "find_videos", lambda: [video(0, 7), video(1, 7), video(0, 7)])
    with pytest.raises(ValueError, match=r"lists 1 videos more than once, such as 'video 0'.*split file"):
        data.videos()


def test_one_process_gets_all_clips_in_order():
    data = small(num_workers=0)
    data.setup("test")
    clips = list(data.test_dataloader())
    assert [(clip.video, clip.start) for clip in clips] == [
        (v.name, start) for v in data.videos() for start in (0, 3, 4)
    ]
    assert len(data.test_dataloader()) == len(list(data.predict_dataloader())) == 9


def test_limits():
    data = small(limit_videos=2, limit_frames=4)
    assert [(v.num_frames, v.scene_frames) for v in data.videos()] == [(4, 7), (4, 7)]


def test_finished_videos_are_left_out():
    data = small(num_workers=0)
    first, second, third = (v.name for v in data.videos())
    data.finished = {second}
    assert [name for name, _ in itertools.groupby(clip.video for clip in data.test_dataloader())] == [first, third]


def test_a_video_shorter_than_a_clip_is_refused_only_on_request():
    assert small(clip_length=14).plan(small().videos())[0].length == 7
    with pytest.raises(
        ValueError, match=r"2000000_normal' has 7 frames, fewer than data\.clip_length 14.*switch it off"
    ):
        small(clip_length=14, require_full_clip=True).setup("test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip_length": 0}, r"data\.clip_length is 0; it must be at least 1"),
        ({"limit_videos": 0}, r"data\.limit_videos is 0"),
        ({"limit_frames": -1}, r"data\.limit_frames is -1"),
        ({"num_workers": -1}, r"data\.num_workers is -1"),
        ({"difficulty": "easy"}, "'easy'; allowed: mixed, normal, hard"),
        ({"num_videos": 20_000}, r"data\.num_videos"),
        ({"split": "validation"}, "validation"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def _clips_of_rank(rank, num_ranks, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=num_ranks
    )
    data = small(num_workers=0)
    try:
        data.setup("test")
        result = [(clip.video, clip.start, int(clip.frames_THW3.sum())) for clip in data.test_dataloader()]
    except ValueError as error:
        result = str(error)
    torch.save(result, folder / f"{rank}.pt")
    torch.distributed.barrier()  # A rank that leaves early closes its connections to those that still open theirs.
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_share_the_clips_of_one_process(tmp_path, num_ranks):
    torch.multiprocessing.start_processes(_clips_of_rank, (num_ranks, tmp_path), num_ranks, start_method="fork")
    shards = [torch.load(tmp_path / f"{rank}.pt") for rank in range(num_ranks)]
    everything = [
        (clip.video, clip.start, int(clip.frames_THW3.sum())) for clip in small(num_workers=0).test_dataloader()
    ]
    assert sorted(itertools.chain(*shards)) == sorted(everything)
    owners = [{name for name, _, _ in shard} for shard in shards]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 3


def test_more_ranks_than_videos_is_an_early_error(tmp_path):
    torch.multiprocessing.start_processes(_clips_of_rank, (4, tmp_path), 4, start_method="fork")
    for rank in range(4):
        message = torch.load(tmp_path / f"{rank}.pt")
        assert message.startswith("procedural has 3 video(s) for 4 processes")
        assert "at most 3" in message
