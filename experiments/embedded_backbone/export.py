"""Write trained networks as diffusers folders in half precision."""

from __future__ import annotations

import copy
from pathlib import Path

from diffusers import AutoencoderKL, EulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from networks import Denoiser, build_scheduler
from safetensors.torch import save_file


def export_autoencoder(autoencoder: AutoencoderKL, output: Path) -> None:
    """Write `vae/`."""
    copy.deepcopy(autoencoder).half().save_pretrained(output / "vae", safe_serialization=True)
    _readable(output)


def export_denoiser(denoiser: Denoiser, output: Path) -> None:
    """Write `unet/`, `scheduler/`, and the null context (key `cond`, 1 x tokens x width) in `context.safetensors`."""
    unet = copy.deepcopy(denoiser.unet).half()
    unet.set_attn_processor(AttnProcessor2_0())
    unet.save_pretrained(output / "unet", safe_serialization=True)
    save_file({"cond": denoiser.context_1kd.detach().half().contiguous()}, output / "context.safetensors")
    config = dict(build_scheduler().config)
    EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing").save_pretrained(output / "scheduler")
    _readable(output)


def _readable(output: Path) -> None:
    for path in output.rglob("*.safetensors"):  # written for the owner alone
        path.chmod(0o644)
