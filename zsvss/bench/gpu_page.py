"""``zsvss.run bench --page``: all that a session on a GPU is to tell, as one JSON file and one page.

Modes with their seconds by stage, share of the matrix rate, memory, waits for the device, the longest kernels, and what
follows from them. It ends within the minutes that are given: what does not fit or fails is left out, and the page says
so.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from rich.console import Console

from zsvss.bench.advice import next_things
from zsvss.bench.mode_table import Case, Row, table
from zsvss.bench.modes import Measured, Mode, Modes, measured, measured_once
from zsvss.bench.profiling import Kernel, longest_kernels, num_waits
from zsvss.results.fingerprint import git_commit
from zsvss.stages.precision import tf32_settings

# One clip of the published schedule took 1.4 to 2.1 times the exact mode's seconds on a CPU. Beside that, scikit-learn
# clusters on the CPU wherever the networks are: a minute at Stable Diffusion's size.
_PUBLISHED_TIMES_EXACT = 3
_PUBLISHED_CLUSTERING = 60.0
_TIMED_OUT = (124, 137)  # exit codes of `timeout`: interrupted, killed


@dataclass
class RanTests:
    """How the GPU's tests ended.

    Attributes:
        passed: how many tests.
        failed: how many; at least one if the tests did not run to their end.
        skipped: how many.
        seconds: of those that ran.
        ended: how they ended, if not by themselves.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    ended: str = ""


@dataclass
class Findings:
    """What was measured; one JSON object.

    Attributes:
        facts: device, precision, versions, commit, date.
        case: what the modes ran on.
        rows: the modes.
        waits: of the host for the device, in a clip of the exact mode; ``None`` on a CPU.
        kernels: the longest of a clip of the exact mode.
        tests: how the GPU's tests ended; ``None`` if they were not run.
        left_out: what there was no time for, or what failed, and why.
        seconds: of the whole measurement.
    """

    facts: dict[str, Any]
    case: Case
    rows: list[Row] = field(default_factory=list)
    waits: int | None = None
    kernels: list[Kernel] = field(default_factory=list)
    tests: RanTests | None = None
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(options: argparse.Namespace) -> int:
    """Measure, write and print; returns the exit code, 1 if the exact mode or one of the GPU's tests has failed."""
    if options.device != "cpu" and not torch.cuda.is_available():
        print(
            "error: this PyTorch sees no GPU; give --device cpu (and a small --size) to try the page without one",
            file=sys.stderr,
        )
        return 2
    case = Case(options.network, tuple(options.size), options.frames, options.labels, 1.0, 1, 1)
    findings = measure(case, options.device, options.dtype, options.minutes * 60)
    if options.tests is not None:
        findings.tests = read_tests(options.tests, options.tests_status, options.tests_limit)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(findings), indent=2) + "\n")
    print(page(findings))
    return int(not findings.rows or bool(findings.tests and findings.tests.failed))


def measure(case: Case, device: str, dtype: str, limit: float, clock: Callable[[], float] = time.monotonic) -> Findings:
    """Measure what there is time for; what fails is left out.

    Args:
        case: what the modes run on.
        device: where.
        dtype: of the networks, by name.
        limit: seconds in all; what has begun is ended.
        clock: tells seconds.
    """
    start = clock()
    findings = Findings(facts_of(device, dtype), case)
    _Measurement(findings, device, getattr(torch, dtype), lambda: limit - (clock() - start)).run()
    findings.seconds = clock() - start
    return findings


class _Measurement:
    """The steps of :func:`measure`, each of which leaves the others' findings alone.

    Args:
        findings: to be filled.
        device: where.
        dtype: of the networks.
        seconds_left: tells how many there are.
    """

    def __init__(self, findings: Findings, device: str, dtype: torch.dtype, seconds_left: Callable[[], float]) -> None:
        self.findings, self.device, self.dtype, self.seconds_left = findings, device, dtype, seconds_left
        self.modes: Modes | None = None
        self.ours: dict[str, Mode] = {}
        self.measured: Measured | None = None

    def run(self) -> None:
        """Take the steps."""
        self._try("the exact and the fast mode", self._measure_ours)
        if self.measured is None:
            self.findings.left_out.append("all that is measured beside the exact mode")
            return
        clip = self.measured.rows[0].seconds_per_frame * self.findings.case.num_frames
        self._try("waits", self._count_waits, clip)
        self._try("kernels", self._profile, clip)
        published = _PUBLISHED_TIMES_EXACT * clip + _PUBLISHED_CLUSTERING
        self._try("the published schedule", self._measure_published, published)

    def _try(self, what: str, step: Callable[[], None], expected: float = 0.0) -> None:
        """Take a step that takes up to so many seconds, if they are left; a page of part is better than none."""
        if expected > self.seconds_left():
            self.findings.left_out.append(f"{what} (no time for up to {expected:.0f} s)")
            return
        try:
            step()
        except torch.cuda.OutOfMemoryError:
            self.findings.left_out.append(f"{what} (out of memory)")
            torch.cuda.empty_cache()
        except Exception as error:
            traceback.print_exc()
            reason = str(error).partition("\n")[0]
            self.findings.left_out.append(f"{what} ({type(error).__name__}: {reason})")

    def _measure_ours(self) -> None:
        self.modes = Modes(self.findings.case, self.device, self.dtype)
        self.ours = {name: mode for name, mode in self.modes.ours().items() if name in ("exact", "fast")}
        self.measured = measured(self.ours, self.findings.case, self.device, self.dtype)
        self.findings.rows = list(self.measured.rows)
        if len(self.findings.rows) < len(self.ours):
            self.findings.left_out.append("the fast mode (out of memory)")

    def _count_waits(self) -> None:
        self.findings.waits = num_waits(self.ours["exact"], self.device)

    def _profile(self) -> None:
        self.findings.kernels = longest_kernels(self.ours["exact"], self.device)
        if not self.findings.kernels:
            self.findings.left_out.append("kernels (the profiler saw none)")

    def _measure_published(self) -> None:
        assert self.modes is not None
        assert self.measured is not None
        exact = self.measured.exact
        mode = self.modes.published(exact.refined_Thw)["published"]
        row = measured_once("published", mode, exact, self.findings.case, self.device, self.dtype)
        self.findings.rows.append(row)


def facts_of(device: str, dtype: str) -> dict[str, Any]:
    """Where, when and with what."""
    on_gpu = device != "cpu"
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)",
        "dtype": dtype,
        "torch": torch.__version__,
        "commit": git_commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
    if on_gpu:
        facts["memory_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
        facts["cuda"] = torch.version.cuda
        facts |= {f"tf32.{operation}": setting for operation, setting in tf32_settings().items()}
    return facts


def read_tests(path: Path, status: int = 0, limit: float = 0.0) -> RanTests:
    """How tests ended, by their JUnit file and their exit status.

    Args:
        path: of the file; where tests end before they have written it there is none, which is a failure.
        status: that the tests ended with; 124 and 137 are those of tests that `timeout` has stopped.
        limit: seconds after which they were stopped.
    """
    found = RanTests()
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        suites = []
        found.ended = "ended without a readable JUnit file"
    for suite in suites:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        found.failed += failed
        found.skipped += skipped
        found.passed += int(suite.get("tests", 0)) - failed - skipped
        found.seconds += float(suite.get("time", 0))
    if status in _TIMED_OUT:
        found.ended = f"stopped after {limit:.0f} s"
    elif status and not found.failed:
        found.ended = found.ended or f"ended with exit status {status}"
    if found.ended:
        found.failed = max(1, found.failed)
    return found


def page(findings: Findings) -> str:
    """The findings in Markdown, to be pasted into docs/benchmarks.md."""
    facts = dict(findings.facts)
    head = f"## {facts.pop('device')}"
    lines = [head, "", ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None) + "."]
    if findings.tests is not None:
        tests = findings.tests
        told = f"{tests.passed} passed, {tests.failed} failed, {tests.skipped} skipped, {tests.seconds:.0f} s"
        lines += ["", f"Tests on the GPU: {told}{', ' * bool(tests.ended)}{tests.ended}."]
    if findings.rows:
        screen = Console(width=200, file=io.StringIO())
        screen.print(table(findings.case, findings.rows))
        assert isinstance(screen.file, io.StringIO)
        lines += ["", *(line.rstrip() for line in screen.file.getvalue().strip().splitlines())]
    if findings.waits is not None:
        told = f"The host waits {findings.waits} times for the device in a clip of the exact mode"
        lines += ["", f"{told}, and twice for each measured stage, for the stopwatch."]
    if findings.kernels:
        lines += ["", "| longest kernels of the exact mode | calls | ms | share |", "|---|---:|---:|---:|"]
        lines += [f"| `{k.name[:90]}` | {k.calls} | {1e3 * k.seconds:.1f} | {k.share:.0%} |" for k in findings.kernels]
    if findings.left_out:
        lines += ["", "Left out:", "", *(f"- {what}" for what in findings.left_out)]
    lines += ["", "Next:", ""]
    if not findings.rows:
        return "\n".join([*lines, "1. Find out why nothing was measured: the error is above this page."])
    memory = findings.facts.get("memory_gib")
    things = next_things(findings.rows[0], findings.waits, findings.kernels, memory, findings.case.num_frames)
    lines += [f"{number}. {thing}" for number, thing in enumerate(things, 1)]
    return "\n".join(lines)
