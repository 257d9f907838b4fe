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
from torch import Tensor


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


@torch.inference_mode()
def balance_queries(denoiser: Denoiser, latents_Bchw: Tensor, power: float = 0.25, timestep: int = 39) -> None:
    """Even out the spread of the queries that the method clusters, in place, without changing the network's function.

    Attention depends on queries q and keys k only through q k^T, so (q A)(k A^-T)^T is the same network for any
    invertible A a head. Training leaves A arbitrary, yet K-means on q depends on it. Here A = C^-power, with C the
    second moment of a head's queries over training latents: 0 leaves them as they are, 0.5 whitens them. No labels are
    used.

    Args:
        denoiser: Changed in place: `to_q` and `to_k` of the self-attention of output blocks 6..8.
        latents_Bchw: Latents of training frames.
        power: See above.
        timestep: Noise level at which queries are measured; the last one of the method.
    """
    attentions = [attention.transformer_blocks[0].attn1 for attention in denoiser.unet.up_blocks[2].attentions]
    queries: dict[int, Tensor] = {}
    hooks = [
        attention.to_q.register_forward_hook(lambda _, __, output, index=index: queries.update({index: output}))
        for index, attention in enumerate(attentions)
    ]
    noise_Bchw = torch.randn(latents_Bchw.shape, generator=torch.Generator().manual_seed(0))
    timesteps_B = torch.full((len(latents_Bchw),), timestep)
    noisy_Bchw = build_scheduler().add_noise(latents_Bchw, noise_Bchw, timesteps_B)
    denoiser(noisy_Bchw, timesteps_B, torch.ones(len(latents_Bchw)))
    for hook in hooks:
        hook.remove()
    for index, attention in enumerate(attentions):
        width = attention.to_q.out_features // attention.heads
        for start in range(0, attention.to_q.out_features, width):
            rows = slice(start, start + width)
            queries_nd = queries[index][..., rows].flatten(0, 1).double()
            values_d, vectors_dd = torch.linalg.eigh(queries_nd.T @ queries_nd / len(queries_nd))
            values_d = values_d + 1e-3 * values_d.max()
            scale_d = (values_d / values_d.mean()) ** -power
            forward_dd = (vectors_dd * scale_d) @ vectors_dd.T
            inverse_dd = (vectors_dd / scale_d) @ vectors_dd.T
            attention.to_q.weight[rows] = (forward_dd @ attention.to_q.weight[rows].double()).float()
            attention.to_k.weight[rows] = (inverse_dd @ attention.to_k.weight[rows].double()).float()


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
    for path in output.rglob("*.safetensors"):  # written for the owner alone
        path.chmod(0o644)
