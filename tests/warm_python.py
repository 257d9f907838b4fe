"""Command lines as forks of a Python process that has imported PyTorch, Lightning and diffusers.

Importing them takes several times as long as what these tests run. Each start is still a process of its own, with its
own screen and exit code, that can be killed; it shares nothing but what was imported. It does not run what a module
has left to ``atexit``. What such a process starts itself is not warm, unless a function `before` it sees to that.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Start(NamedTuple):
    """One process to start.

    Attributes:
        arguments: of ``python``: ``-m`` and a module, or ``-c`` and code, with what follows.
        folder: to run in.
        before: a Python file, one of its functions and its arguments, to be called before.
        environment: what differs from the tests' own.
        own_session: be killed with all that it has started, by its process group.
    """

    arguments: list[str]
    folder: str
    before: tuple[str, str, list[Any]] | None = None
    environment: dict[str, str] | None = None
    own_session: bool = False


def command_line(
    arguments: Iterable[object],
    folder: Path,
    before: tuple[str, str, list[Any]] | None = None,
    environment: dict[str, str] | None = None,
    *,
    own_session: bool = False,
) -> Start:
    """``python -m zsvss.run`` with these arguments."""
    return Start(["-m", "zsvss.run", *map(str, arguments)], str(folder), before, environment, own_session)


class Started:
    """A process that a `WarmPython` has started.

    Attributes:
        pid: its number, and that of its process group where its session is its own.
    """

    def __init__(self, python: WarmPython, start: Start) -> None:
        self._python, self._start, self._folder = python, start, tempfile.TemporaryDirectory()
        self._screens = [f"{self._folder.name}/{name}" for name in ("out", "err")]
        self.pid: int = python.ask("start", start, self._screens)

    def has_ended(self) -> bool:
        """Whether it has."""
        return bool(self._python.ask("poll", self.pid))

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end; once."""
        code = self._python.ask("wait", self.pid)
        with self._folder:
            return subprocess.CompletedProcess(
                self._start.arguments, code, *(Path(path).read_text() for path in self._screens)
            )


class WarmPython:
    """The process that has imported what its forks need; `start` and `run` start them.

    Args:
        package: import this repository's package too; without it a fork can import another copy, from its own folder.
    """

    def __init__(self, *, package: bool = True) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *(["package"] if package else [])],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120", "PYTHONPATH": str(ROOT) if package else ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *question: Any) -> Any:
        """Ask the process for something; returns its answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(self, start: Start) -> Started:
        """Start one and go on."""
        return Started(self, start)

    def run(self, *starts: Start) -> list[subprocess.CompletedProcess[str]]:
        """Start all at the same time and wait for all."""
        started = [self.start(start) for start in starts]
        return [process.wait() for process in started]

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def ranks(number: int) -> list[dict[str, str]]:
    """Environment of each of several processes that belong together, as Lightning sets it for those it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number), "NODE_RANK": "0"}
    return [shared | {"LOCAL_RANK": str(rank)} for rank in range(number)]


def fork(start: Start, screen: tuple[str, str]) -> None:
    """Be the process that was asked for."""
    if start.own_session:
        os.setsid()
    for number, path in enumerate(screen, start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(start.folder)
    os.environ.update(start.environment or {})
    sys.path.insert(0, start.folder)
    if start.before is not None:
        path, function, arguments = start.before
        runpy.run_path(path)[function](*arguments)
    option, code, *rest = start.arguments
    sys.argv = [code, *rest]
    if option == "-c":
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif code in sys.modules:
        sys.exit(sys.modules[code].main(rest))
    else:
        runpy.run_module(code, run_name="__main__", alter_sys=True)


def serve(*, package: bool) -> None:
    """Import, this repository's package too if asked for, then start what each line of the input asks for."""
    gc.disable()
    for name in ("unets.unet_2d_condition", "autoencoders.autoencoder_kl"):  # diffusers reads its modules on demand
        import_module(f"diffusers.models.{name}")
    import_module("lightning.pytorch.cli")
    if package:
        from zsvss.commands.lightning import import_components

        import_components()
    gc.freeze()
    gc.enable()
    context, processes = multiprocessing.get_context("fork"), {}
    for line in sys.stdin:
        request, what, *screens = json.loads(line)
        if request == "start":
            process = context.Process(target=fork, args=(Start(*what), *screens))
            process.start()
            processes[process.pid] = process
            answer = process.pid
        elif request == "poll":
            answer = not processes[what].is_alive()
        else:
            processes[what].join()
            answer = processes.pop(what).exitcode
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(package="package" in sys.argv)
