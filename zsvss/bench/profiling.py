"""Where a device's time goes: its longest kernels, and how often the host waits for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Kernel:
    """One kernel of a device, or one operation of a CPU.

    Attributes:
        name: of the kernel.
        calls: how often it ran.
        seconds: of all calls.
        share: of the seconds of all kernels, 0..1.
    """

    name: str
    calls: int
    seconds: float
    share: float


def longest_kernels(run: Callable[[], Any], device: str, num_kernels: int = 10) -> list[Kernel]:
    """Profile a run; the kernels that take longest first.

    On a GPU the host's operations are not recorded: of a clip they are millions.
    """
    on_gpu = device != "cpu"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
    seconds = {}
    for event in profiler.key_averages():
        own: float = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if own > 0 and (not on_gpu or str(event.device_type).endswith("CUDA")):
            seconds[event.key] = (event.count, own / 1e6)
    total = sum(own for _, own in seconds.values())
    longest = sorted(seconds.items(), key=lambda item: -item[1][1])[:num_kernels]
    return [Kernel(name, calls, own, own / total) for name, (calls, own) in longest]


def num_waits(run: Callable[[], Any], device: str) -> int | None:
    """How often the host waits for the device during a run, ``None`` on a CPU.

    The stopwatch's own waits, two a measured stage (:mod:`zsvss.stopwatch`), are not counted: PyTorch counts no
    ``torch.cuda.synchronize``.
    """
    if device == "cpu":
        return None
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    # PyTorch also says, once a process, that this mode does not see all that is synchronizing.
    return sum("called a synchronizing" in str(warning.message) for warning in caught)
