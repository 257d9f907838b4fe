"""Where the shots of a video begin, found while its frames stream by.

H W pixels, P values of a thumbnail; 3 is RGB.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from zsvss.data.images import ByteArray

Thumbnail = npt.NDArray[np.float32]

# Longest side of what the detector of cuts sees, and size of what pictures are compared by.
_DETECTED_SIDE = 160
_THUMBNAIL = (32, 18)
# Standard deviation of the grey values below which a frame shows nothing: black, white, or a plain colour.
_BLANK = 4.0
# Frames on either side of a cut that must all differ: a flash or a bad frame does not last longer.
_SETTLES = 4
# Correlation of two pictures of one shot, and of the ends of a dissolve.
_SAME, _OTHER = 0.7, 0.4
# How far, of the distance between its ends, the frames of a dissolve may be from mixtures of them.
_UNMIXED = 0.45
_SHORTEST_DISSOLVE = 8
# Of the smaller squared contrast of its ends: what the palest frame of a dissolve has at most.
_PALER = 0.85


class ShotDetector:
    """Finds cuts, dissolves and fades between shots.

    Cuts are found by PySceneDetect's adaptive detector: frames that change far more than those around them. Of these
    remain the ones across which no picture looks like one before, so that flashes and single bad frames are none.
    Frames that show nothing (black ones, say) are passed over: a cut is where the picture after them is another one
    than before, and at the first picture of a video that begins with four such frames or more. A dissolve is a run of
    frames that are mixtures of its ends, in growing shares of the second one; the cut is in its middle.

    Args:
        threshold: how many times as much as its neighbours a frame must change.
        min_change: least change of a cut, mean over hue, saturation and value, each 0..255.
        longest_dissolve: frames; 0 finds no dissolves.
        shortest_shot: frames.

    Source: https://www.scenedetect.com, `AdaptiveDetector`.
    """

    def __init__(
        self, threshold: float = 2.0, min_change: float = 15.0, longest_dissolve: int = 32, shortest_shot: int = 5
    ) -> None:
        if threshold <= 1 or min_change <= 0:
            raise ValueError(
                f"data.shots.threshold = {threshold} must be above 1 and min_change = {min_change} above 0."
            )
        if longest_dissolve < 0 or shortest_shot < 1:
            raise ValueError(
                f"data.shots.longest_dissolve = {longest_dissolve} must be 0 or more and shortest_shot = "
                f"{shortest_shot} 1 or more."
            )
        self.threshold = threshold
        self.min_change = min_change
        self.longest_dissolve = longest_dissolve
        self.shortest_shot = shortest_shot

    def start(self) -> ShotFinder:
        """A finder of the shots of one video."""
        return ShotFinder(self)


class _Picture(NamedTuple):
    """A frame that shows something.

    Attributes:
        number: of the frame.
        thumbnail_P: its colours, uint8.
        standard_P: its colours, with mean 0 and norm 1.
        contrast: standard deviation of its grey values.
    """

    number: int
    thumbnail_P: ByteArray
    standard_P: Thumbnail
    contrast: float


class ShotFinder:
    """Takes the frames of one video in order and tells where shots begin.

    Args:
        settings: of the detector.
    """

    def __init__(self, settings: ShotDetector) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self.settings = settings
        self.settled = 0
        """The shots of the frames before this one are known, but for dissolves that are not over."""
        self.num_seen = 0
        """Number of the frame that comes next."""
        self._last_cut = self._last_change = 0
        self._adaptive: Any = AdaptiveDetector(settings.threshold, 0, min_content_val=settings.min_change)
        self._pictures: deque[_Picture] = deque(maxlen=settings.longest_dissolve + 2 * _SETTLES + 1)
        self._candidates: deque[int] = deque()
        self._num_blank = 0

    def feed(self, frame_HW3: ByteArray) -> list[int]:
        """Take the next frame.

        Returns:
            numbers of the frames that new shots begin with, in order, as far as that is known by now.
        """
        number, self.num_seen = self.num_seen, self.num_seen + 1
        small_hw3 = _shrunk(frame_HW3)
        picture = _picture(number, small_hw3)
        if picture is None:
            self._num_blank += 1
            # What shows nothing cannot decide; the pictures before it need not wait for the next one.
            cuts = self._judge(_SETTLES) if self._num_blank == _SETTLES else []
            if self._num_blank >= _SETTLES:
                self.settled = self.num_seen
            return cuts
        if self._num_blank and self._pictures:
            self._candidates.append(number)
        # Labels of what shows nothing say nothing of the first picture, whatever follows it.
        is_first = self._num_blank >= _SETTLES and not self._pictures
        self._num_blank = 0
        self._pictures.append(picture)
        self._note_cuts(number, small_hw3)
        if is_first:
            self._last_cut = self._last_change = number
        cuts = [number] if is_first else self._judge(0)
        self.settled = max(self.settled, self._pictures[max(0, len(self._pictures) - _SETTLES + 1)].number)
        return cuts + self._dissolve()

    def finish(self) -> list[int]:
        """There are no more frames; returns the cuts that were open."""
        self.settled = self.num_seen
        return self._judge(_SETTLES)

    def _note_cuts(self, number: int, small_hw3: ByteArray) -> None:
        """Ask the adaptive detector, which tells of a frame when it has seen two more."""
        from scenedetect import FrameTimecode

        for found in self._adaptive.process_frame(FrameTimecode(number, 25.0), small_hw3[..., ::-1]):
            if found.frame_num not in self._candidates:
                self._candidates.append(found.frame_num)

    def _judge(self, missing: int) -> list[int]:
        """Decide about the candidates after which there are enough pictures, but for so many that are missing."""
        cuts = []
        numbers = [picture.number for picture in self._pictures]
        waiting = deque[int]()
        for candidate in sorted(self._candidates):
            place = next((index for index, number in enumerate(numbers) if number >= candidate), len(numbers))
            if len(numbers) - place < _SETTLES - missing:
                waiting.append(candidate)
            elif self._is_cut(place) and candidate - self._last_cut >= self.settings.shortest_shot:
                self._last_cut = self._last_change = candidate
                cuts.append(candidate)
        self._candidates = waiting
        return cuts

    def _is_cut(self, place: int) -> bool:
        """Whether no picture from a place on looks like one before."""
        pictures = list(self._pictures)
        before, behind = pictures[max(0, place - _SETTLES) : place], pictures[place : place + _SETTLES]
        return bool(before and behind) and all(_alike(a, b) < _SAME for a in before for b in behind)

    def _dissolve(self) -> list[int]:
        """Whether a dissolve ends with the last picture."""
        pictures, settings = list(self._pictures), self.settings
        lengths = range(_SHORTEST_DISSOLVE, min(settings.longest_dissolve, len(pictures) - 1) + 1, 3)
        for length in lengths:
            run = pictures[-length - 1 :]
            is_early = run[0].number < self._last_change or run[-1].number - run[0].number != length
            if is_early or any(candidate > run[0].number for candidate in self._candidates):
                return []
            middle = run[length // 2].number
            if middle - self._last_cut >= settings.shortest_shot and _is_dissolve(run):
                self._last_cut, self._last_change = middle, run[-1].number
                return [middle]
        return []


def _shrunk(frame_HW3: ByteArray) -> ByteArray:
    """A frame whose longer side is as long as the detector needs it, in whole steps."""
    step = max(1, max(frame_HW3.shape[:2]) // _DETECTED_SIDE)
    if step == 1:
        return frame_HW3
    size = (max(1, frame_HW3.shape[1] // step), max(1, frame_HW3.shape[0] // step))
    shrunk: ByteArray = cv2.resize(frame_HW3, size, interpolation=cv2.INTER_AREA)
    return shrunk


def _picture(number: int, small_hw3: ByteArray) -> _Picture | None:
    """What a frame shows; None if it shows nothing."""
    thumbnail = cv2.resize(small_hw3, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    contrast = float(cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY).std())
    if contrast < _BLANK:
        return None
    standard_P = thumbnail.astype(np.float32).ravel()
    standard_P -= standard_P.mean()
    return _Picture(number, thumbnail.ravel(), standard_P / np.linalg.norm(standard_P), contrast)


def _alike(first: _Picture, second: _Picture) -> float:
    """Correlation of two pictures, whatever their brightness and contrast, -1..1."""
    return float(first.standard_P @ second.standard_P)


def _is_dissolve(run: list[_Picture]) -> bool:
    """Whether pictures are mixtures of the first and the last one, in growing shares of the last."""
    first, last = run[0], run[-1]
    if _alike(first, last) > _OTHER:
        return False
    # Mixtures of two pictures are paler than both; a camera that moves shows pictures as rich in contrast as before.
    ends = min(first.contrast, last.contrast) ** 2
    if min(picture.contrast for picture in run[1:-1]) ** 2 > _PALER * ends:
        return False
    first_P = first.thumbnail_P.astype(np.float32)
    way_P = last.thumbnail_P - first_P
    length = float(way_P @ way_P)
    shares, rest = [0.0], 0.0
    for picture in run[1:-1]:
        done_P = picture.thumbnail_P - first_P
        share = float(done_P @ way_P) / length
        rest_P = done_P - share * way_P
        shares.append(share)
        rest += float(np.sqrt(rest_P @ rest_P / length))
    steps = [after - before for before, after in pairwise([*shares, 1.0])]
    return rest / (len(run) - 2) < _UNMIXED and min(steps) > -0.05 and max(steps) < 0.5
