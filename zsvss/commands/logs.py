"""A quiet screen and a complete log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typing_extensions import override

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def quiet_console() -> None:
    """Show this package's messages and everybody's warnings; the rest goes into the log file alone.

    Called again, it replaces what it set up before, so that nothing is said twice or to a stream that is closed.
    """
    logging.captureWarnings(capture=True)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    console = _Console(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    # With a terminal the progress bar tells how far a run is, without one the lines do.
    console.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    console.addFilter(lambda record: not getattr(record, "on_screen", False))
    package = logging.getLogger("zsvss")
    package.setLevel(logging.INFO)
    for before in [handler for handler in package.handlers if isinstance(handler, _Console)]:
        package.removeHandler(before)
    package.addHandler(console)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:  # as Lightning's own is; files may want to know all
                handler.setLevel(logging.ERROR)


@contextmanager
def log_to_file(folder: str | Path, rank: int = 0) -> Iterator[None]:
    """Append all messages and warnings of a block, and its traceback if it fails, to ``log.txt`` of the run folder.

    Args:
        folder: run folder.
        rank: processes other than the first write ``log-<rank>.txt``.
    """
    path = Path(folder) / (f"log-{rank}.txt" if rank else "log.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _LogFile(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(_FORMAT))
    file.setLevel(logging.INFO)
    # Lightning's and captured warnings' loggers do not hand their records on to the root.
    sources = [logging.getLogger(name) for name in ("zsvss", "py.warnings", "lightning.pytorch", "lightning.fabric")]
    for source in sources:
        source.addHandler(file)
    try:
        yield
    except BaseException as error:
        stop = logging.LogRecord("zsvss", logging.ERROR, __file__, 0, "the run stopped: %s", (error,), sys.exc_info())
        file.handle(stop)
        raise
    finally:
        for source in sources:
            source.removeHandler(file)
        file.close()


class _Console(logging.StreamHandler):  # type: ignore[type-arg]  # no generic at run time before Python 3.11
    """The screen."""


class _LogFile(logging.FileHandler):
    """Goes on without a log where it cannot be written: on a full disk, the run itself stops and says so."""

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Close, whatever is lost."""
        with suppress(OSError):
            super().close()
