"""Runs items in batches that fit into the device's memory; the only place that handles out-of-memory errors."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from zsvss.progress import part

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# All parts of one of these lines are in the message of a RuntimeError that means "out of memory".
_MESSAGES = (
    ("CUDA", "out of memory"),
    ("CUBLAS_STATUS_ALLOC_FAILED",),
    ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",),  # what cuDNN says where its workspace does not fit
    ("CUDNN_STATUS_ALLOC_FAILED",),
    ("was unable to find an engine to execute this computation",),  # after the workspace of none of them fitted
    ("DefaultCPUAllocator: can't allocate memory",),
)


@dataclass
class BatchLimit:
    """How many items one batch may hold; it shrinks for good when a batch runs out of memory.

    Attributes:
        size: items of a batch.
        items: what is counted, as the log names it.
    """

    size: int
    items: str = "items"

    def holds(self, whole: int = 1, at_most: int | None = None) -> int:
        """Items of a batch of whole groups, at least one group, where ``at_most`` bounds it beside this limit."""
        bound = self.size if at_most is None else min(self.size, at_most)
        return max(1, bound // whole) * whole


def in_batches(
    compute: Callable[[slice], _T],
    num_items: int,
    limit: BatchLimit,
    *,
    whole: int = 1,
    at_most: int | None = None,
    relief: Callable[[], bool] | None = None,
) -> Iterator[_T]:
    """Compute items in batches; a batch that runs out of memory is split, and what is finished is kept.

    The smaller batch stays for the rest of the run. Sums of another batch size may differ in their last bits on a GPU.

    Args:
        compute: takes the items' place among all and returns their result; has no other effect.
        num_items: how many there are.
        limit: of a batch; halved, from what the failed batch held, when memory runs out.
        whole: items that must stay together, such as the frames of a clip: batches hold multiples of it, even above
            ``limit``.
        at_most: bounds a batch beside ``limit``, for reasons other than memory.
        relief: frees memory where even the smallest batch does not fit, and says whether it did: batches are then
            again as large as at first.

    Yields:
        The results, in the items' order.

    Raises:
        RuntimeError: PyTorch's own, which then tells the smallest batch, if memory does not hold even that. Nothing is
            logged: a caller may free memory and try again.

    Example:
        >>> list(in_batches(lambda part: range(7)[part], 7, BatchLimit(3)))
        [range(0, 3), range(3, 6), range(6, 7)]
    """
    done, size = 0, limit.size
    while done < num_items:
        end = min(num_items, done + limit.holds(whole, at_most))
        try:
            with part(done, end, num_items):
                result = compute(slice(done, end))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if end - done <= whole and relief is None:
                _tell_batch(error, end - done, limit.items)
                raise
            failure = error.with_traceback(None)  # which would keep the failed batch's tensors
        else:
            done = end
            yield result
            del result  # which the next batch may need the memory of
            continue
        gc.collect()
        if end - done > whole:
            limit.size = max(1, (end - done) // whole // 2) * whole
            _log.warning(
                "out of memory with a batch of %d %s; retrying with batches of %d", end - done, limit.items, limit.size
            )
        elif relief is not None and relief():
            limit.size = size
        else:
            _tell_batch(failure, end - done, limit.items)
            raise failure
        torch.cuda.empty_cache()


def once(compute: Callable[[], _T], what: str, relief: Callable[[], bool] | None = None) -> _T:
    """Compute one thing, again if memory runs out and can be freed.

    Args:
        compute: has no effect but its result.
        what: it is, as the log names it.
        relief: as of :func:`in_batches`; ``None`` frees only what Python has not yet collected.
    """
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        failure = error.with_traceback(None)  # which would keep what was computed
    gc.collect()
    if relief is not None and not relief():
        raise failure
    _log.warning("out of memory for the %s; trying again", what)
    torch.cuda.empty_cache()
    return compute()


def _tell_batch(error: RuntimeError, num_items: int, items: str) -> None:
    """Let the error's message tell the batch that did not fit."""
    error.args = (f"{error} Out of memory with {num_items} {items}, which is the smallest batch.",)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, CUDA, cuBLAS or cuDNN raised this because memory ran out."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(all(part in str(error) for part in parts) for parts in _MESSAGES)
