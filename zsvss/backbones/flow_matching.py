"""Transformers trained by flow matching: noise level s mixes (1 - s) of the image with s of noise."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise
from zsvss.backbones.transformer import TransformerBackbone

_SCHEDULER = "FlowMatchEulerDiscreteScheduler"


class FlowMatching(TransformerBackbone):
    """Euler steps along the flow from noise to image, on the levels of diffusers' own scheduler."""

    @override
    def set_schedule(self) -> None:
        from diffusers import FlowMatchEulerDiscreteScheduler

        config, place = self.source.config("scheduler"), f"{self.source.name}/scheduler"
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.flow_config(config, place))
        scheduler.set_timesteps(self.num_steps, **self.schedule_options(config))
        self.sigmas = scheduler.sigmas.double().tolist()
        self.timesteps = scheduler.timesteps.double().tolist()

    def flow_config(self, config: Mapping[str, Any], place: str) -> Mapping[str, Any]:
        """Settings of diffusers' scheduler of Euler steps, by those of the model's.

        Raises:
            ValueError: if that is of another kind.
        """
        if config.get("_class_name") != _SCHEDULER:
            raise ValueError(f"{place} is a {config.get('_class_name')}; {type(self).__name__} needs a {_SCHEDULER}.")
        return config

    @abstractmethod
    def schedule_options(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What the scheduler is told beside the number of steps."""

    @override
    def scaled(self, x_bchw: Tensor, step: int) -> Tensor:
        return x_bchw

    @override
    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        sigma = self.sigmas[self.steps[0]]
        return (1 - sigma) * latents_Tchw + sigma * noise.diffusion_Tchw.to(latents_Tchw)


def shift_by_size(config: Mapping[str, Any], image_tokens: int) -> dict[str, float]:
    """How far a scheduler shifts its levels for an image of so many tokens, if it asks for that."""
    if not config.get("use_dynamic_shifting"):
        return {}
    fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return {"mu": low + (high - low) * (image_tokens - fewest) / (most - fewest)}
