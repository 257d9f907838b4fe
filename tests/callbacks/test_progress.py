from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.progress import Progress

from zsvss import Embedded, KNNSceneContext, MaskedModulation, VideoSegmenter
from zsvss.callbacks.progress import (
    ClipShare,
    FrameProgressBar,
    _FramesColumn,
    _num_frames,
    _SpeedColumn,
    _TimeLeftColumn,
    lateness,
)
from zsvss.progress import listening


def test_speed_and_time_left_count_frames_since_the_start() -> None:
    now = 0.0
    progress = Progress(get_time=lambda: now, auto_refresh=False)
    progress.add_task("swan", total=130)
    (task,) = progress.tasks
    assert _SpeedColumn().render(task).plain == ""
    assert _TimeLeftColumn().render(task).plain == ""
    now = 20.0
    progress.update(task.id, completed=50)
    assert _SpeedColumn().render(task).plain == "2.50 frames/s"
    assert _TimeLeftColumn().render(task).plain == "0:00:32 left"
    progress.update(task.id, completed=50.9)
    assert _FramesColumn().render(task).plain == "50/130 frames", "only whole frames are counted"


def test_frames_that_are_predicted_twice_count_once() -> None:
    plan = [SimpleNamespace(num_final=number, received=None) for number in (3, 1, 3)]
    assert _num_frames(SimpleNamespace(num_frames=7)) == 7
    assert _num_frames(SimpleNamespace(num_frames=None)) == math.inf
    bar = FrameProgressBar()
    bar.disable()
    for clip in plan:
        bar.on_clip_end(SimpleNamespace(testing=True), None, {"seconds": {}}, clip)
    assert bar._num_done == 7


def test_share_of_a_clip_follows_the_stages_and_what_was_measured() -> None:
    share = ClipShare()
    first = [share.advance(stage, done) for stage in ("encode", "record", "modulation") for done in (0.0, 0.5, 1.0)]
    assert first == sorted(first)
    assert (first[0], first[-1]) == (0.0, pytest.approx(1.0))
    share.learn({"encode": 1.0, "record": 2.0, "kmeans": 0.5, "context": 0.5, "modulation": 4.0})
    share.begin()
    assert share.advance("record", 0.5) == pytest.approx(2 / 8)
    assert share.advance("encode", 0.5) == pytest.approx(2 / 8), "it never goes back"
    assert share.advance("unheard of", 1.0) == pytest.approx(2 / 8)
    assert share.advance("modulation", 0.25) == pytest.approx(5 / 8)


def test_the_bar_moves_within_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of the whole method, through the bar's own hooks; labels are those of a run that nobody listens to."""
    backbone = Embedded(max_batch=4)
    backbone.load()
    context = KNNSceneContext(num_clusters=2, num_restarts=1)
    segmenter = VideoSegmenter(backbone, context, None, MaskedModulation(), input_size=(64, 128))
    frames = torch.randint(256, (2, 32, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip: Any = SimpleNamespace(video="swan", num_final=2, received=None)
    bar, shown = FrameProgressBar(), []
    bar.progress = SimpleNamespace(update=lambda task, **what: shown.append(what))
    monkeypatch.setattr(bar, "refresh", lambda: None)
    bar._follow(1, clip)
    segmented = segmenter(frames)
    assert shown[0] == {"description": "swan"}
    within = [what["completed"] for what in shown[1:]]
    assert within == sorted(within)
    assert within[0] == 0.0
    assert len({value for value in within if 0.5 < value < 2}) >= 10, "modulation tells of its steps"
    bar.on_clip_end(SimpleNamespace(testing=True), None, {"seconds": segmented.seconds}, clip)
    bar._num_done, bar.test_progress_bar_id = 0, 1
    shown.clear()
    segmenter.reset()
    assert torch.equal(segmenter(frames).labels_THW, segmented.labels_THW)
    assert shown == [], "after the clip nobody listens"


def test_the_segmenter_tells_every_stage() -> None:
    told: list[str] = []
    backbone = Embedded()
    backbone.load()
    segmenter = VideoSegmenter(backbone, KNNSceneContext(num_clusters=2, num_restarts=1), input_size=(64, 128))
    with listening(lambda stage, done: told.append(stage)):
        segmenter(torch.zeros(1, 32, 64, 3).byte())
    assert list(dict.fromkeys(told)) == ["encode", "record", "context", "refinement", "modulation"]


def test_a_stream_says_how_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 100.0)
    told = [
        lateness(SimpleNamespace(video="door", received=received, num_dropped=dropped))
        for received, dropped in [(None, 0), (99.44, 0), (98.0, 12), (101.0, 0)]
    ]
    assert told == ["door", "door 0.6 s late", "door 2.0 s late, 12 dropped", "door 0.0 s late"]


def test_the_columns_of_a_stream_have_no_end() -> None:
    now = 0.0
    progress = Progress(_FramesColumn(), _SpeedColumn(), _TimeLeftColumn(), get_time=lambda: now)
    progress.add_task("door", total=math.inf)
    (task,) = progress.tasks
    now = 8.0
    progress.update(task.id, completed=32)
    told = [column.render(task).plain for column in (_FramesColumn(), _SpeedColumn(), _TimeLeftColumn())]
    assert told == ["32 frames", "4.00 frames/s", ""]
