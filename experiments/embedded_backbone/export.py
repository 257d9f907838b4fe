"""Write trained networks as diffusers folders in half precision.

Shape suffixes: c latent channels, B batch, h w latent cells.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from material import images_to_tensor
from networks import Denoiser, build_scheduler
from numpy.typing import NDArray
from safetensors.torch import save_file


@torch.inference_mode()
def standardise_latents(autoencoder: AutoencoderKL, frames_NHW3: NDArray[Any], count: int = 256) -> None:
    """Give every latent channel zero mean and unit variance, in place and exactly.

    The change of scale is folded into the 1x1 convolutions on both sides of the latent, so that reconstructions stay
    the same and the scaling factor is 1.
    """
    stride = max(1, len(frames_NHW3) // count)
    samples = [
        autoencoder.encode(images_to_tensor(frames_NHW3[start : start + 1])).latent_dist.mean
        for start in range(0, len(frames_NHW3), stride)
    ]
    latents_Bchw = torch.cat(samples)
    mean_c, deviation_c = latents_Bchw.mean((0, 2, 3)), latents_Bchw.std((0, 2, 3))
    channels = len(mean_c)
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    before.weight[:channels] /= deviation_c[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean_c) / deviation_c
    before.bias[channels:] -= 2 * deviation_c.log()
    after.bias += (after.weight[:, :, 0, 0] * mean_c).sum(1)
    after.weight *= deviation_c[None, :, None, None]


def export_autoencoder(autoencoder: AutoencoderKL, output: Path) -> None:
    """Write `vae/`."""
    copy.deepcopy(autoencoder).half().save_pretrained(output / "vae", safe_serialization=True)


def export_denoiser(denoiser: Denoiser, output: Path) -> None:
    """Write `unet/`, `scheduler/`, and the null context (key `cond`, 1 x tokens x width) in `context.safetensors`."""
    unet = copy.deepcopy(denoiser.unet).half()
    unet.set_attn_processor(AttnProcessor2_0())
    unet.save_pretrained(output / "unet", safe_serialization=True)
    save_file({"cond": denoiser.context_1kd.detach().half().contiguous()}, output / "context.safetensors")
    config = dict(build_scheduler().config)
    EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing").save_pretrained(output / "scheduler")
