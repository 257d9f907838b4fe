"""The loader of videos of which nothing is known before they are read."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from numbered_videos import encode, numbered_frames, numbers_of
from PIL import Image

from zsvss.data.clip import Clip, clip_starts
from zsvss.data.folder import VideoFolder
from zsvss.data.shots import ShotDetector
from zsvss.data.streaming_loader import Cutting, Opened, StreamingLoader
from zsvss.data.video import UNKNOWN_LENGTH, FileVideo, OpenVideo, UnreadableVideoError, Video


@dataclass(frozen=True)
class FakeVideo(Video):
    """Frames that bear their number; opening or reading it may go wrong."""

    trouble: str = ""

    @property
    def path(self) -> str:
        return self.name

    @property
    def has_ground_truth(self) -> bool:
        return False

    def open(self) -> OpenVideo:
        return OpenFake(self)


class OpenFake(OpenVideo):
    def __init__(self, video: FakeVideo) -> None:
        self._video = video

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{number:05d}" for number in range(20))

    def read(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        if self._video.trouble and stop > 8:
            if self._video.trouble == "hangs":
                time.sleep(30)
            if self._video.trouble == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("it is damaged")
        frames = torch.arange(start, stop, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 6, 3)
        return frames.contiguous(), None, torch.zeros(stop - start, dtype=torch.bool)


def fake(name: str, trouble: str = "", num_frames: int = UNKNOWN_LENGTH) -> FakeVideo:
    return FakeVideo(name, num_frames, trouble)


def cuts_of(clips: list[Clip]) -> list[tuple[str, int, int, int, int]]:
    return [(clip.video, clip.start, len(clip.frame_names), clip.num_final, clip.video_length) for clip in clips]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_videos_of_unknown_length_are_cut_as_others(num_workers: int) -> None:
    told: list[Opened] = []
    loader = StreamingLoader([fake("a"), fake("b")], Cutting(6), when_opened=told.append, num_workers=num_workers)
    assert loader.num_frames is None
    clips = list(loader)
    expected = [(name, *clip, 20) for name in "ab" for clip in clip_starts(20, 6)]
    assert cuts_of(clips) == expected
    for clip in clips:
        assert clip.frames_THW3[:, 0, 0, 0].tolist() == list(range(clip.start, clip.start + 6))
    assert told == [Opened("a", 20, None), Opened("b", 20, None)]
    assert loader.num_frames == 40


def test_a_limit_and_a_known_length_hold() -> None:
    loader = StreamingLoader([fake("a", num_frames=9)], Cutting(6), num_workers=0)
    assert loader.num_frames == 9
    assert cuts_of(list(loader)) == [("a", *clip, 9) for clip in clip_starts(9, 6)]


def test_a_limit_is_no_expectation() -> None:
    videos = [FakeVideo("a", UNKNOWN_LENGTH, limit=9), FakeVideo("b", UNKNOWN_LENGTH, limit=50)]
    clips = list(StreamingLoader(videos, Cutting(6), num_workers=0))
    expected = [("a", *clip, 9) for clip in clip_starts(9, 6)] + [("b", *clip, 20) for clip in clip_starts(20, 6)]
    assert cuts_of(clips) == expected


@pytest.mark.parametrize("trouble", ["raises", "hangs", "dies"])
def test_what_cannot_be_read_is_left_out_and_the_others_go_on(trouble: str) -> None:
    videos = [fake("a"), fake("bad", trouble), fake("c")]
    loader = StreamingLoader(videos, Cutting(6), num_workers=1, time_limit=2, skip_unreadable=True)
    clips = list(loader)
    assert [clip.video for clip in clips if clip.video != "bad"] == ["a"] * 4 + ["c"] * 4
    reason = {"raises": "it is damaged", "hangs": "gave nothing for 2 s", "dies": "the decoder crashed"}[trouble]
    assert list(loader.failures) == ["bad"]
    assert reason in str(loader.failures["bad"])
    with pytest.raises(UnreadableVideoError, match=reason):
        list(StreamingLoader(videos, Cutting(6), num_workers=1, time_limit=2))


def test_goes_on_after_a_clip_of_an_earlier_run() -> None:
    first = list(StreamingLoader([fake("a"), fake("b")], Cutting(6, shots=ShotDetector()), num_workers=0))
    place = first[5].place
    assert first[5].video == "b"
    assert place is not None
    loader = StreamingLoader([fake("b", num_frames=20)], Cutting(6), {"b": place}, num_workers=1)
    rest = list(loader)
    assert cuts_of(rest) == cuts_of(first[6:])
    assert [clip.index for clip in rest] == [2, 3]
    assert loader.num_frames == 20 - rest[0].start


def test_a_large_folder_is_not_looked_into_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "v000.mp4", numbered_frames(5), crf="12")
    content = (tmp_path / "v000.mp4").read_bytes()
    for number in range(1, 39):
        (tmp_path / f"v{number:03d}.mp4").write_bytes(content)
    (tmp_path / "v039.mp4").write_bytes(b"no video")
    (tmp_path / "v040").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48)).save(tmp_path / "v040" / f"{number:05d}.png")
    limited = VideoFolder(tmp_path, num_workers=0, limit_videos=2, limit_frames=9, shots=None)
    assert [(clip.num_final, clip.is_last) for clip in limited.predict_dataloader()] == [(5, True)] * 2
    shorter = VideoFolder(tmp_path, num_workers=2, limit_videos=1, limit_frames=3)
    assert [clip.num_final for clip in shorter.predict_dataloader()] == [3]
    opened: list[Path | tuple[Path, ...]] = []
    original = FileVideo.open
    monkeypatch.setattr(FileVideo, "open", lambda self: (opened.append(self.frames), original(self))[1])
    monkeypatch.setattr("zsvss.data.folder.open_frames", lambda *_: pytest.fail("was probed"))
    data = VideoFolder(tmp_path, num_workers=0, skip_unreadable=True)
    assert [video.num_frames for video in data.videos()] == [UNKNOWN_LENGTH] * 41
    assert not opened
    clips = iter(data.predict_dataloader())
    assert numbers_of(next(clips).frames_THW3) == list(range(5))
    assert len(opened) == 1
    assert (data.videos()[0].num_frames, data.videos()[1].num_frames) == (5, UNKNOWN_LENGTH)
    assert data.videos()[0].source is not None
    assert data.videos()[0].source.fps == 25
    names = [clip.video for clip in clips]
    assert names == [f"v{number:03d}" for number in [*range(1, 39), 40]]
    assert list(data.failures) == ["v039"]
    assert [data.videos()[number].num_frames for number in (38, 39, 40)] == [5, UNKNOWN_LENGTH, 3]
