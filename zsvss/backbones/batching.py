"""Batches that a device's memory holds."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch

from zsvss.backbones.base import Backbone

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# From so many times the largest pass's memory on a pass of twice the size is tried: it, and a quarter to spare.
_ROOM = 2.5


def with_smaller_batches(backbone: Backbone, compute: Callable[[], _T]) -> _T:
    """Call ``compute``, and again with half the backbone's batch each time that the device runs out of memory.

    The smaller batch stays for the rest of the run. Sums of another batch size may differ in their last bits on a GPU.

    Args:
        backbone: whose batch to halve.
        compute: has no effect but its result, and reads the batch size from the backbone.

    Raises:
        torch.cuda.OutOfMemoryError: if even the smallest batch does not fit.
    """
    while True:
        try:
            return compute()
        except torch.cuda.OutOfMemoryError:
            if not backbone.halve_batch():
                raise
        backbone.fills_memory = False
        # Not in the except block: until it ends, the traceback keeps the failed pass's tensors.
        _log.warning("out of GPU memory; going on with %d modulated frames a pass", backbone.max_rows)
        gc.collect()
        torch.cuda.empty_cache()


def grow_batch(backbone: Backbone) -> None:
    """Double the backbone's batch if it is to fill the memory and twice the largest pass so far would fit easily.

    All passes are then of the new size, also those of the next clip. Once one has run out of memory the batch is halved
    and grows no more.
    """
    memory = memory_of_passes(backbone.device) if backbone.fills_memory else None
    if memory is not None and memory.free > _ROOM * memory.largest:
        backbone.double_batch()
        _log.info("free GPU memory allows %d modulated frames a pass", backbone.max_rows)


class PassMemory(NamedTuple):
    """Bytes that the next pass could take, and the most that a pass of this process has taken."""

    free: int
    largest: int


def memory_of_passes(device: torch.device) -> PassMemory | None:
    """Memory of a GPU between two passes; ``None`` for other devices, whose batches stay as they are."""
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_allocated(device)
    cached = torch.cuda.memory_reserved(device) - held
    return PassMemory(torch.cuda.mem_get_info(device)[0] + cached, torch.cuda.max_memory_allocated(device) - held)
