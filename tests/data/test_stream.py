"""Streams, received from servers on this machine's loopback."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered_frames, numbers_of

from zsvss.data.clip import Clip
from zsvss.data.folder import VideoFolder
from zsvss.data.stream import StreamClock, StreamVideo, stream_name
from zsvss.data.streaming_loader import Cutting, StreamingLoader
from zsvss.data.video import UNKNOWN_LENGTH, UnreadableVideoError


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def stream(location: str, **settings: object) -> StreamVideo:
    return StreamVideo("live", UNKNOWN_LENGTH, location, time_limit=20, **settings)


def clips_of(video: StreamVideo, clip_length: int = 7) -> list[Clip]:
    return list(StreamingLoader([video], Cutting(clip_length), num_workers=1))


def test_an_http_stream_gives_every_frame_in_short_clips(tmp_path: Path, server: str) -> None:
    encode(tmp_path / "v.ts", numbered_frames(30), crf="12")
    clips = clips_of(stream(f"{server}/v.ts"))
    assert [(clip.start, len(clip.frame_names), clip.is_last) for clip in clips] == [
        (0, 7, False), (7, 7, False), (14, 7, False), (21, 7, False), (28, 2, True),
    ]  # fmt: skip
    frames = torch.cat([clip.frames_THW3 for clip in clips])
    assert numbers_of(frames) == list(range(30))
    times = [time for clip in clips for time in clip.times or ()]
    np.testing.assert_allclose(times, np.arange(30) / 25, atol=1e-6)
    assert all(clip.received is not None and 0 <= time.time() - clip.received < 60 for clip in clips)
    assert {clip.place for clip in clips} == {None}
    assert clips[-1].video_length == 30


def test_a_limit_ends_a_stream_without_a_plan(tmp_path: Path, server: str) -> None:
    encode(tmp_path / "v.ts", numbered_frames(30), crf="12")
    data = VideoFolder(f"{server}/v.ts", clip_length=4, limit_frames=10, shots=None, num_workers=2)
    clips = list(data.predict_dataloader())
    assert numbers_of(torch.cat([clip.frames_THW3 for clip in clips])) == list(range(10))
    assert clips[-1].is_last


def test_fps_takes_so_many_frames_a_second(tmp_path: Path, server: str) -> None:
    encode(tmp_path / "v.ts", numbered_frames(30), crf="12")
    clips = clips_of(stream(f"{server}/v.ts", fps=5.0))
    assert numbers_of(torch.cat([clip.frames_THW3 for clip in clips])) == [0, 5, 10, 15, 20, 25]


def test_a_late_reader_drops_frames_or_makes_the_sender_wait(tmp_path: Path, server: str) -> None:
    encode(tmp_path / "v.ts", numbered_frames(60), crf="12")
    received = {}
    for rule in ("drop", "wait"):
        opened = stream(f"{server}/v.ts", when_late=rule, num_held=6).open()
        frames = opened.frames(0, UNKNOWN_LENGTH)
        first = next(frames)
        opened._thread.join(timeout=5 if rule == "drop" else 0.3)  # time in which everything could have come
        rest = list(frames)
        received[rule] = numbers_of(torch.stack([frame.image_HW3 for frame in [first, *rest]]))
        assert opened.num_dropped == 60 - len(received[rule])
        assert [frame.name for frame in rest] == [f"{number:05d}" for number in range(1, len(rest) + 1)]
        opened.close()
    assert received["wait"] == list(range(60))
    assert received["drop"][-6:] == list(range(54, 60))
    assert len(received["drop"]) in (6, 7)


def test_a_udp_stream(tmp_path: Path) -> None:
    """Sent as cameras send: whether anybody listens or not, and joined in its midst."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    encode(tmp_path / "v.ts", numbered_frames(60), crf="12", g="10")
    is_done = threading.Event()

    def send() -> None:
        while not is_done.is_set():
            with (
                av.open(str(tmp_path / "v.ts")) as read,
                av.open(f"udp://127.0.0.1:{port}?pkt_size=1316", "w", format="mpegts") as sent,
            ):
                copy = sent.add_stream_from_template(read.streams.video[0])
                for packet in read.demux(video=0):
                    if packet.dts is not None and not is_done.is_set():
                        packet.stream = copy
                        sent.mux(packet)
                        time.sleep(0.01)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        video = stream(f"udp://127.0.0.1:{port}?fifo_size=100000&overrun_nonfatal=1")
        opened = video.open()
        frames = [frame for frame, _ in zip(opened.frames(0, UNKNOWN_LENGTH), range(12), strict=False)]
        opened.close()
    finally:
        is_done.set()
        sender.join(timeout=5)
    numbers = numbers_of(torch.stack([frame.image_HW3 for frame in frames]))
    # One pair may miss a datagram that was lost.
    assert sum(after in (before + 1, 0) for before, after in itertools.pairwise(numbers)) >= 10
    times = [frame.time for frame in frames]
    assert all(before < after for before, after in itertools.pairwise(times))


def test_what_cannot_be_opened_is_told(server: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideoError, match=r"it cannot be opened \(.*404 .*\); is the sender running\?"):
        clips_of(stream(f"{server}/none.ts"))
    (tmp_path / "text.ts").write_text("no video" * 100)
    with pytest.raises(UnreadableVideoError, match=r"it cannot be opened|it has no video"):
        clips_of(stream(f"{server}/text.ts"))


def test_a_stream_that_falls_silent_ends_with_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        video = StreamVideo("v", UNKNOWN_LENGTH, f"http://127.0.0.1:{silent.getsockname()[1]}/v.ts", time_limit=0.5)
        begin = time.monotonic()
        with pytest.raises(UnreadableVideoError, match="cannot be opened"):
            clips_of(video)
        assert time.monotonic() - begin < 15


def test_a_stream_is_known_by_its_place(tmp_path: Path) -> None:
    data = VideoFolder("rtsp://camera.local:554/door?user=a", fps=5, when_late="wait", clip_length=4)
    (video,) = data.videos()
    assert isinstance(video, StreamVideo)
    assert (video.location, video.fps, video.when_late) == ("rtsp://camera.local:554/door?user=a", 5, "wait")
    assert video.is_live
    assert data.name == "door", "every recording draws the same numbers"
    assert video.name.startswith("door-2")
    assert stream_name("-") == "pipe"
    assert stream_name("/dev/video0") == "video0"


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([7.0, 7.1, 7.2], [0, 0.1, 0.2]),
        ([7.0, 7.1, 2.0, 2.1], [0, 0.1, 0.35, 0.45]),
        ([7.0, 7.1, 99.0, 99.5], [0, 0.1, 0.35, 0.85]),
        ([7.0, None, 7.5], [0, 0.25, 0.5]),
        ([None, 3.0, None], [0, 0.25, 0.5]),
        ([7.0, 7.0, 7.1], [0, 0.25, 0.35]),
    ],
)
def test_time_goes_on_whatever_the_stamps_do(stamps: list[float | None], times: list[float]) -> None:
    clock = StreamClock(4.0)
    np.testing.assert_allclose([clock.tell(stamp) for stamp in stamps], times, atol=1e-9)


@pytest.mark.parametrize("breaks", [False, True])
def test_what_came_before_a_stream_fell_silent_is_kept(
    tmp_path: Path, breaks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    encode(tmp_path / "v.ts", numbered_frames(60), crf="12", g="10")
    content = (tmp_path / "v.ts").read_bytes()
    is_done = threading.Event()

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nContent-Length: 9999999\r\n\r\n")
            connection.sendall(content[: len(content) // 188 * 3 // 4 * 188])
            if not breaks:
                is_done.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        location = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/v.ts"
        video = StreamVideo("live", UNKNOWN_LENGTH, location, time_limit=2)
        clips = clips_of(video)
        is_done.set()
    numbers = numbers_of(torch.cat([clip.frames_THW3 for clip in clips]))
    assert len(numbers) >= 30
    assert numbers == list(range(len(numbers)))
    assert clips[-1].is_last
    assert clips[-1].video_length == len(numbers)
    assert "secret" not in caplog.text + video.path
    if not breaks:
        assert f"after {len(numbers)} frames" in caplog.text


def test_no_message_tells_a_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnreadableVideoError, match="cannot be opened") as told:
        clips_of(stream(f"http://me:secret@127.0.0.1:{port}/v.ts"))
    assert "secret" not in str(told.value)
    assert f"http://127.0.0.1:{port}/v.ts" in str(told.value)


def test_what_only_streams_have_is_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.fps is 5, but data\.input is no stream"):
        VideoFolder(tmp_path, fps=5)
    with pytest.raises(ValueError, match=r"data\.masks cannot be given for the stream"):
        VideoFolder("udp://127.0.0.1:1", masks=tmp_path)
    with pytest.raises(ValueError, match=r"data\.fps is 0"):
        VideoFolder("-", fps=0)


def test_the_standard_input_is_a_stream(tmp_path: Path) -> None:
    encode(tmp_path / "v.ts", numbered_frames(20), crf="12")
    before = os.dup(0)
    with (tmp_path / "v.ts").open("rb") as file:
        os.dup2(file.fileno(), 0)
        try:
            clips = clips_of(stream("-"))
        finally:
            os.dup2(before, 0)
            os.close(before)
    assert numbers_of(torch.cat([clip.frames_THW3 for clip in clips])) == list(range(20))
