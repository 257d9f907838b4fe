"""How images lie in memory within an autoencoder: whichever way its device's convolutions are faster."""

from __future__ import annotations

import torch
from torch import nn

# On a CPU group norm loses four digits on channels-last input; Apple's devices gain nothing by it.
_CONTIGUOUS = ("cpu", "mps")


def image_format(device: torch.device) -> torch.memory_format:
    """Channels last on a GPU, whose tensor cores multiply the channels of a cell; contiguous elsewhere."""
    return torch.contiguous_format if device.type in _CONTIGUOUS else torch.channels_last


def lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Store the weights of two-dimensional convolutions in this format, in which they then compute."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=memory_format)  # type: ignore[call-overload]  # not in the stubs
