"""The two networks of the embedded backbone and their Lightning training modules.

Shape suffixes: B batch, H W pixels, c latent channels, h w latent cells, k context tokens, d context width, n tokens,
q channels of a query, b the three blocks whose queries the method reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from lightning import LightningModule
from targets import NUM_LATENTS, NUM_TARGETS, Scale, targets, weighted_error
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

CONTEXT_TOKENS, CONTEXT_WIDTH = 4, 64
POSTERIOR_DEVIATION = 0.05
_CROP = (16, 20)


def build_autoencoder() -> AutoencoderKL:
    """Autoencoder that shrinks images eight times in each direction."""
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=NUM_LATENTS,
        norm_num_groups=4,  # one channel a group would remove every image's mean colour
        mid_block_add_attention=False,
        sample_size=256,
        scaling_factor=1.0,
    )
    fix_posterior(autoencoder)
    return autoencoder


@torch.no_grad()
def fix_posterior(autoencoder: AutoencoderKL) -> None:
    """Give the posterior one standard deviation everywhere, in place: the teacher's latents have none."""
    autoencoder.quant_conv.weight[NUM_LATENTS:] = 0
    autoencoder.quant_conv.bias[NUM_LATENTS:] = 2 * math.log(POSTERIOR_DEVIATION)


def build_unet() -> UNet2DConditionModel:
    """U-Net in the layout of Stable Diffusion: four levels, three layers in each up block.

    The level that features are read at has one attention head, so that one linear change reaches all of a query.
    """
    unet = UNet2DConditionModel(
        sample_size=(32, 56),
        in_channels=NUM_LATENTS,
        out_channels=NUM_LATENTS,
        block_out_channels=(32, 96, 96, 96),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 1, 2, 2),  # diffusers reads this as the number of heads
        cross_attention_dim=CONTEXT_WIDTH,
        use_linear_projection=True,
        norm_num_groups=8,
    )
    unet.set_attn_processor(AttnProcessor())  # on a CPU its backward pass is faster than flash attention's
    return unet


def build_scheduler() -> DDPMScheduler:
    """Stable Diffusion's noise levels with v-prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )


class _Training(LightningModule):
    """What both stages share: a moving average of the weights, AdamW, a warm-up and a cosine to almost nothing."""

    def __init__(self, network: nn.Module, learning_rate: float, warmup: int, num_steps: int, decay: float) -> None:
        super().__init__()
        self.learning_rate, self.warmup, self.num_steps = learning_rate, warmup, num_steps
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)

    def on_train_batch_end(self, *args: object) -> None:
        """Follow the weights with their moving average."""
        self.average.update_parameters(self.network)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradients, which are not scaled: Lightning refuses to of any fused optimizer."""
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.num_steps)))
        return min(1.0, (step + 1) / self.warmup) * (0.02 + 0.98 * cosine)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with betas that suit a short run."""
        parameters = self.network.parameters()
        optimizer = torch.optim.AdamW(parameters, self.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EncoderTraining(_Training):
    """Stage A: give the teacher's latents of the same picture, and their means over a token's cell.

    Args:
        autoencoder: whose encoder learns.
        num_steps: length of the run, for the learning rate.
        learning_rate: AdamW's step.
    """

    def __init__(self, autoencoder: AutoencoderKL, num_steps: int, learning_rate: float = 2e-3) -> None:
        super().__init__(autoencoder, learning_rate, 100, num_steps, 0.997)
        for part in (autoencoder.decoder, autoencoder.post_quant_conv):
            part.requires_grad_(requires_grad=False)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Mean squared error of the latents, each channel of which has unit variance, and that of 2x2 means, twice."""
        latents_Bchw, _, images_B3HW = batch
        fix_posterior(self.network)
        given_Bchw = self.network.encode(images_B3HW).latent_dist.mean.float()
        squared = functional.mse_loss(given_Bchw, latents_Bchw)
        pooled = functional.mse_loss(functional.avg_pool2d(given_Bchw, 2), functional.avg_pool2d(latents_Bchw, 2))
        self.log("squared_error", squared)
        return squared + 2 * pooled


class DecoderTraining(_Training):
    """Stage B: give the picture back from a window of the encoder's latents; the encoder stays as it is.

    Args:
        autoencoder: whose decoder learns.
        num_steps: length of the run, for the learning rate.
        learning_rate: AdamW's step.
    """

    def __init__(self, autoencoder: AutoencoderKL, num_steps: int, learning_rate: float = 2e-3) -> None:
        super().__init__(autoencoder, learning_rate, 100, num_steps, 0.996)
        autoencoder.requires_grad_(requires_grad=False)
        for part in (autoencoder.decoder, autoencoder.post_quant_conv):
            part.requires_grad_()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Reconstruction error: absolute and squared errors of values, absolute errors of differences."""
        _, _, images_B3HW = batch
        with torch.no_grad():
            latents_Bchw = self.network.encode(images_B3HW).latent_dist.sample()
        y, x = (
            int(torch.randint(side - size + 1, ())) for side, size in zip(latents_Bchw.shape[2:], _CROP, strict=True)
        )
        crop_Bchw = latents_Bchw[:, :, y : y + _CROP[0], x : x + _CROP[1]]
        wanted_B3HW = images_B3HW[:, :, 8 * y : 8 * (y + _CROP[0]), 8 * x : 8 * (x + _CROP[1])]
        decoded_B3HW = self.network.decode(crop_Bchw).sample.float()
        squared = functional.mse_loss(decoded_B3HW, wanted_B3HW)
        edges = sum(functional.l1_loss(decoded_B3HW.diff(dim=axis), wanted_B3HW.diff(dim=axis)) for axis in (-1, -2))
        self.log("squared_error", squared)
        return functional.l1_loss(decoded_B3HW, wanted_B3HW) + 2 * squared + 0.5 * edges


class Denoiser(nn.Module):
    """U-Net with its learned null context, and the linear head by which its queries tell the targets.

    The head is for training alone; :mod:`readout` folds what it has found into the exported queries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet()
        self.context_1kd = nn.Parameter(0.5 * torch.randn(1, CONTEXT_TOKENS, CONTEXT_WIDTH))
        self.head = nn.Linear(self.attentions[0].to_q.out_features, NUM_TARGETS)

    @property
    def attentions(self) -> list[Any]:
        """Self-attention of output blocks 6, 7 and 8."""
        return [attention.transformer_blocks[0].attn1 for attention in self.unet.up_blocks[2].attentions]

    def forward(self, noisy_Bchw: Tensor, timesteps_B: Tensor, keep_B: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction of v, and queries [b, B, n, q]; where `keep_B` is 0 the context is all zeros."""
        queries: list[Tensor] = []
        hooks = [
            attention.to_q.register_forward_hook(lambda _, __, output: queries.append(output.float()))
            for attention in self.attentions
        ]
        try:
            output_Bchw = self.unet(noisy_Bchw, timesteps_B, self.context_1kd * keep_B[:, None, None]).sample
        finally:
            for hook in hooks:
                hook.remove()
        return output_Bchw, torch.stack(queries)


class DenoiserTraining(_Training):
    """Stage C: v-prediction on sampled latents, and queries that tell the targets.

    Both the mean of the three blocks' queries, which the method clusters, and block 7's alone, by which it finds
    correspondences, are read by one head.

    Args:
        num_steps: length of the run, for the learning rate.
        scales: of the targets.
        learning_rate: AdamW's step.
        drop: share of samples whose context is all zeros.
        low_share: share of samples whose timestep is drawn below `low_limit`; the others are drawn from all.
        low_limit: see `low_share`. Features are read at timestep 119 and below.
        telling: weight of the targets' error.
    """

    def __init__(
        self,
        num_steps: int,
        scales: dict[str, Scale],
        learning_rate: float = 6e-4,
        drop: float = 0.15,
        low_share: float = 0.5,
        low_limit: int = 200,
        telling: float = 2.0,
    ) -> None:
        super().__init__(Denoiser(), learning_rate, 150, num_steps, 0.997)
        self.scales, self.drop, self.telling = scales, drop, telling
        self.low_share, self.low_limit = low_share, low_limit
        self.scheduler = build_scheduler()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        """Mean squared error of v plus the weighted errors of the targets."""
        clean_Bchw, colours_B3hw, _ = batch
        targets_Bnd = targets(clean_Bchw, colours_B3hw, self.scales)
        latents_Bchw = clean_Bchw + POSTERIOR_DEVIATION * torch.randn_like(clean_Bchw)
        size = len(latents_Bchw)
        low_B = torch.rand(size) < self.low_share
        timesteps_B = (torch.rand(size) * torch.where(low_B, self.low_limit, 1000)).long()
        noise_Bchw = torch.randn_like(latents_Bchw)
        noisy_Bchw = self.scheduler.add_noise(latents_Bchw, noise_Bchw, timesteps_B)
        velocity_Bchw = self.scheduler.get_velocity(latents_Bchw, noise_Bchw, timesteps_B)
        keep_B = (torch.rand(size) >= self.drop).float()
        output_Bchw, queries_bBnq = self.network(noisy_Bchw, timesteps_B, keep_B)
        errors_B = (output_Bchw.float() - velocity_Bchw).square().mean((1, 2, 3))
        told = (self.network.head(queries_bBnq.mean(0)) - targets_Bnd).square().mean((0, 1))
        told_by_7 = (self.network.head(queries_bBnq[1]) - targets_Bnd).square().mean((0, 1))
        telling = weighted_error(told) + 0.3 * weighted_error(told_by_7)
        self.log_dict({"velocity": errors_B.mean(), "telling": telling})
        low_noise = timesteps_B < 150
        if low_noise.any():
            self.log("velocity_low_noise", errors_B[low_noise].mean())
        return errors_B.mean() + self.telling * telling
