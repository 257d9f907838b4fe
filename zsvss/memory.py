"""Going on with smaller batches where a GPU's memory is too small for the chosen ones."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from zsvss.backbones.base import Backbone

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


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
        # Not in the except block: until it ends, the traceback keeps the failed pass's tensors.
        _log.warning("out of GPU memory; going on with %d modulated frames a pass", backbone.max_rows)
        gc.collect()
        torch.cuda.empty_cache()
