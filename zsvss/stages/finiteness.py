"""Checks for NaN and infinity: a tensor that is not finite ends its video with an error before it is used."""

from __future__ import annotations

import torch
from torch import Tensor

from zsvss.backbones.base import Backbone, Recording
from zsvss.stopwatch import measured


class NotFiniteError(ValueError):
    """A stage gave infinite values or NaN.

    Args:
        stage: where they first appeared.
        precision: in which the network computes.
        weights: names of the weights.
    """

    def __init__(self, stage: str, precision: str, weights: str) -> None:
        super().__init__(stage, precision, weights)
        self.stage, self.precision, self.weights = stage, precision, weights

    def __str__(self) -> str:
        remedy = {
            "float16": "float16 ends at 65504: compute in another precision, by --trainer.precision bf16-mixed or "
            "32-true",
            "bfloat16": "compute in another precision, by --trainer.precision 32-true",
        }.get(
            self.precision,
            f"the weights ({self.weights}) hold such values themselves, or are not those of this network: fetch them "
            "again",
        )
        return f"{self.stage} are not finite (infinite or NaN), computed in {self.precision}; {remedy}"


class FiniteCheck:
    """Collects whether tensors are finite on their device, and asks once for all of them.

    Args:
        backbone: whose precision, under the autocast of this moment, an error names.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._autocast = autocast_of(backbone)  # it is asked outside of it, too
        self._flags: list[tuple[str, Tensor]] = []

    def add(self, stage: str, values: Tensor | None) -> None:
        """Look at a tensor without waiting for it; what is not computed is no fault."""
        if values is not None and values.numel():
            smallest, largest = values.aminmax()  # both are NaN if any value is
            self._flags.append((stage, torch.isfinite(largest.float() - smallest.float())))

    def ask(self) -> None:
        """Wait for the answer.

        Raises:
            NotFiniteError: naming the first stage that was bad.
        """
        flags, self._flags = self._flags, []
        finite = torch.stack([flag for _, flag in flags]).tolist() if flags else []
        for (stage, _), is_finite in zip(flags, finite, strict=True):
            if not is_finite:
                names = ", ".join(self._backbone.weights_names) or type(self._backbone).__name__
                raise NotFiniteError(stage, precision_of(self._backbone, self._autocast), names)


@measured("record")
def check_feature_pass(backbone: Backbone, recording: Recording, features_Tnc: Tensor) -> None:
    """Look at all that the feature pass gave, with one question, before anything is clustered.

    Raises:
        NotFiniteError: naming the first stage that was bad.
    """
    check = FiniteCheck(backbone)
    check.add("latents after the encoder", recording.encoded_Tchw)
    for step, x_Tchw in recording.latents.items():
        check.add(f"latents after step {step} of the feature pass", x_Tchw)
    check.add("features", features_Tnc)
    check.ask()


def autocast_of(backbone: Backbone) -> torch.dtype | None:
    """Type of the autocast that a network would compute under at this moment, or ``None``."""
    device = backbone.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def precision_of(backbone: Backbone, autocast: torch.dtype | None) -> str:
    """Type in which a network computes, under an autocast as well: ``float16``, ``bfloat16`` or ``float32``."""
    own = {parameter.dtype for parameter in backbone.parameters() if parameter.is_floating_point()}
    if autocast is not None and torch.float32 in own:
        own.add(autocast)
    narrowest = next((dtype for dtype in (torch.float16, torch.bfloat16) if dtype in own), torch.float32)
    return str(narrowest).removeprefix("torch.")
