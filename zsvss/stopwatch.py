"""Times the stages and their parts; the timed code does not know who reads the times."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch

from zsvss.progress import stage

_P = ParamSpec("_P")
_R = TypeVar("_R")
_running: ContextVar[Stopwatch | None] = ContextVar("running", default=None)


class Stopwatch:
    """Seconds by name; what is measured within something else counts by its own name alone.

    Args:
        clock: tells seconds.

    Attributes:
        seconds: measured so far; their sum is the time spent in all.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._within = 0.0

    @contextmanager
    def running(self) -> Iterator[Stopwatch]:
        """Measure the `measured` functions that the block calls; yields this watch."""
        token = _running.set(self)
        try:
            yield self
        finally:
            _running.reset(token)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the block's seconds; `measured` functions that it calls are measured too.

        Whoever listens to `zsvss.progress` is told that the stage begins.
        """
        start, before = self._clock(), self._within
        self._within = 0.0
        try:
            with self.running(), stage(name):
                yield
        finally:
            total = self._clock() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + total - self._within
            self._within = before + total


def device_clock(device: torch.device) -> float:
    """Seconds; on a GPU, of finished work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measured(name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Measure a function by its own name whenever a stopwatch is running.

    >>> ticks = iter([0, 1, 5, 7])
    >>> watch = Stopwatch(lambda: next(ticks))
    >>> with watch.measure("stage"):
    ...     measured("part")(print)("from 1 to 5, within 0 to 7")
    from 1 to 5, within 0 to 7
    >>> watch.seconds
    {'part': 4.0, 'stage': 3.0}
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def inner(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            watch = _running.get()
            if watch is None:
                return function(*args, **kwargs)
            with watch.measure(name):
                return function(*args, **kwargs)

        return inner

    return decorate
