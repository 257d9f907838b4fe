"""``zsvss.run bench --page``: all that a session on a GPU is to tell, as one JSON file and one page.

Modes with their seconds by stage, share of the matrix rate, memory, waits for the device, the longest kernels, and what
follows from them. It ends within the minutes that are given: what does not fit is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from rich.console import Console

from zsvss.bench.advice import next_things
from zsvss.bench.modes import measured, modes_of
from zsvss.bench.profiling import Kernel, longest_kernels, num_waits
from zsvss.bench.rows import Case, Row, table
from zsvss.results.fingerprint import git_commit
from zsvss.stages.precision import tf32_settings

# The published schedule takes up to so many times the exact mode's seconds, once to count and once to time.
_TIMES_EXACT = 2 * 30


@dataclass
class Findings:
    """What was measured; one JSON object.

    Attributes:
        facts: device, precision, versions, commit, date.
        case: what the modes ran on.
        rows: the modes.
        waits: of the host for the device, in a clip of the exact mode; ``None`` on a CPU.
        kernels: the longest of a clip of the exact mode.
        tests: of the GPU's tests, how many ended how; ``None`` if they were not run.
        left_out: what there was no time for.
        seconds: of the whole measurement.
    """

    facts: dict[str, Any]
    case: Case
    rows: list[Row] = field(default_factory=list)
    waits: int | None = None
    kernels: list[Kernel] = field(default_factory=list)
    tests: dict[str, float] | None = None
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(options: argparse.Namespace) -> int:
    """Measure, write and print; returns the exit code, 1 if one of the GPU's tests has failed."""
    if options.device != "cpu" and not torch.cuda.is_available():
        print(
            "error: this PyTorch sees no GPU; give --device cpu (and a small --size) to try the page without one",
            file=sys.stderr,
        )
        return 2
    case = Case(options.network, tuple(options.size), options.frames, options.labels, 1.0, 1, 1)
    findings = measure(case, options.device, options.dtype, options.minutes * 60)
    if options.tests is not None:
        findings.tests = read_tests(options.tests)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(findings), indent=2) + "\n")
    print(page(findings))
    return int(bool(findings.tests and findings.tests["failed"]))


def measure(case: Case, device: str, dtype: str, limit: float, clock: Callable[[], float] = time.monotonic) -> Findings:
    """Measure what there is time for.

    Args:
        case: what the modes run on.
        device: where.
        dtype: of the networks, by name.
        limit: seconds in all; what has begun is ended.
        clock: tells seconds.
    """
    start = clock()
    findings = Findings(facts_of(device, dtype), case)
    modes = modes_of(case, device, getattr(torch, dtype))
    exact = modes["exact"]
    chosen = {name: modes[name] for name in ("exact", "fast")}
    findings.rows = measured(chosen, case, device, getattr(torch, dtype))
    if clock() - start < limit:
        findings.waits = num_waits(exact, device)
        findings.kernels = longest_kernels(exact, device)
    else:
        findings.left_out.append("waits and kernels")
    expected = _TIMES_EXACT * findings.rows[0].seconds_per_frame * case.num_frames
    if clock() - start + expected < limit:
        chosen = {"exact": exact, "published": modes["published"]}
        findings.rows.append(measured(chosen, case, device, getattr(torch, dtype))[-1])
    else:
        findings.left_out.append(f"the published schedule (up to {expected:.0f} s)")
    findings.seconds = clock() - start
    return findings


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


def read_tests(path: Path) -> dict[str, float]:
    """How many tests of a JUnit file passed, failed and were skipped, and their seconds; one failed without a file."""
    if not path.is_file():  # they were stopped before they could write it
        return {"passed": 0.0, "failed": 1.0, "skipped": 0.0, "seconds": 0.0}
    suites = ElementTree.parse(path).getroot().iter("testsuite")
    counts = {"passed": 0.0, "failed": 0.0, "skipped": 0.0, "seconds": 0.0}
    for suite in suites:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests", 0)) - failed - skipped
        counts["seconds"] += float(suite.get("time", 0))
    return counts


def page(findings: Findings) -> str:
    """The findings in Markdown, to be pasted into docs/benchmarks.md."""
    facts = dict(findings.facts)
    head = f"## {facts.pop('device')}"
    lines = [head, "", ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None) + "."]
    if findings.tests is not None:
        counts = findings.tests
        told = ", ".join(f"{counts[name]:.0f} {name}" for name in ("passed", "failed", "skipped"))
        lines += ["", f"Tests on the GPU: {told}, {counts['seconds']:.0f} s."]
    screen = Console(width=200, file=io.StringIO())
    screen.print(table(findings.case, findings.rows))
    assert isinstance(screen.file, io.StringIO)
    lines += ["", *(line.rstrip() for line in screen.file.getvalue().strip().splitlines())]
    if findings.waits is not None:
        lines += ["", f"The host waits {findings.waits} times for the device in a clip of the exact mode."]
    if findings.kernels:
        lines += ["", "| longest kernels of the exact mode | calls | ms | share |", "|---|---:|---:|---:|"]
        lines += [f"| `{k.name[:90]}` | {k.calls} | {1e3 * k.seconds:.1f} | {k.share:.0%} |" for k in findings.kernels]
    if findings.left_out:
        lines += ["", f"There was no time for {' and '.join(findings.left_out)}."]
    lines += ["", "Next:", ""]
    memory = findings.facts.get("memory_gib")
    things = next_things(findings.rows[0], findings.waits, findings.kernels, memory, findings.case.num_frames)
    lines += [f"{number}. {thing}" for number, thing in enumerate(things, 1)]
    return "\n".join(lines)
