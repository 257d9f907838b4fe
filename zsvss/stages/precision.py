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
        operation: "tf32" if getattr(backend, name) in (True, "tf32") else "ieee"
        for operation, (backend, name) in _switches().items()
    }


def _switches() -> dict[str, tuple[Any, str]]:
    """Backend and attribute that decide on TF32, by operation."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(matmul, "fp32_precision"):  # PyTorch 2.9 and later, which refuses a mixture of both
        return {"convolution": (cudnn.conv, "fp32_precision"), "matmul": (matmul, "fp32_precision")}  # type: ignore[attr-defined, unused-ignore]
    return {"convolution": (cudnn, "allow_tf32"), "matmul": (matmul, "allow_tf32")}


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = [(backend, name, getattr(backend, name)) for backend, name in _switches().values()]
    for backend, name, _ in before:
        setattr(backend, name, "ieee" if name == "fp32_precision" else False)
    try:
        yield
    finally:
        for backend, name, value in before:
            setattr(backend, name, value)
