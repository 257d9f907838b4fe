"""Worker processes of a `DataLoader` that die: an error of the item that is waited for, and of nothing else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling


class WatchedItems(Iterator[Any]):
    """The items of a `DataLoader`; a worker that dies is a `RuntimeError` of ``next``.

    PyTorch raises that error from a signal's handler, wherever the main thread is when the worker dies: mostly in the
    midst of the network's arithmetic, where it would end the run instead of one video. So that handler acts only while
    ``next`` waits, and ``next`` asks first whether a worker has died since.

    Args:
        loader: Whose workers are started.
    """

    # Of all in this process: signals have one handler.
    _num_open: ClassVar[int] = 0
    _is_waiting: ClassVar[bool] = False
    _handler: ClassVar[Any] = None

    def __init__(self, loader: DataLoader[Any]) -> None:
        # Handlers belong to the main thread; elsewhere PyTorch sets none either.
        self._is_watched = loader.num_workers > 0 and _is_main_thread()
        if self._is_watched:
            signal_handling._set_SIGCHLD_handler()  # does nothing but the first time
            if signal.getsignal(signal.SIGCHLD) is not _handle:
                WatchedItems._handler = signal.signal(signal.SIGCHLD, _handle)
            WatchedItems._num_open += 1
        self._items: Iterator[Any]
        try:
            self._items = iter(loader)
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Any:
        """The next item.

        Raises:
            RuntimeError: If a worker has died, or gives nothing within the time limit.
        """
        if not self._is_watched:
            return next(self._items)
        WatchedItems._is_waiting = True
        try:
            torch._C._error_if_any_worker_fails()
            return next(self._items)
        finally:
            WatchedItems._is_waiting = False

    def close(self) -> None:
        """End the workers; the last to be closed gives signals back to PyTorch."""
        self._items = iter(())
        if self._is_watched:
            self._is_watched = False
            WatchedItems._num_open -= 1
            if not WatchedItems._num_open and _is_main_thread() and signal.getsignal(signal.SIGCHLD) is _handle:
                signal.signal(signal.SIGCHLD, WatchedItems._handler)


def _handle(number: int, frame: Any) -> None:
    if (WatchedItems._is_waiting or not WatchedItems._num_open) and callable(WatchedItems._handler):
        WatchedItems._handler(number, frame)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
