"""What tests call in a process before its command line: an end without a word at a chosen clip."""

from __future__ import annotations

import os
import signal
from typing import Any


def at_clip(index: int) -> None:
    """Kill the process when it is to segment a clip, and what comes before is written."""
    from zsvss.callbacks.prediction_writer import PredictionWriter
    from zsvss.module import VideoSegmentation

    original = VideoSegmentation.predict_step

    def killed(self: VideoSegmentation, clip: Any, batch_idx: int) -> Any:
        if clip.index == index:
            for callback in self.trainer.callbacks:
                if isinstance(callback, PredictionWriter):
                    callback._wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, clip, batch_idx)

    VideoSegmentation.predict_step = killed
