"""The two networks of the embedded backbone and their Lightning training modules.

Shape suffixes: B batch, H W pixels, c latent channels, h w latent cells, k context tokens, d context width.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

CONTEXT_TOKENS, CONTEXT_WIDTH = 4, 64


def build_autoencoder() -> AutoencoderKL:
    """Autoencoder that shrinks images four times in each direction."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,  # one channel a group would remove every image's mean colour
        sample_size=128,
        scaling_factor=1.0,
    )


def build_unet() -> UNet2DConditionModel:
    """U-Net in the layout of Stable Diffusion: four levels, three layers in each up block."""
    unet = UNet2DConditionModel(
        sample_size=(32, 56),
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2, 3, 4),  # diffusers reads this as the number of heads
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


class AutoencoderTraining(LightningModule):
    """Stage A: reconstruct crops through a sampled latent.

    Args:
        learning_rate: Adam's step.
        kl_weight: Weight of the posterior's mean divergence from the unit Gaussian.
    """

    def __init__(self, learning_rate: float = 1e-3, kl_weight: float = 1e-6) -> None:
        super().__init__()
        self.learning_rate, self.kl_weight = learning_rate, kl_weight
        self.network = build_autoencoder()
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.995)).requires_grad_(False)

    def training_step(self, images_B3HW: Tensor, batch_index: int) -> Tensor:
        """Reconstruction loss of one batch of crops."""
        posterior = self.network.encode(images_B3HW).latent_dist
        output_B3HW = self.network.decode(posterior.sample()).sample.float()
        error = functional.l1_loss(output_B3HW, images_B3HW) + 2 * functional.mse_loss(output_B3HW, images_B3HW)
        edges = functional.l1_loss(output_B3HW.diff(dim=-1), images_B3HW.diff(dim=-1))
        edges = edges + functional.l1_loss(output_B3HW.diff(dim=-2), images_B3HW.diff(dim=-2))
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = error + 0.5 * edges + self.kl_weight * divergence
        self.log_dict({"loss": loss, "error": error, "divergence": divergence}, prog_bar=True)
        return loss

    def on_train_batch_end(self, *args: object) -> None:
        """Follow the weights with their moving average."""
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with betas that suit a short run."""
        return torch.optim.Adam(self.network.parameters(), self.learning_rate, betas=(0.9, 0.99))


class Denoiser(nn.Module):
    """U-Net with its learned null context; the part of stage B that is averaged and exported."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = build_unet()
        self.context_1kd = nn.Parameter(0.5 * torch.randn(1, CONTEXT_TOKENS, CONTEXT_WIDTH))

    def forward(self, noisy_Bchw: Tensor, timesteps_B: Tensor, keep_B: Tensor) -> Tensor:
        """Prediction of v; where `keep_B` is 0 the context is all zeros."""
        context_Bkd = self.context_1kd * keep_B[:, None, None]
        return self.unet(noisy_Bchw, timesteps_B, context_Bkd).sample


class DenoiserTraining(LightningModule):
    """Stage B: v-prediction on sampled latents.

    Args:
        learning_rate: AdamW's step.
        warmup: Steps over which the learning rate rises.
        drop: Share of samples whose context is all zeros.
        low_share: Share of samples whose timestep is drawn below `low_limit`; the others are drawn from all.
        low_limit: See `low_share`. Features are read at timesteps 119, 79 and 39.
    """

    def __init__(
        self,
        learning_rate: float = 4e-4,
        warmup: int = 200,
        drop: float = 0.15,
        low_share: float = 0.5,
        low_limit: int = 400,
    ) -> None:
        super().__init__()
        self.learning_rate, self.warmup, self.drop = learning_rate, warmup, drop
        self.low_share, self.low_limit = low_share, low_limit
        self.network = Denoiser()
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.998)).requires_grad_(False)
        self.scheduler = build_scheduler()

    def training_step(self, moments: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Mean squared error of v."""
        mean_Bchw, deviation_Bchw = moments
        latents_Bchw = mean_Bchw + deviation_Bchw * torch.randn_like(mean_Bchw)
        batch = len(latents_Bchw)
        low_B = torch.rand(batch) < self.low_share
        timesteps_B = (torch.rand(batch) * torch.where(low_B, self.low_limit, 1000)).long()
        noise_Bchw = torch.randn_like(latents_Bchw)
        noisy_Bchw = self.scheduler.add_noise(latents_Bchw, noise_Bchw, timesteps_B)
        target_Bchw = self.scheduler.get_velocity(latents_Bchw, noise_Bchw, timesteps_B)
        keep_B = (torch.rand(batch) >= self.drop).float()
        errors_B = (self.network(noisy_Bchw, timesteps_B, keep_B).float() - target_Bchw).square().mean((1, 2, 3))
        loss = errors_B.mean()
        self.log("loss", loss, prog_bar=True)
        low_noise = timesteps_B < 150
        if low_noise.any():
            self.log("loss_low_noise", errors_B[low_noise].mean())
        return loss

    def on_train_batch_end(self, *args: object) -> None:
        """Follow the weights with their moving average."""
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW with a linear warm-up."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
