import numpy as np
import pytest
import torch

from zsvss.data.procedural import ProceduralVideos
from zsvss.data.scenes import Scene


def test_clips_are_the_rendered_scene():
    data = ProceduralVideos(num_videos=2, num_frames=5, height=64, width=96, clip_length=3, num_workers=0)
    data.setup("test")
    clips = list(data.test_dataloader())
    for clip, seed in zip(clips, (2_000_000, 2_000_000, 2_000_001, 2_000_001), strict=True):
        scene = Scene(seed, num_frames=5, height=64, width=96, hard=seed % 2 == 1)
        for offset in range(3):
            image, labels = scene.render(clip.start + offset)
            np.testing.assert_array_equal(clip.frames_THW3[offset].numpy(), image)
            np.testing.assert_array_equal(clip.labels_THW[offset].numpy(), labels)
        assert clip.labelled_T.all()


def test_worker_processes_change_nothing():
    arguments = {"num_videos": 2, "num_frames": 4, "height": 64, "width": 64, "clip_length": 2}
    here = list(ProceduralVideos(num_workers=0, **arguments).test_dataloader())
    there = list(ProceduralVideos(num_workers=2, **arguments).test_dataloader())
    assert len(here) == len(there) == 4
    for ours, theirs in zip(here, there, strict=True):
        assert ours.video == theirs.video
        assert torch.equal(ours.frames_THW3, theirs.frames_THW3)
        assert torch.equal(ours.labels_THW, theirs.labels_THW)


def test_difficulty():
    names = {
        difficulty: [
            video.name.split("_")[1] for video in ProceduralVideos(num_videos=4, difficulty=difficulty).videos()
        ]
        for difficulty in ("normal", "hard", "mixed")
    }
    assert names == {"normal": ["normal"] * 4, "hard": ["hard"] * 4, "mixed": ["normal", "hard"] * 2}


def test_splits_and_offsets_share_no_video():
    taken = [
        {video.name for video in ProceduralVideos(split=split, num_videos=5, first_video=first).videos()}
        for split in ("train", "val", "test")
        for first in (0, 5)
    ]
    assert sum(map(len, taken)) == len(set.union(*taken)) == 30


def test_late_figures():
    arguments = {"num_videos": 1, "num_frames": 5, "height": 64, "width": 96, "clip_length": 5, "num_workers": 0}
    (clip,) = ProceduralVideos(num_late=2, **arguments).test_dataloader()
    scene = Scene(2_000_000, num_frames=5, height=64, width=96, num_late=2)
    np.testing.assert_array_equal(clip.frames_THW3[4].numpy(), scene.render(4)[0])
    (without,) = ProceduralVideos(**arguments).test_dataloader()
    assert not torch.equal(clip.labels_THW, without.labels_THW)
    for num_late in (-1, 201):
        with pytest.raises(ValueError, match=f"num_late is {num_late}; allowed: 0 to 200"):
            ProceduralVideos(num_late=num_late, **arguments)
