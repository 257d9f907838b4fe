"""Label Studio for videos: a task a video, each segment as a box over time.

::

    tasks.json
    label_config.xml            the project's labeling interface

Label Studio tracks boxes, not masks. Frames are counted from 1, and times are those of the frames. Between keyframes
Label Studio fills in, so that only a frame amid equal ones can do without.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from zsvss.results.exports.base import Exporter
from zsvss.results.exports.label_studio import label_tags
from zsvss.results.exports.piecewise_files import write_json_list
from zsvss.results.predictions import Predictions, Segment


class LabelStudioVideo(Exporter):
    """Writes what ``segments.json`` says; needs no masks."""

    def write(self) -> None:
        """Write tasks and the labeling interface."""
        write_json_list(self.output / "tasks.json", None, "", map(self._task, self.videos))
        rates = {round(video.source.fps, 3) for video in self.videos if video.source.fps}
        rate = f' framerate="{rates.pop():g}"' if len(rates) == 1 else ""
        labels = label_tags(self.categories)
        config = (
            f'<View>\n  <Video name="video" value="$video"{rate}/>\n  <VideoRectangle name="box" toName="video"/>\n'
            f'  <Labels name="segments" toName="video">\n{labels}  </Labels>\n</View>\n'
        )
        (self.output / "label_config.xml").write_text(config, encoding="utf-8")
        self.notes.append("Label Studio tracks boxes, so that masks are not in this export; label-studio has them")
        if images := [video.video for video in self.videos if video.source.files is not None]:
            self.notes.append(f"{', '.join(images)}: of images; Label Studio needs them as a video, overlay.mp4 is one")

    def _task(self, video: Predictions) -> dict[str, Any]:
        name = PurePath(video.source.path).name or f"{video.video}.mp4"
        results = [
            {
                "id": f"segment-{segment.id}",
                "from_name": "box",
                "to_name": "video",
                "type": "videorectangle",
                "origin": "prediction",
                "value": {
                    "framesCount": video.num_frames,
                    "duration": video.source.duration,
                    "sequence": list(self._sequence(video, segment)),
                    "labels": [segment.name],
                },
                "meta": {"text": [f"segment {segment.id}"]},
            }
            for segment in video.segments
        ]
        data = {"video": self.options.url + name, "name": video.video}
        return {"data": data, "predictions": [{"model_version": "zsvss", "result": results}]}

    def _sequence(self, video: Predictions, segment: Segment) -> Iterator[dict[str, Any]]:
        """Keyframes; the last one before a gap is disabled from there on."""
        self.written[video.video, segment.id] += 1
        frames = segment.frames.tolist()
        shares = segment.boxes / np.array([video.width, video.height] * 2) * 100
        for index, number in enumerate(frames):
            ends = index + 1 == len(frames) or frames[index + 1] > number + 1
            begins = index == 0 or frames[index - 1] < number - 1
            if not (begins or ends) and (segment.boxes[index - 1 : index + 2] == segment.boxes[index]).all():
                continue
            x, y, width, height = (round(value, 4) for value in shares[index].tolist())
            yield {
                "frame": number + 1,
                # From a keyframe that is not enabled on, the box is not shown until the next one.
                "enabled": not ends or number + 1 == video.num_frames,
                "rotation": 0,
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "time": None if video.frame_times is None else video.frame_times[number],
            }
