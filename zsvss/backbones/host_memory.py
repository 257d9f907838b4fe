"""Keeping tensors in the host's memory where a device's does not hold them.

Shape legend: G guidance halves, T frames, b samples; trailing dimensions are anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, pinned so that a device reads it without a wait; waits until it is there."""
    if tensor.device.type == "cpu":
        return tensor
    return _pinned(tensor.shape, tensor.dtype).copy_(tensor)


def joined(tensors_b: Sequence[Tensor]) -> Tensor:
    """The tensors one after another, where they are; a single one that fills its memory is not copied."""
    first = tensors_b[0]
    if len(tensors_b) == 1 and (first.is_contiguous() or _is_channels_last(first)):
        return first
    if not first.is_pinned():
        return torch.cat(list(tensors_b))
    shape = (sum(len(tensor) for tensor in tensors_b), *first.shape[1:])
    return torch.cat(list(tensors_b), out=_pinned(shape, first.dtype))


def picked(tensor_GT: Tensor, half_b: Tensor, frame_b: Tensor) -> Tensor:
    """Some halves and frames of a tensor [b, ...], on the device of their numbers.

    A tensor in the host's memory is copied sample by sample, for which the device is asked once.
    """
    if tensor_GT.device == half_b.device:
        return tensor_GT[half_b, frame_b]
    picked_b = tensor_GT.new_empty(len(half_b), *tensor_GT.shape[2:], device=half_b.device)
    for sample, (half, frame) in enumerate(torch.stack([half_b, frame_b], 1).tolist()):
        picked_b[sample].copy_(tensor_GT[half, frame], non_blocking=True)
    return picked_b


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)
