"""Precision of what is not a network: sampling, distances and differences stay out of autocast and of TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Context in which arithmetic happens in the precision of its operands.

    Autocast is off. So is TF32, which keeps 10 of float32's 23 bits and which GPUs take for convolutions by default
    and for matrix products by choice or by the environment.
    """
    with torch.autocast(device.type, enabled=False), _without_tf32():
        yield


def tf32_settings() -> dict[str, str]:
    """What float32 convolutions and matrix products are computed in on a GPU: ``ieee`` or ``tf32``, by operation."""
    return {
        operation: "tf32" if backend.fp32_precision == "tf32" else "ieee" for operation, backend in _backends().items()
    }


def _backends() -> dict[str, Any]:
    """What decides on TF32 by its ``fp32_precision``, by operation."""
    cudnn: Any = torch.backends.cudnn
    return {"convolution": cudnn.conv, "matmul": torch.backends.cuda.matmul}


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = [(backend, backend.fp32_precision) for backend in _backends().values()]
    for backend, _ in before:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, value in before:
            backend.fp32_precision = value
