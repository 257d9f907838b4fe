"""Progress reports: code that works reports to a listener, and neither imports the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

Listener = Callable[[str, float], None]
"""Is told the stage and how much of it is done, 0..1."""


@dataclass(frozen=True)
class _Work:
    """Work in hand: which part of which stage, and who listens."""

    listener: Listener
    stage: str = ""
    start: float = 0.0
    end: float = 1.0


_in_hand: ContextVar[_Work | None] = ContextVar("in_hand", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of what the block does.

    >>> with listening(lambda name, done: print(f"{name} {done:.3g}")), stage("modulation"):
    ...     for number in range(2):
    ...         with part(number, number + 1, 2):
    ...             with part(3, 4, 4):
    ...                 pass
    modulation 0
    modulation 0.5
    modulation 0.5
    modulation 1
    modulation 1
    """
    token = _in_hand.set(_Work(listener))
    try:
        yield
    finally:
        _in_hand.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """The block is a stage, or a part of one that is running."""
    work = _in_hand.get()
    if work is None or work.stage:
        yield
        return
    work.listener(name, 0.0)
    with _doing(replace(work, stage=name)):
        yield


@contextmanager
def part(start: int, end: int, total: int) -> Iterator[None]:
    """The block computes the items ``start`` .. ``end`` of the ``total`` that what is running has to do."""
    work = _in_hand.get()
    if work is None or not work.stage:
        yield
        return
    share = (work.end - work.start) / total
    inner = replace(work, start=work.start + start * share, end=work.start + end * share)
    with _doing(inner):
        yield
    work.listener(work.stage, inner.end)


@contextmanager
def _doing(work: _Work) -> Iterator[None]:
    token = _in_hand.set(work)
    try:
        yield
    finally:
        _in_hand.reset(token)
