"""NumPy: one array of ids a video.

::

    <video>/ids.npy          uint8 or uint16 [T, H, W]; 0 is no segment
            times.npy        float64 [T], seconds; where there are times
            segments.json    as in the run folder, with the names of this export

``np.load("ids.npy", mmap_mode="r")`` reads it without taking memory.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.lib.format import open_memmap

from zsvss.results.atomic_files import safe_folder
from zsvss.results.exports.base import Exporter
from zsvss.results.predictions import FILE, read_json


class NumpyArrays(Exporter):
    """Writes an array frame by frame."""

    def write(self) -> None:
        """Write the arrays and what is known of the segments."""
        for video in self.videos:
            folder = self.output / safe_folder(video.video)
            folder.mkdir(parents=True)
            dtype = np.uint8 if video.segments[-1].id <= np.iinfo(np.uint8).max else np.uint16
            shape = (video.num_frames, video.height, video.width)
            ids_THW = open_memmap(folder / "ids.npy", mode="w+", dtype=dtype, shape=shape)
            for frame in self.frames(video):
                ids_THW[frame.number] = frame.ids_HW
            ids_THW.flush()
            if video.frame_times is not None:
                np.save(folder / "times.npy", np.array(video.frame_times))
            content = read_json(video.folder / FILE)
            for entry, segment in zip(content["segments"], video.segments, strict=True):
                entry |= {"name": segment.name, "class_id": segment.class_id, "color": segment.color}
            content["mask_files"] = None
            (folder / FILE).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
