"""How far our tensors are from those that the published code stored."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from golden import Arrays, by_label
from torch import Tensor


class Deviations:
    """Collects how far our tensors are from stored ones, so that a failure shows all of them."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}

    def add(self, name: str, ours: Tensor, stored: Tensor) -> None:
        """Half a unit in the last place is the store's own error where it holds float16."""
        stored_error = stored.abs().float() * 2**-11 if stored.dtype == torch.float16 else 0.0
        self.of[name] = ((ours.float() - stored.float()).abs() - stored_error).max().item()

    def add_step(
        self, stored: Arrays, label_set_L: Tensor, number: int, kinds: Iterable[str], x_SBcuv: Tensor, frames_B: Tensor
    ) -> None:
        """Modulated latents of a label in both signs, for each kind such as ``x24_final`` that is stored."""
        for sign, ours in zip("pm", x_SBcuv, strict=True):
            for suffix in (f"_{sign}_{kind}" for kind in kinds):
                expected = by_label(stored, label_set_L, number, suffix)
                if expected is not None:
                    self.add(f"label {number}{suffix}", ours, expected[frames_B])

    def check(self) -> None:
        # Float32 sums in another order: 1e-5 to 2e-5 is seen.
        assert self.of
        assert not {name: f"{value:.1e}" for name, value in self.of.items() if not value < 1e-4}
