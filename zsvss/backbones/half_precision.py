"""Networks that overflow in float16 run in float32, whichever way a run came to float16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def in_float32(networks: Iterable[nn.Module | None], device: torch.device, *, needed: bool = True) -> Iterator[None]:
    """Run networks in float32 where they would run in float16: with weights in float16, or under autocast to it.

    The weights are float16 again afterwards, also if an exception leaves the block. bfloat16 has float32's range and is
    left alone.

    Args:
        networks: parts of a model; ``None`` for one that the model lacks.
        device: on which they run.
        needed: ``False`` does nothing.
    """
    kind = device.type
    halves = [network for network in networks if network is not None and _is_half(network)]
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    if not needed or not (halves or autocast):
        yield
        return
    try:
        for network in halves:
            network.float()  # within, as memory may run out halfway
        with torch.autocast(kind, enabled=False):
            yield
    finally:
        for network in halves:
            network.half()


def _is_half(network: nn.Module) -> bool:
    return any(parameter.dtype == torch.float16 for parameter in network.parameters())
