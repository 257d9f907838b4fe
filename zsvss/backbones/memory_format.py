"""How images lie in memory within an autoencoder: whichever way its device's convolutions are faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# On a CPU group norm loses four digits on channels-last input; Apple's devices gain nothing by it.
_CONTIGUOUS = ("cpu", "mps")


def image_format(device: torch.device) -> torch.memory_format:
    """Channels last on a GPU, whose tensor cores multiply the channels of a cell; contiguous elsewhere.

    On a CPU an encoder of few channels gains by :func:`last_on_a_cpu`.
    """
    return torch.contiguous_format if device.type in _CONTIGUOUS else torch.channels_last


def lay_out(network: nn.Module, memory_format: torch.memory_format) -> None:
    """Store the weights of two-dimensional convolutions in this format, in which they then compute."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=memory_format)  # type: ignore[call-overload]


def last_on_a_cpu(encoder: nn.Module) -> None:
    """Channels last for an encoder of few channels, on a CPU: there it spends as long on reordering as on convolving.

    To be called again when the encoder has moved. Its group norms get contiguous input all the same.
    """
    if next(encoder.parameters()).device.type == "cpu":
        lay_out(encoder, torch.channels_last)
    for module in encoder.modules():
        if isinstance(module, nn.GroupNorm) and _contiguous not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(),) if inputs[0].device.type == "cpu" else inputs
