"""What a run costs: arithmetic, time and memory; and how far two label maps agree.

Shape legend: T frames of a clip, H W pixels.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_T = TypeVar("_T")


def _attention_flop(*shapes: tuple[int, ...], **_unused: Any) -> int:
    return int(sdpa_flop_count(*shapes[:3]))


# The counter knows attention's kernels on a GPU only.
_ATTENTION_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}


@dataclass(frozen=True)
class Counted(Generic[_T]):
    """A result, its floating-point operations, and the peak of memory in bytes above what was held before."""

    result: _T
    flop: int
    peak: int


def count(run: Callable[[], _T], device: str) -> Counted[_T]:
    """Count a run's arithmetic and memory."""
    held = _start_of_peak(device)
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU) as counter:
        result = run()
    return Counted(result, counter.get_total_flops(), _memory(device, peak=True) - held)


def agreement(labels_THW: Tensor, reference_THW: Tensor) -> float:
    """Share of pixels with the same label under the best one-to-one renaming."""
    size = int(max(labels_THW.max(), reference_THW.max())) + 1
    pairs = torch.bincount((labels_THW * size + reference_THW).flatten(), minlength=size * size).view(size, size)
    rows, columns = linear_sum_assignment(pairs.cpu().numpy(), maximize=True)
    return float(pairs[rows, columns].sum()) / labels_THW.numel()


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product, on a CPU of processor time; median of three."""
    side = 8192 if device != "cpu" else 2048
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(4):
        start = _clock(device)
        matrix @ matrix
        seconds.append(_clock(device) - start)
    return 2 * side**3 / statistics.median(seconds[1:])


def _clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _start_of_peak(device: str) -> int:
    """Count the peak memory anew, where the system lets a process do so; returns what is held now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _memory(device, peak=False)


def _memory(device: str, *, peak: bool) -> int:
    """Bytes of the device's allocations, or of the process's memory; 0 if unknown."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return 0
    field_name = "VmHWM" if peak else "VmRSS"
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field_name))
