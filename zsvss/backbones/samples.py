"""The samples of a network's batch: which row, guidance half and frame each is.

Shape legend: b samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

# Guidance halves, by their index from the end: a recording without guidance holds the conditional half alone.
UNCONDITIONAL, CONDITIONAL = -2, -1


@dataclass(frozen=True)
class Samples:
    """Samples of the network's batch: their row, guidance half (from the end) and frame, int64 [b]."""

    row_b: Tensor
    half_b: Tensor
    frame_b: Tensor

    @cached_property
    def halves_and_frames(self) -> Any:
        """Half and frame of each as plain numbers, for which a device is asked once."""
        return torch.stack([self.half_b, self.frame_b], 1).tolist()

    def part(self, place: slice) -> Samples:
        """Some of them."""
        return Samples(self.row_b[place], self.half_b[place], self.frame_b[place])

    def filled(self, size: int) -> Samples:
        """So many of them, beginning again from the first one."""
        place_b = torch.arange(size, device=self.row_b.device) % len(self.row_b)
        return Samples(self.row_b[place_b], self.half_b[place_b], self.frame_b[place_b])
