"""Bringing together what the processes of a run have, although one may be hours ahead of another."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from torch import distributed

_T = TypeVar("_T")
_FOR_EVER = timedelta(days=1000)


def patient_group() -> distributed.ProcessGroup | None:
    """A group of all processes in which one may wait for another for days; None without torch.distributed.

    The default group gives up after half an hour. That is right where processes start together, but at the end a
    process waits for as long as the others have videos left. A process that dies still ends the wait, as its
    connections break. A collective operation.
    """
    group: distributed.ProcessGroup | None = None
    if is_distributed():
        group = distributed.new_group(backend="gloo", timeout=_FOR_EVER)
    return group


def gather(item: _T, group: distributed.ProcessGroup | None = None) -> list[_T]:
    """What each process has, in the order of their ranks; on one process just its own. A collective operation.

    Raises:
        ConnectionError: another process has died.
    """
    if not is_distributed():
        return [item]
    items = [item] * distributed.get_world_size(group)
    try:
        distributed.all_gather_object(items, item, group)
    except RuntimeError as error:
        raise ConnectionError(
            f"process {distributed.get_rank()} waited in vain for the others, one of which has ended; its messages say "
            "why. Finished videos are recorded: start the same command again"
        ) from error
    return items


def is_distributed() -> bool:
    """Whether this is one of several processes that know of each other."""
    return distributed.is_available() and distributed.is_initialized()
