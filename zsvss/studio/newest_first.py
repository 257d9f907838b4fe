"""A thread for what a person looks at: who moves fast wants what was asked for last, and no longer what was before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST_WAITING = 16


class SupersededError(Exception):
    """Something that was not done, since so much was asked for after it."""

    def __init__(self) -> None:
        super().__init__("other frames were asked for meanwhile; ask again if this one is still wanted")


class NewestFirst(Generic[Value]):
    """Does one thing after the other in a thread, what was asked for last first; the oldest of too many are given up.

    Args:
        name: of the thread.
        most: things that may wait.
    """

    def __init__(self, name: str, most: int = MOST_WAITING) -> None:
        self._most = most
        self._waiting: deque[tuple[Future[Value], Callable[[], Value]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, act: Callable[[], Value]) -> Value:
        """What a function returns or raises, from the thread.

        Raises:
            SupersededError: too many were asked for after it, or the thread was closed.
        """
        future: Future[Value] = Future()
        with self._changed:
            if self._is_closed:
                raise SupersededError
            self._waiting.append((future, act))
            if len(self._waiting) > self._most:
                self._waiting.popleft()[0].set_exception(SupersededError())
            self._changed.notify()
        return future.result()

    def close(self) -> None:
        """End the thread when it has done what it is doing; what waits is given up."""
        with self._changed:
            self._is_closed = True
            while self._waiting:
                self._waiting.pop()[0].set_exception(SupersededError())
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                future, act = self._waiting.pop()
            try:
                future.set_result(act())
            except Exception as error:  # whoever has asked gets it
                future.set_exception(error)
