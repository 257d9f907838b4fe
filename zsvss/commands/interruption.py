"""Ctrl-C at any moment: one line that says what is kept and how to go on, and exit code 130.

`answer_other_ends` does the same where a process is told to end otherwise, with exit codes of their own.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
"""What shells expect of a program that was stopped by Ctrl-C."""

_last_acts: list[Callable[[], object]] = []


class Interrupted(BaseException):
    """Ctrl-C where there is something to end in order, with what is kept and how to go on.

    Lightning would make words and an exit code of its own of a `KeyboardInterrupt`.
    """


@contextmanager
def leaving(say: Callable[[], str]) -> Iterator[None]:
    """In this block, Ctrl-C says something and ends the process at once: for blocks that leave nothing half-done.

    Importing is such a block; an exception there may be swallowed or turned into another one.
    """

    def answer() -> None:
        leave(say())

    with _answered(answer):
        yield


@contextmanager
def ending_in_order(say: Callable[[], str]) -> Iterator[None]:
    """In this block, Ctrl-C raises `Interrupted`; a second one says something and ends the process at once."""
    asked = False

    def answer() -> None:
        nonlocal asked
        if asked:
            leave(say())
        asked = True
        tell("\nstopping; Ctrl-C once more ends at once")
        raise Interrupted(say())

    with _answered(answer):
        yield


def answer_from_now_on(say: Callable[[], str]) -> None:
    """The same as `leaving`, for what is left of the process."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: leave(say()))


def answer_other_ends(say: Callable[[], str]) -> None:
    """`leave` where this process is told to end (SIGTERM) or its terminal is closed (SIGHUP), for what is left of it.

    The exit code is what shells expect: 128 and the signal's number.
    """
    here = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:
            leave(say(), 128 + number)
        signal.signal(number, signal.SIG_DFL)  # a process forked from this one ends as if nothing had been answered
        signal.raise_signal(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no terminals that hang up
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def end_process(code: int) -> NoReturn:
    """End a process that was interrupted: a thread that just then was being started would be waited for in vain."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def before_leaving(act: Callable[[], object]) -> None:
    """Let `leave` do something first, such as ending a process that this one has started.

    Args:
        act: must not wait, as it may be called in the midst of anything.
    """
    _last_acts.append(act)


def tell(message: str) -> None:
    """Print a line on the terminal, once for all processes of a run."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)


def leave(message: str, code: int = EXIT_CODE) -> NoReturn:
    """End the process at once, whatever it is doing, and those that work for it."""
    for act in _last_acts:
        act()
    multiprocessing = sys.modules.get("multiprocessing")  # if anything has been started by it
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
    with suppress(OSError):  # a closed terminal takes no words
        tell(f"\n{message}")
        sys.stdout.flush()
    os._exit(code)


@contextmanager
def _answered(answer: Callable[[], None]) -> Iterator[None]:
    here = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == here:  # a process forked from this one, such as a decoder, is ended by it
            answer()

    # Only the main thread may; and what is started with Ctrl-C switched off (nohup, a shell's background) stays so.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
