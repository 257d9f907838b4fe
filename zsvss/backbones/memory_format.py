"""How images lie in memory within an autoencoder: whichever way its device's convolutions are faster."""

from __future__ import annotations

import torch
from torch import nn


def image_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Channels last on a GPU, and in bfloat16 on a CPU, whose convolutions are faster so; contiguous elsewhere.

    In float32 on a CPU convolutions gain nothing, and group norm loses four digits on channels-last input. Apple's
    devices gain nothing either.

    Args:
        device: on which the autoencoder runs.
        dtype: of its weights.
    """
    if device.type == "mps" or (device.type == "cpu" and dtype != torch.bfloat16):
        return torch.contiguous_format
    return torch.channels_last


def lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Store the weights of two-dimensional convolutions in this format, in which they then compute."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=memory_format)  # type: ignore[call-overload]  # not in the stubs
