"""Precision of what is not a network: sampling, distances and differences stay out of autocast."""

from __future__ import annotations

import torch


def full_precision(device: torch.device) -> torch.autocast:
    """Context in which autocast is off, so that arithmetic happens in the precision of its operands."""
    return torch.autocast(device.type, enabled=False)
