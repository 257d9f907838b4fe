"""What tests call in a process before its command line: Ctrl-C at a chosen moment of the run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from importlib import import_module
from typing import Any


def behind(module: str, owner: str, function: str) -> None:
    """Send Ctrl-C once, when a method has done its work for the first time."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has switched off
    cls = getattr(import_module(module), owner)
    original: Callable[..., Any] = getattr(cls, function)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        setattr(cls, function, original)
        result = original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    setattr(cls, function, interrupted)
