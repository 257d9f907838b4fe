"""Video consistency as a metric of torchmetrics: what a run's numbers go through.

Shapes: T frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from zsvss.metrics.consistency import (
    DEFAULT_WINDOWS,
    ConsistencyProtocol,
    ConsistencyWindows,
    WindowPair,
    check_protocol,
    log_no_window,
    mean_consistency,
    score_name,
)


class VideoConsistency(Metric):
    """Mean consistency over all windows of all videos and processes.

    The state is integers: one row ``(C, |G and P|, |G|)`` a window. `compute` returns ``{name: float}``, NaN (and a
    line in the log) where no window qualified. A run counts each video by one of these, and its numbers are those of
    one to which the videos' windows are added.

    Args:
        windows: the C's.
        protocol: see `ConsistencyProtocol`.
        settings: of :class:`torchmetrics.Metric`.

    >>> metric = VideoConsistency(windows=(2,), protocol="complete")
    >>> truth = torch.ones(3, 1, 1, dtype=torch.int64)
    >>> metric.update(torch.tensor([4, 4, 5]).reshape(3, 1, 1), truth)
    >>> metric.update(torch.tensor([4, 4]).reshape(2, 1, 1), truth[:2])
    >>> round(metric.compute()["VC2"], 4)
    0.6667
    >>> metric.add({2: [(1, 1)]})
    >>> metric.pairs, metric.compute()
    ({2: [(1, 1), (0, 1), (1, 1), (1, 1)]}, {'VC2': 0.75})
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    rows: list[Tensor] | Tensor

    def __init__(
        self, windows: Sequence[int] = DEFAULT_WINDOWS, protocol: ConsistencyProtocol = "official", **settings: Any
    ) -> None:
        super().__init__(**settings)
        check_protocol(windows, protocol)
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
        self._add_pairs({window: pairs[before[window] :] for window, pairs in self._stream.pairs.items()})

    def gap(self) -> None:
        """Note that a frame without ground truth comes between: no window reaches across it."""
        self._stream.gap()

    def add(self, pairs: Mapping[int, Sequence[WindowPair]]) -> None:
        """Add windows that were counted elsewhere, for instance those of a stored result."""
        self._add_pairs(pairs)
        self._update_count += 1  # or `compute` would warn that nothing was counted
        self._computed = None

    @property
    def pairs(self) -> dict[int, list[WindowPair]]:
        """``(|G and P|, |G|)`` of the windows counted so far, by C."""
        rows = dim_zero_cat(self.rows).tolist()
        return {window: [(hits, total) for c, hits, total in rows if c == window] for window in self.windows}

    def compute(self) -> dict[str, float]:
        """Mean over everything counted so far, on all processes."""
        scores = {}
        for window, pairs in self.pairs.items():
            scores[score_name(self.protocol, window)] = mean_consistency(pairs)
            if not pairs:
                log_no_window(self.protocol, window)
        return scores

    def reset(self) -> None:
        """Forget all windows."""
        super().reset()
        self._add_rows([])

    def _add_pairs(self, pairs: Mapping[int, Sequence[WindowPair]]) -> None:
        if rows := [(window, *pair) for window, found in pairs.items() for pair in found]:
            self._add_rows(rows)

    def _add_rows(self, rows: list[tuple[int, int, int]]) -> None:
        assert isinstance(self.rows, list), "the metric is still synchronised"
        # An empty list would be gathered as a float vector; a rank without windows must send integers of this width.
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=self.device).reshape(-1, 3))
