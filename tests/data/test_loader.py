import faulthandler
import gc
import os
import signal
import time
from dataclasses import dataclass

import pytest
import torch

from zsvss.backbones.input_size import NetworkSize, resize_frames
from zsvss.data.images import read_mask
from zsvss.data.loader import ClipLoader, PlannedClip, call_with_time_limit
from zsvss.data.reader import open_frames
from zsvss.data.video import FileVideo, OpenVideo, UnreadableVideoError, Video


@dataclass(frozen=True)
class FakeVideo(Video):
    """Frames whose pixels say which video and frame they are; ``bad_frame`` raises, hangs or kills its process."""

    number: int = 0
    bad_frame: int | None = None
    how: str = "raise"

    path = "/videos/fake.mp4"
    has_ground_truth = False

    def open(self):
        return OpenFake(self)


class OpenFake(OpenVideo):
    def __init__(self, video):
        self.video = video

    @property
    def names(self):
        return tuple(f"{number:05d}" for number in range(self.video.num_frames))

    def read(self, start, stop):
        if self.video.bad_frame is not None and start <= self.video.bad_frame < stop:
            if self.video.how == "raise":
                raise OSError("broken at frame 3\nlong story")
            if self.video.how == "hang":
                time.sleep(600)
            if self.video.how == "crash":
                faulthandler.disable()
                os.kill(os.getpid(), signal.SIGSEGV)
            os._exit(1)
        numbers = torch.arange(start, stop, dtype=torch.uint8)
        frames = numbers[:, None, None, None].expand(-1, 2, 3, 3) * 10 + self.video.number
        return frames.clone(), None, torch.zeros(stop - start, dtype=torch.bool)


def plan_of(videos):
    return [PlannedClip(video, i, 2 * i, 2, 2) for video in videos for i in range(video.num_frames // 2)]


def healthy(number):
    return FakeVideo(f"video {number}", 6, number)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_clips_come_complete_and_in_order(num_workers):
    loader = ClipLoader(plan_of([healthy(0), healthy(1)]), num_workers)
    clips = list(loader)
    assert len(loader) == len(clips) == 6
    assert [(clip.video, clip.index, clip.start) for clip in clips] == [
        (f"video {v}", i, 2 * i) for v in range(2) for i in range(3)
    ]
    for clip in clips:
        expected = torch.tensor([10 * clip.start, 10 * clip.start + 10]) + int(clip.video[-1])
        assert clip.frames_THW3.dtype == torch.uint8
        assert torch.equal(clip.frames_THW3[:, 0, 0, 0].long(), expected)
        assert clip.frame_names == (f"{clip.start:05d}", f"{clip.start + 1:05d}")
        assert clip.labels_THW is None
        assert not clip.labelled_T.any()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_resize_to_what_the_network_sees(num_workers, tmp_path, write_images, make_frames):
    """Videos of different sizes and lengths, with and without masks, kept until the end."""
    sizes = [(40, 52), (90, 160), (64, 96), (40, 52)]
    videos = []
    for number, (height, width) in enumerate(sizes):
        frames_THW3 = make_frames(5, height, width)
        folder = write_images(tmp_path / f"{number}", frames_THW3)
        masks = write_images(tmp_path / f"{number} masks", frames_THW3[..., 0])
        labels = (*sorted(masks.iterdir()),) if number % 2 else None
        videos.append(FileVideo(str(number), 5, tuple(sorted(folder.iterdir())), labels))
    plan = [PlannedClip(video, i, start, 2, 2) for video in videos for i, start in enumerate((0, 2, 3))]
    clips = list(ClipLoader(plan, num_workers, network_size=NetworkSize(None, 32, 0)))
    assert len(clips) == 12
    for clip in clips:
        video = videos[int(clip.video)]
        expected_THW3 = open_frames(video.frames).read(clip.start, clip.start + 2)
        assert torch.equal(clip.frames_THW3, expected_THW3)
        height, width = (side // 32 * 32 for side in sizes[int(clip.video)])
        if (height, width) == sizes[int(clip.video)]:
            assert clip.resized_THW3 is None
        else:
            assert torch.equal(clip.resized_THW3, resize_frames(expected_THW3, (height, width)))
        if video.labels is None:
            assert clip.labels_THW is None
        else:
            assert torch.equal(
                clip.labels_THW,
                torch.stack([torch.from_numpy(read_mask(path)) for path in video.labels[clip.start : clip.start + 2]]),
            )
        assert clip.labelled_T.tolist() == [video.labels is not None] * 2


def test_frames_too_small_for_the_network_are_left_to_it_to_refuse():
    (clip,) = ClipLoader(plan_of([FakeVideo("small", 2)]), 0, network_size=NetworkSize(None, 32, 0))
    assert clip.resized_THW3 is None


def test_a_second_pass_gives_the_same():
    loader = ClipLoader(plan_of([healthy(0)]), 1)
    assert [clip.index for clip in loader] == [clip.index for clip in loader] == [0, 1, 2]


@pytest.mark.usefixtures("hanging_workers_are_killed_soon")
@pytest.mark.parametrize(
    ("how", "reason"),
    [("raise", "broken at frame 3$"), ("hang", r"nothing for 2 s.*data\.time_limit"), ("exit", "the decoder crashed")],
)
def test_a_bad_video_is_one_error_that_names_it(how, reason):
    bad = FakeVideo("bad", 6, 1, bad_frame=3, how=how)
    seen = []
    with pytest.raises(UnreadableVideoError, match=rf"video 'bad' \(/videos/fake\.mp4\) cannot be read: .*{reason}"):
        seen.extend(ClipLoader(plan_of([healthy(0), bad]), 1, time_limit=2))
    del seen


@pytest.mark.usefixtures("hanging_workers_are_killed_soon")
@pytest.mark.parametrize(("how", "num_workers"), [("raise", 0), ("raise", 2), ("hang", 1), ("exit", 1), ("exit", 2)])
def test_the_other_videos_go_on(how, num_workers):
    bad = FakeVideo("bad", 6, 1, bad_frame=3, how=how)
    loader = ClipLoader(plan_of([healthy(0), bad, healthy(2)]), num_workers, time_limit=2, skip_unreadable=True)
    seen = [(clip.video, clip.index) for clip in loader]
    assert seen == [*[("video 0", i) for i in range(3)], ("bad", 0), *[("video 2", i) for i in range(3)]]
    assert list(loader.failures) == ["bad"]


@pytest.mark.parametrize("how", ["exit", "crash"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_decoder_that_crashes_while_a_clip_is_computed_costs_its_video(how, num_workers):
    bad = FakeVideo("bad", 6, 1, bad_frame=3, how=how)
    loader = ClipLoader(plan_of([healthy(0), bad, healthy(2)]), num_workers, time_limit=60, skip_unreadable=True)
    seen, start = [], time.perf_counter()
    for clip in loader:
        seen.append((clip.video, clip.index))
        # While one of these is computed the next to be read is the one that crashes, by one worker or by two.
        until = time.perf_counter() + 0.2 * (seen[-1] in (("video 0", 2), ("bad", 0)))
        while time.perf_counter() < until:  # computing: a signal's handler runs in between
            pass
    assert seen == [*[("video 0", i) for i in range(3)], ("bad", 0), *[("video 2", i) for i in range(3)]]
    assert list(loader.failures) == ["bad"]
    assert "the decoder crashed" in str(loader.failures["bad"])
    # What has died is not waited for.
    assert time.perf_counter() - start < 30


def test_two_loaders_at_once_give_signals_back():
    assert len(list(ClipLoader(plan_of([healthy(0)]), 1))) == 3  # PyTorch's handler is set once in a process
    before = signal.getsignal(signal.SIGCHLD)
    first, second = (iter(ClipLoader(plan_of([healthy(number)]), 1)) for number in range(2))
    pairs = list(zip(first, second, strict=False))
    assert [clip.video for pair in pairs for clip in pair] == ["video 0", "video 1"] * 3
    first.close()
    second.close()
    bad = FakeVideo("bad", 6, 1, bad_frame=3, how="exit")
    with pytest.raises(UnreadableVideoError, match="the decoder crashed"):
        list(ClipLoader(plan_of([bad]), 1))
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_call_has_a_time_limit_and_keeps_its_error():
    assert call_with_time_limit(max, 3, 5, seconds=10) == 5
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"no result within 0\.2 s"):
        call_with_time_limit(time.sleep, 60, seconds=0.2)
    assert time.perf_counter() - start < 10
    with pytest.raises(ValueError, match="invalid literal"):
        call_with_time_limit(int, "x", seconds=10)
    with pytest.raises(ValueError, match="the decoder crashed"):
        call_with_time_limit(os._exit, 1, seconds=10)


def test_a_reader_that_is_garbage_does_not_block_worker_processes(tmp_path, write_images, make_frames):
    folder = write_images(tmp_path, make_frames(3, 40, 160))
    for _ in range(3):
        gc.disable()
        reader = open_frames(folder)
        reader.itself = reader
        del reader
        gc.enable()
        assert len(list(ClipLoader(plan_of([healthy(0)]), 1, time_limit=20))) == 3
        gc.collect()
