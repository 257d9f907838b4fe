from __future__ import annotations

from types import SimpleNamespace

from rich.progress import Progress

from zsvss.callbacks.progress import FrameProgressBar, _num_frames, _SpeedColumn, _TimeLeftColumn


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


def test_frames_that_are_predicted_twice_count_once() -> None:
    plan = [SimpleNamespace(num_final=3), SimpleNamespace(num_final=1), SimpleNamespace(num_final=3)]
    assert _num_frames(SimpleNamespace(plan=plan)) == 7
    bar = FrameProgressBar()
    bar.disable()
    for clip in plan:
        bar.on_clip_end(SimpleNamespace(testing=True), None, {}, clip)
    assert bar._num_done == 7
