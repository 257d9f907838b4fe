"""Video consistency VC_C: is the prediction constant where the ground truth is constant over C frames?

The published script's definition: for a video of T labelled frames, windows i = 0 .. T-C-1 (the last complete window
is never used), window = frames i .. i+C-1. G = pixels whose raw ground-truth value is the same in all C frames,
P = pixels whose prediction is the same in all C frames; the score of a window is ``|G and P| / |G|``. Windows with
``|G| = 0`` are dropped, and the mean runs over all windows of all videos. Void counts in G, and the prediction need
not be right, only constant.

Nothing is re-read for overlapping windows: each pixel carries the number of frames since its value last changed, and
a window is constant where that number has reached C. Memory is a few integers a pixel whatever the video's length.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from zsvss.data.taxonomy import Taxonomy

logger = logging.getLogger(__name__)

ConsistencyProtocol = Literal["official", "complete", "correct", "cffm", "self"]
"""Which windows count, and as what.

- ``official``: the published script, as in this module's docstring.
- ``complete``: all T-C+1 windows.
- ``correct``: all conditions of ``official``, and a pixel only scores where the prediction is the ground-truth class.
  Void pixels stay in G, where no prediction is right.
- ``cffm``: the CFFM repository's script, whose numbers many papers print: as ``official``, but raw 0 becomes 255 in the
  ground truth before anything else (mean IoU included), and videos of 16 frames and fewer are left out everywhere.
- ``self``: no ground truth at all: G is every pixel, all T-C+1 windows. This is **not** video consistency and is
  reported as ``self_consistency``: a prediction that is one constant label scores 1.
"""
WindowPair = tuple[int, int]
"""``(|G and P|, |G|)`` of one window, with ``|G| > 0``."""
DEFAULT_WINDOWS = (8, 16)
CFFM_LONGEST_LEFT_OUT = 16
"""Frames of the longest videos that protocol ``cffm`` leaves out."""

_CFFM_VOID = 255
_WITHOUT_LAST_WINDOW = ("official", "correct", "cffm")


def score_name(protocol: ConsistencyProtocol, window: int) -> str:
    """Name of a score; what no ground truth backs is never called VC.

    >>> score_name("official", 8), score_name("self", 8)
    ('VC8', 'self_consistency8')
    """
    return f"self_consistency{window}" if protocol == "self" else f"VC{window}"


def is_consistency(name: str) -> bool:
    """Whether it is a name of `score_name`.

    >>> is_consistency("VC16"), is_consistency("self_consistency8"), is_consistency("num_windows8")
    (True, True, False)
    """
    return name.startswith(("VC", "self_consistency"))


def ground_truth(raw: Tensor, protocol: ConsistencyProtocol) -> Tensor:
    """Raw ground-truth values as a protocol reads them: under ``cffm``, 0 is one void value with 255.

    >>> ground_truth(torch.tensor([0, 7, 255]), "cffm")
    tensor([255,   7, 255])
    """
    return torch.where(raw == 0, _CFFM_VOID, raw) if protocol == "cffm" else raw


def mean_consistency(pairs: Iterable[WindowPair]) -> float:
    """Mean of ``hits / total`` over windows, exactly rounded, so that no order of videos or ranks changes a bit.

    >>> mean_consistency([(1, 2), (3, 3)])
    0.75
    >>> mean_consistency([])
    nan
    """
    ratios = [hits / total for hits, total in pairs if total]
    return math.fsum(ratios) / len(ratios) if ratios else math.nan


class ConsistencyWindows:
    """Windows of one video, collected frame by frame in O(H W) memory.

    Args:
        windows: the C's.
        protocol: see `ConsistencyProtocol`.

    >>> stream = ConsistencyWindows(windows=(2,), protocol="complete")
    >>> for pred, truth in [([5, 5], [1, 1]), ([5, 6], [1, 1]), ([5, 6], [1, 2])]:
    ...     stream.update(torch.tensor([pred]), torch.tensor([truth]))
    >>> stream.pairs
    {2: [(1, 2), (1, 1)]}
    """

    def __init__(self, windows: Sequence[int] = DEFAULT_WINDOWS, protocol: ConsistencyProtocol = "official") -> None:
        check_protocol(windows, protocol)
        self.protocol = protocol
        self.pairs: dict[int, list[WindowPair]] = {window: [] for window in windows}
        self._waiting: dict[int, WindowPair] = {}
        # Of a video that may still turn out too short to count.
        self._held: dict[int, list[WindowPair]] = {window: [] for window in windows}
        self._num_frames = 0
        self._pred = _RunLengths()
        self._truth = _RunLengths()

    def update(self, pred_HW: Tensor, raw_HW: Tensor | None = None, class_HW: Tensor | None = None) -> None:
        """Add the video's next labelled frame.

        Args:
            pred_HW: predicted ids, integer.
            raw_HW: raw ground-truth values, integer; not used by ``self``.
            class_HW: ground-truth class ids, negative where void, for ``correct``; by default the raw values.
        """
        self._num_frames += 1
        if self.protocol == "cffm" and self._num_frames == CFFM_LONGEST_LEFT_OUT + 1:
            for window, pairs in self._held.items():
                self.pairs[window] += pairs
        # Where the video's last window does not count, one does only once a further labelled frame has come.
        for window, pair in self._waiting.items():
            self._add(window, pair)
        self._waiting = {}
        pred_run_HW = self._pred.update(pred_HW)
        right_HW = None
        if self.protocol == "self":
            truth_run_HW = None
        elif raw_HW is None:
            raise ValueError(f"consistency protocol {self.protocol!r} needs ground truth; without any, use 'self'")
        elif raw_HW.shape != pred_HW.shape:
            raise ValueError(
                f"predictions have shape {tuple(pred_HW.shape)} and the ground truth {tuple(raw_HW.shape)}; resize "
                "the predictions to the ground truth's size before scoring"
            )
        else:
            truth_run_HW = self._truth.update(ground_truth(raw_HW, self.protocol))
            if self.protocol == "correct":
                class_HW = raw_HW if class_HW is None else class_HW
                right_HW = (pred_HW == class_HW) & (class_HW >= 0)
        for window in self.pairs:
            if self._pred.num_frames >= window:
                self._close(window, pred_run_HW, truth_run_HW, right_HW)

    def gap(self) -> None:
        """Note that a frame without ground truth comes between: no window reaches across it."""
        self._pred.clear()
        self._truth.clear()

    def _close(self, window: int, pred_run_HW: Tensor, truth_run_HW: Tensor | None, right_HW: Tensor | None) -> None:
        hit_HW = pred_run_HW >= window
        if truth_run_HW is None:
            total = hit_HW.numel()
        else:
            constant_HW = truth_run_HW >= window
            total = int(constant_HW.sum())
            hit_HW = hit_HW & constant_HW
        if right_HW is not None:
            hit_HW = hit_HW & right_HW
        if total == 0:
            return
        pair = (int(hit_HW.sum()), total)
        if self.protocol in _WITHOUT_LAST_WINDOW:
            self._waiting[window] = pair
        else:
            self._add(window, pair)

    def _add(self, window: int, pair: WindowPair) -> None:
        too_short = self.protocol == "cffm" and self._num_frames <= CFFM_LONGEST_LEFT_OUT
        (self._held if too_short else self.pairs)[window].append(pair)


class _RunLengths:
    """For every pixel, over how many frames up to this one its value has stayed the same."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.num_frames = 0
        self._last_HW: Tensor | None = None
        self._run_HW: Tensor | None = None

    def update(self, values_HW: Tensor) -> Tensor:
        if self._last_HW is None or self._run_HW is None:
            self._run_HW = torch.ones(values_HW.shape, dtype=torch.int32, device=values_HW.device)
        elif self._last_HW.shape != values_HW.shape:
            raise ValueError(
                f"frames of one video have different sizes: {tuple(self._last_HW.shape)}, then "
                f"{tuple(values_HW.shape)}; consistency is defined per pixel"
            )
        else:
            self._run_HW = torch.where(values_HW == self._last_HW, self._run_HW + 1, 1)
        self._last_HW = values_HW.clone()  # the caller may reuse the buffer
        self.num_frames += 1
        return self._run_HW


def video_consistency(
    pred_THW: Tensor,
    raw_THW: Tensor | None = None,
    windows: Sequence[int] = DEFAULT_WINDOWS,
    protocol: ConsistencyProtocol = "official",
    class_THW: Tensor | None = None,
) -> dict[int, list[WindowPair]]:
    """Windows of one whole video; `mean_consistency` turns them into the score.

    Args:
        pred_THW: predicted ids, integer.
        raw_THW: raw ground-truth values, integer, all frames labelled; None with protocol ``self``.
        windows: the C's.
        protocol: see `ConsistencyProtocol`.
        class_THW: ground-truth class ids for ``correct``; by default the raw values.

    Returns:
        for each C the pairs ``(|G and P|, |G|)`` of its windows in order, those with ``|G| = 0`` left out.

    >>> pred, truth = torch.tensor([5, 5, 5, 6]).reshape(4, 1, 1), torch.ones(4, 1, 1, dtype=torch.int64)
    >>> video_consistency(pred, truth, windows=(2,))
    {2: [(1, 1), (1, 1)]}
    >>> video_consistency(pred, truth, windows=(2,), protocol="complete")
    {2: [(1, 1), (1, 1), (0, 1)]}
    """
    stream = ConsistencyWindows(windows, protocol)
    for t in range(len(pred_THW)):
        stream.update(
            pred_THW[t],
            None if raw_THW is None else raw_THW[t],
            None if class_THW is None else class_THW[t],
        )
    return stream.pairs


def log_no_window(protocol: ConsistencyProtocol, window: int) -> None:
    """Say why a score is NaN."""
    logger.warning(
        "%s is NaN: no window of %d frames qualifies (protocol %r; videos may be too short or without ground truth)",
        score_name(protocol, window),
        window,
        protocol,
    )


def tell_scored_zero(protocol: ConsistencyProtocol, taxonomy: Taxonomy | None) -> None:
    """Warn that ``cffm``, made for VSPW, does not score a class whose raw value is 0.

    Raises:
        ValueError: ``cffm`` where 255, which it makes of 0, is a class.
    """
    if protocol == "cffm" and taxonomy is not None and 255 in taxonomy.class_of_raw:
        name = taxonomy.classes[taxonomy.class_of_raw[255]]
        raise ValueError(
            f"model.consistency = cffm makes raw value 0 the void value 255, which is class {name!r} of "
            f"{taxonomy.name}; choose official, complete or correct"
        )
    if protocol == "cffm" and taxonomy is not None and 0 in taxonomy.class_of_raw:
        name = taxonomy.classes[taxonomy.class_of_raw[0]]
        logger.warning(
            "consistency protocol cffm makes raw value 0 void, which is class %r of %s; it is not scored",
            name,
            taxonomy.name,
        )


def check_protocol(windows: Sequence[int], protocol: str) -> None:
    """Refuse an unknown protocol, and windows that are none or listed twice."""
    if protocol not in get_args(ConsistencyProtocol):
        raise ValueError(
            f"consistency protocol {protocol!r} is unknown; allowed are {', '.join(get_args(ConsistencyProtocol))}"
        )
    if not windows or min(windows) < 1 or len(set(windows)) != len(windows):
        raise ValueError(f"consistency windows {tuple(windows)} must be distinct numbers of frames, each at least 1")
