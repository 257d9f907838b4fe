"""Networks, or parts of them, that half precision harms stay in float32, whichever way a run came to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


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


def sparing(fn: Callable[[Tensor], Tensor], network: Any) -> Callable[[Tensor], Tensor]:
    """A conversion that leaves in float32 what diffusers keeps in float32, such as Wan's rotations and norms.

    Args:
        fn: converts a tensor.
        network: of diffusers, which names the modules (``_keep_in_fp32_modules``); ``None`` for one that is not there.
    """
    modules = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    if not modules:
        return fn
    named = chain(network.named_parameters(), network.named_buffers())
    spared = {id(tensor) for name, tensor in named if modules & set(name.split("."))}

    def convert(tensor: Tensor) -> Tensor:
        converted = fn(tensor)
        is_halved = tensor.dtype == torch.float32 and converted.dtype in (torch.float16, torch.bfloat16)
        return tensor.to(converted.device) if is_halved and id(tensor) in spared else converted

    return convert
