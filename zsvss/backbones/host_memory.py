"""Keeping tensors in the host's memory where a device's does not hold them.

Shape legend: G guidance halves, T frames, b samples; trailing dimensions are anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zsvss.backbones.samples import Samples


def to_host(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, pinned so that a device reads it without a wait; waits until it is there."""
    if tensor.device.type == "cpu":
        return tensor
    # In the tensor's own layout: another one would be made on the device, which has no memory left.
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)


def joined(tensors_b: Sequence[Tensor]) -> Tensor:
    """The tensors one after another, where they are; a single one that fills its memory is not copied."""
    first = tensors_b[0]
    if len(tensors_b) == 1 and (first.is_contiguous() or _is_channels_last(first)):
        return first
    if not first.is_pinned():
        return torch.cat(list(tensors_b))
    shape = (sum(len(tensor) for tensor in tensors_b), *first.shape[1:])
    return torch.cat(list(tensors_b), out=_pinned(shape, first.dtype))


def picked(tensor_GT: Tensor, samples: Samples) -> Tensor:
    """The halves and frames of a tensor that the samples are of [b, ...], on the samples' device.

    A tensor in the host's memory is copied sample by sample, without a wait for the copies.
    """
    device = samples.half_b.device
    if tensor_GT.device == device:
        return tensor_GT[samples.half_b, samples.frame_b]
    picked_b = tensor_GT.new_empty(len(samples.half_b), *tensor_GT.shape[2:], device=device)
    for sample, (half, frame) in enumerate(samples.halves_and_frames):
        picked_b[sample].copy_(tensor_GT[half, frame], non_blocking=True)
    return picked_b


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)
