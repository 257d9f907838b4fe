"""The C library's allocator, set to keep what a CPU's tensors leave."""

from __future__ import annotations

import ctypes
import platform

# glibc's mallopt parameters (malloc.h). 32 MiB is the largest threshold that its manual allows; without any mapping the
# peak of a large network was a third higher.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER_TRIM, _LARGEST_KEPT = 2**31 - 1, 32 << 20


def keep_freed_memory() -> None:
    """Let the process keep freed memory for its next tensors, where the C library is glibc; elsewhere do nothing.

    By default glibc hands every freed tensor above some hundred KiB back to the kernel, and the next one of its size is
    mapped, and its pages are faulted in and zeroed, again. Here that begins at 32 MiB. Peak memory hardly changes, but
    the small tensors of the peak stay with the process, those of weights that have moved to a GPU included: it is for
    runs on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        library.mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
