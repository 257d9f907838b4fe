"""What a checkpoint's ``scheduler_config.json`` tells of the noise that its network was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]

_PREDICTION_TYPES: tuple[PredictionType, ...] = ("epsilon", "v_prediction")
# In place of zero, at the end of a schedule of zero terminal signal-to-noise ratio, as diffusers has it.
SMALLEST_ALPHA = 2.0**-24


def check_kind(config: Mapping[str, Any], place: str) -> None:
    """Refuse the scheduler of a network that was not trained on noise levels of a variance-preserving diffusion.

    Args:
        config: of the scheduler; may be empty.
        place: where it comes from, for the message.

    Raises:
        ValueError: naming the scheduler.
    """
    name = config.get("_class_name", "")
    flow = "Flow" in name or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flow or name.startswith("EDM"):
        trained = "flow matching" if flow else "EDM preconditioning"
        raise ValueError(
            f"{place} is a {name or 'scheduler'} of a network trained by {trained}; this backbone needs one that "
            f"predicts {' or '.join(_PREDICTION_TYPES)}. Take a checkpoint of the backbone's own kind."
        )


def prediction_type(config: Mapping[str, Any], chosen: PredictionType | None, place: str) -> PredictionType:
    """What the network predicts.

    Args:
        config: of the scheduler; empty where there is none.
        chosen: the setting, which goes before the config.
        place: where the config comes from, for the message.

    Raises:
        ValueError: if neither tells, or what they tell is not known.
    """
    found = chosen or config.get("prediction_type")
    hint = (
        "Set backbone.prediction_type to epsilon (Stable Diffusion 1.x, 2.0-base, 2.1-base) or v_prediction (2.0 and "
        "2.1 at 768 pixels)."
    )
    if found is None:
        reason = "does not tell" if config else "is not there to tell"
        raise ValueError(f"{place} {reason} what the network predicts. {hint}")
    if found not in _PREDICTION_TYPES:
        raise ValueError(
            f"{place}: prediction_type {found!r} is not known; it must be one of {', '.join(_PREDICTION_TYPES)}. {hint}"
        )
    return found


def training_sigmas(config: Mapping[str, Any], place: str) -> Tensor:
    """Noise level of each training step, float64 [number of steps].

    ``trained_betas`` and ``rescale_betas_zero_snr`` are honoured; where the config is silent, the numbers are those of
    Stable Diffusion.

    Args:
        config: of the scheduler; may be empty.
        place: where it comes from, for the message.

    Raises:
        ValueError: if the kind of schedule is not known.

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (arXiv 2305.08891), Alg. 1.
    """
    kind = config.get("beta_schedule", "scaled_linear")
    if config.get("trained_betas") is not None:
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif kind in ("scaled_linear", "linear"):
        power = 2 if kind == "scaled_linear" else 1
        start, end = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
        num_steps = config.get("num_train_timesteps", 1000)
        betas = torch.linspace(start ** (1 / power), end ** (1 / power), num_steps, dtype=torch.float64) ** power
    else:
        raise ValueError(
            f"{place}: beta_schedule {kind!r} must be 'scaled_linear' or 'linear', or trained_betas a list."
        )
    alphas = (1 - betas).cumprod(0)
    if config.get("rescale_betas_zero_snr"):
        roots = alphas.sqrt()
        alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        alphas[-1] = SMALLEST_ALPHA
    return ((1 - alphas) / alphas).sqrt()


def trailing_timesteps(num_steps: int, num_train_steps: int) -> list[int]:
    """Timesteps of a sampling schedule that is spaced from the end of the training's.

    Raises:
        ValueError: if there are more sampling steps than training steps.

    >>> trailing_timesteps(4, 1000)
    [999, 749, 499, 249]
    """
    if num_steps > num_train_steps:
        raise ValueError(f"num_steps = {num_steps} must be at most {num_train_steps}, the training's number of steps.")
    spacing = num_train_steps / num_steps
    return [round(num_train_steps - i * spacing) - 1 for i in range(num_steps)]
