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
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

logger = logging.getLogger(__name__)

ConsistencyProtocol = Literal["official", "complete", "correct", "self"]
"""Which windows count, and as what.

- ``official``: the published script, as in this module's docstring.
- ``complete``: all T-C+1 windows.
- ``correct``: all conditions of ``official``, and a pixel only scores where the prediction is the ground-truth class.
  Void pixels stay in G, where no prediction is right.
- ``self``: no ground truth at all: G is every pixel, all T-C+1 windows. This is **not** video consistency and is
  reported as ``self_consistency``: a prediction that is one constant label scores 1.
"""
WindowPair = tuple[int, int]
"""``(|G and P|, |G|)`` of one window, with ``|G| > 0``."""
DEFAULT_WINDOWS = (8, 16)


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
        _check(windows, protocol)
        self.protocol = protocol
        self.pairs: dict[int, list[WindowPair]] = {window: [] for window in windows}
        self._waiting: dict[int, WindowPair] = {}
        self._pred = _RunLengths()
        self._truth = _RunLengths()

    def update(self, pred_HW: Tensor, raw_HW: Tensor | None = None, class_HW: Tensor | None = None) -> None:
        """Add the video's next labelled frame.

        Args:
            pred_HW: predicted ids, integer.
            raw_HW: raw ground-truth values, integer; not used by ``self``.
            class_HW: ground-truth class ids, negative where void, for ``correct``; by default the raw values.
        """
        if self.protocol in ("official", "correct"):
            # Every window but the video's last: one counts only once a further labelled frame has come.
            for window, pair in self._waiting.items():
                self.pairs[window].append(pair)
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
            truth_run_HW = self._truth.update(raw_HW)
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
        if self.protocol in ("official", "correct"):
            self._waiting[window] = pair
        else:
            self.pairs[window].append(pair)


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


class VideoConsistency(Metric):
    """Mean consistency over all windows of all videos and processes.

    The state is integers: one row ``(C, |G and P|, |G|)`` a window. `compute` returns ``{name: float}``, NaN (and a
    line in the log) where no window qualified.

    Args:
        windows: the C's.
        protocol: see `ConsistencyProtocol`.

    >>> metric = VideoConsistency(windows=(2,), protocol="complete")
    >>> truth = torch.ones(3, 1, 1, dtype=torch.int64)
    >>> metric.update(torch.tensor([4, 4, 5]).reshape(3, 1, 1), truth)
    >>> metric.update(torch.tensor([4, 4]).reshape(2, 1, 1), truth[:2])
    >>> round(metric.compute()["VC2"], 4)
    0.6667
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: list[Tensor] | Tensor

    def __init__(self, windows: Sequence[int] = DEFAULT_WINDOWS, protocol: ConsistencyProtocol = "official") -> None:
        super().__init__()
        _check(windows, protocol)
        self.windows = tuple(windows)
        self.protocol: ConsistencyProtocol = protocol
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self._stream = ConsistencyWindows(windows, protocol)
        self._add_rows([])

    def update(
        self,
        pred_THW: Tensor,
        raw_THW: Tensor | None = None,
        class_THW: Tensor | None = None,
        new_video: bool = True,
    ) -> None:
        """Add consecutive labelled frames; arguments as in `video_consistency`.

        Args:
            pred_THW: predicted ids.
            raw_THW: raw ground-truth values.
            class_THW: ground-truth class ids.
            new_video: False continues the video of the call before (a long video comes clip by clip).
        """
        if new_video:
            self._stream = ConsistencyWindows(self.windows, self.protocol)
        before = {window: len(pairs) for window, pairs in self._stream.pairs.items()}
        for t in range(len(pred_THW)):
            self._stream.update(
                pred_THW[t],
                None if raw_THW is None else raw_THW[t],
                None if class_THW is None else class_THW[t],
            )
        self.update_pairs({window: pairs[before[window] :] for window, pairs in self._stream.pairs.items()})

    def update_pairs(self, pairs: dict[int, list[WindowPair]]) -> None:
        """Add windows counted elsewhere, for instance those of a stored result."""
        self._add_rows([(window, *pair) for window, found in pairs.items() for pair in found])

    def compute(self) -> dict[str, float]:
        """Mean over everything counted so far, on all processes."""
        rows = dim_zero_cat(self.rows).tolist()
        scores = {}
        for window in self.windows:
            pairs = [(hits, total) for row_window, hits, total in rows if row_window == window]
            scores[score_name(self.protocol, window)] = mean_consistency(pairs)
            if not pairs:
                log_no_window(self.protocol, window)
        return scores

    def reset(self) -> None:
        """Forget all windows."""
        super().reset()
        self._add_rows([])

    def _add_rows(self, rows: list[tuple[int, int, int]]) -> None:
        assert isinstance(self.rows, list), "the metric is still synchronised"
        # An empty list would be gathered as a float vector; a rank without windows must send integers of this width.
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(-1, 3))


def log_no_window(protocol: ConsistencyProtocol, window: int) -> None:
    """Say why a score is NaN."""
    logger.warning(
        "%s is NaN: no window of %d frames qualifies (protocol %r; videos may be too short or without ground truth)",
        score_name(protocol, window),
        window,
        protocol,
    )


def _check(windows: Sequence[int], protocol: str) -> None:
    if protocol not in get_args(ConsistencyProtocol):
        raise ValueError(
            f"consistency protocol {protocol!r} is unknown; allowed are {', '.join(get_args(ConsistencyProtocol))}"
        )
    if not windows or min(windows) < 1 or len(set(windows)) != len(windows):
        raise ValueError(f"consistency windows {tuple(windows)} must be distinct numbers of frames, each at least 1")
