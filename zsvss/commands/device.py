"""Which device a run computes on, and in which precision, where the one that was asked for does not suit it."""

from __future__ import annotations

import logging
from typing import Any

import torch

_FLOAT16 = ("16-true", "16-mixed", "16")
_BFLOAT16 = ("bf16-true", "bf16-mixed", "bf16")
# Of x86 processors; on others bfloat16 has not been measured.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def choose_device(trainer: Any) -> None:
    """Replace ``auto`` where it would take a device that cannot compute in float64.

    Args:
        trainer: its settings.

    Raises:
        ValueError: such a device is named.
    """
    if trainer.accelerator == "mps":
        raise ValueError("trainer.accelerator = mps has no float64, which votes and ties need; use cpu or cuda")
    if trainer.accelerator == "auto" and torch.backends.mps.is_available():
        trainer.accelerator = "cpu"


def choose_precision(trainer: Any, backbone: Any) -> tuple[int, str] | None:
    """Replace a half precision that is slower than float32 on the chosen device.

    That is float16 on a CPU, and bfloat16 where the device has no instructions for it. Of bfloat16 only the small
    model is relieved: larger ones may be in it because their weights would not fit into memory otherwise.

    Args:
        trainer: its settings, after :func:`choose_device`.
        backbone: its settings.

    Returns:
        What to log about it: a level and a message; ``None`` if the precision is as it was.
    """
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.cuda.is_available())
    asked = str(trainer.precision)
    is_small = str(getattr(backbone, "class_path", "")).endswith(".Embedded")
    if on_cpu and asked in _FLOAT16:
        trainer.precision = "32-true"
        why = "is many times slower than float32 on a CPU"
        return logging.WARNING, f"trainer.precision {asked} {why}; computing in 32-true"
    if is_small and asked in _BFLOAT16 and not has_bfloat16(on_cpu=on_cpu):
        trainer.precision = "32-true"
        why = f"this {'processor' if on_cpu else 'GPU'} has no instructions for it, as far as PyTorch tells"
        return logging.INFO, f"trainer.precision {asked}: {why}; computing in 32-true"
    return None


def has_bfloat16(*, on_cpu: bool) -> bool:
    """Whether the processor, or else the GPU, has instructions for bfloat16, which is slow without them."""
    if not on_cpu:
        return not torch.cuda.is_available() or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not hasattr(torch.cpu, "get_capabilities"):  # older PyTorch does not tell
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _INSTRUCTIONS)
