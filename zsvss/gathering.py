"""Gathers objects from all processes of a run, which may finish hours apart."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TypeVar

from torch import distributed

_T = TypeVar("_T")
_FOR_EVER = timedelta(days=1000)


def patient_group(num_nodes: int = 1) -> distributed.ProcessGroup | None:
    """A group of all processes in which one may wait for another for days; None without torch.distributed.

    The default group gives up after half an hour. That is right where processes start together, but at the end a
    process waits for as long as the others have videos left. A process that dies still ends the wait, as its
    connections break. A collective operation.

    Args:
        num_nodes: machines that the processes run on.

    Raises:
        ConnectionError: the machines do not reach each other by the network interface that gloo has chosen.
    """
    group: distributed.ProcessGroup | None = None
    if is_distributed():
        try:
            group = distributed.new_group(backend="gloo", timeout=_FOR_EVER)
        except RuntimeError as error:
            chosen = os.environ.get("GLOO_SOCKET_IFNAME")
            if num_nodes > 1:
                raise ConnectionError(
                    f"the processes of {num_nodes} nodes do not reach each other by gloo ({error}). GLOO_SOCKET_IFNAME "
                    f"is {chosen or 'not set'}: set it to the network interface that connects the nodes, such as eth0 "
                    "(`ip addr` lists them), on every node"
                ) from error
            raise
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
