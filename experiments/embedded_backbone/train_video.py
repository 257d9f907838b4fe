"""Train the embedded video backbone: `python experiments/embedded_backbone/train_video.py`.

The image U-Net of the embedded backbone gets layers over time, which alone are trained, on procedural clips without
labels; its spatial layers stay as they are. Everything is kept in the work folder, so that a run that was interrupted
goes on where it stopped; `--export-only` writes the averaged weights of the newest checkpoint.

Shape suffixes: N clips of the whole set, B batch, T frames of a clip, c channels, h w latent cells, k context tokens,
d context width.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from embedded_video import ADDED_WEIGHTS, added_tensors, inflated
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from material import SCENE_SIZE
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from zsvss.backbones.embedded import Embedded
from zsvss.data.scenes import TRAIN_SEEDS, Scene
from zsvss.segmenter import VideoSegmenter

NUM_FRAMES = 14
VECTOR = (14.0, 127.0, 0.02)  # frame rate, motion bucket, augmentation: what the method tells the network
SIGMA_RANGE = (0.02, 3.0)


def render_clip(number: int) -> NDArray[np.uint8]:
    """Fourteen consecutive frames of training scene `number`, every other one hard, every other pair mirrored."""
    scene = Scene(TRAIN_SEEDS[number], height=SCENE_SIZE[0], width=SCENE_SIZE[1], hard=number % 2 == 1)
    start = int(np.random.default_rng([number, 12]).integers(0, scene.num_frames - NUM_FRAMES + 1))
    images = np.stack([scene.render(start + i)[0] for i in range(NUM_FRAMES)])
    return np.ascontiguousarray(images[:, :, ::-1]) if number // 2 % 2 else images


@torch.inference_mode()
def encode_clips(path: Path, num_clips: int, backbone: Embedded) -> NDArray[np.float16]:
    """Latents `NTchw` of the first training scenes in `path`; those that are there already are not encoded again."""
    segmenter = VideoSegmenter(backbone)
    size = segmenter.network_size.of(*SCENE_SIZE)
    latents = backbone.vae.config.latent_channels, *(side // backbone.latent_stride for side in size)
    shape = (num_clips, NUM_FRAMES, *latents)
    done_path = path.with_suffix(".done")
    done = int(done_path.read_text()) if done_path.exists() else 0
    latents_NTchw = np.lib.format.open_memmap(path, "r+" if done else "w+", np.float16, None if done else shape)
    for number in range(done, len(latents_NTchw)):
        images_T3HW = segmenter.to_images(torch.from_numpy(render_clip(number)))
        latents_NTchw[number] = backbone.posterior(images_T3HW).mean.numpy()
        if number % 10 == 9 or number == len(latents_NTchw) - 1:
            latents_NTchw.flush()
            done_path.write_text(str(number + 1))
    return np.load(path, mmap_mode="r")


class Crops(Dataset[Tensor]):
    """Latents of clips, cropped to half the height and width; item i is the same in every run.

    Args:
        latents_NTchw: of the clips.
        length: number of items; the clips take turns.
        seed: of the crops.
    """

    def __init__(self, latents_NTchw: NDArray[np.float16], length: int, seed: int) -> None:
        self._latents, self._length, self._seed = latents_NTchw, length, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self._seed, index])
        clip_Tchw = self._latents[rng.integers(len(self._latents))]
        height, width = clip_Tchw.shape[-2] // 2, clip_Tchw.shape[-1] // 2
        y, x = rng.integers(0, height + 1), rng.integers(0, width + 1)
        return torch.from_numpy(clip_Tchw[..., y : y + height, x : x + width].astype(np.float32))


class VideoDenoiser(nn.Module):
    """The inflated U-Net and its null context; what is averaged and exported."""

    def __init__(self, image_unet: UNet2DConditionModel, context_1kd: Tensor) -> None:
        super().__init__()
        self.unet = inflated(image_unet)
        self.unet.set_attn_processor(AttnProcessor())  # on a CPU its backward pass is faster than flash attention's
        self.unet.requires_grad_(False)
        trained = added_tensors(self.unet)
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(name in trained)
        self.register_buffer("context_1kd", context_1kd.clone())

    def forward(self, latents_BTchw: Tensor, noise_BTchw: Tensor, sigma_B: Tensor, keep_B: Tensor) -> Tensor:
        """Prediction of v `BTchw`; where `keep_B` is 0, context and conditioning latent are all zeros."""
        sigma_B1111, keep_B1111 = sigma_B.view(-1, 1, 1, 1, 1), keep_B.view(-1, 1, 1, 1, 1)
        noisy_BTchw = (latents_BTchw + sigma_B1111 * noise_BTchw) / (sigma_B1111**2 + 1).sqrt()
        first_BTchw = (keep_B1111 * latents_BTchw[:, :1]).expand_as(noisy_BTchw)
        vector_Bc = latents_BTchw.new_tensor([VECTOR]).expand(len(sigma_B), -1)
        context_Bkd = self.context_1kd * keep_B.view(-1, 1, 1)
        inputs_BTchw = torch.cat([noisy_BTchw, first_BTchw], 2)
        return self.unet(inputs_BTchw, 0.25 * sigma_B.log(), context_Bkd, vector_Bc).sample


def fit_time_embedding(unet: Any, image_unet: Any, sigmas: list[float], steps: int = 3000) -> float:
    """Let the time embedding give for `0.25 log(sigma)` what the image network's gives for the timestep of that sigma.

    Args:
        unet: the video network; its time embedding is changed in place.
        image_unet: the image network.
        sigmas: noise level of each of the image network's timesteps, ascending.
        steps: of Adam.

    Returns:
        Mean squared error over the target's variance.
    """
    log_sigma = torch.linspace(np.log(0.002), np.log(15.0), 512)
    timesteps = np.interp(log_sigma.numpy(), np.log(sigmas), np.arange(len(sigmas)))
    with torch.no_grad():
        target = image_unet.time_embedding(image_unet.time_proj(torch.from_numpy(timesteps).float()))
        inputs = unet.time_proj(0.25 * log_sigma)
    embedding = unet.time_embedding.requires_grad_(True)
    optimizer = torch.optim.Adam(embedding.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = functional.mse_loss(embedding(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return float(loss.detach() / target.var())


class VideoTraining(LightningModule):
    """v-prediction on clips of latents.

    Args:
        network: what is trained.
        learning_rate: AdamW's step.
        warmup: steps over which the learning rate rises.
        drop: share of clips without context and conditioning latent.
    """

    def __init__(self, network: VideoDenoiser, learning_rate: float, warmup: int = 50, drop: float = 0.15) -> None:
        super().__init__()
        self.learning_rate, self.warmup, self.drop = learning_rate, warmup, drop
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99)).requires_grad_(False)

    def training_step(self, latents_BTchw: Tensor, batch_index: int) -> Tensor:
        """Mean squared error of v, noise levels even on a logarithmic scale."""
        low, high = np.log(SIGMA_RANGE)
        batch = len(latents_BTchw)
        sigma_B = (low + (high - low) * torch.rand(batch)).exp()
        keep_B = (torch.rand(batch) >= self.drop).float()
        noise_BTchw = torch.randn_like(latents_BTchw)
        sigma_B1111 = sigma_B.view(-1, 1, 1, 1, 1)
        target_BTchw = (noise_BTchw - sigma_B1111 * latents_BTchw) / (sigma_B1111**2 + 1).sqrt()
        output_BTchw = self.network(latents_BTchw, noise_BTchw, sigma_B, keep_B).float()
        loss = functional.mse_loss(output_BTchw, target_BTchw)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *args: object) -> None:
        """Follow the weights with their moving average."""
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW over the layers that are trained, with a linear warm-up."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def global_step(checkpoint: Path) -> int:
    """Steps that a checkpoint has behind it."""
    return int(torch.load(checkpoint, weights_only=False, map_location="cpu")["global_step"])


def export_video(denoiser: VideoDenoiser, output: Path) -> None:
    """Write the tensors that the image network lacks, in half precision."""
    output.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in added_tensors(denoiser.unet).items()}
    save_file(tensors, output / ADDED_WEIGHTS)
    (output / ADDED_WEIGHTS).chmod(0o644)  # written for the owner alone


def main() -> None:
    """Run whatever part is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "zsvss_embedded_video"
    parser.add_argument("--work", type=Path, default=default, help=f"checkpoints, latents, logs ({default})")
    parser.add_argument("--output", type=Path, help="exported weights (WORK/export)")
    parser.add_argument("--clips", type=int, default=160, help="training clips of fourteen frames (160)")
    parser.add_argument("--steps", type=int, default=2000, help="(2000)")
    parser.add_argument("--minutes", type=float, default=60, help="(60)")
    parser.add_argument("--batch", type=int, default=2, help="clips a step (2)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="(5e-4)")
    parser.add_argument("--threads", type=int, default=1, help="(1)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--export-only", action="store_true", help="export the newest checkpoint and stop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    seed_everything(args.seed)
    backbone = Embedded(num_steps=1000, first_step=0)
    backbone.load()
    image_unet = backbone.source.load(UNet2DConditionModel, "unet")
    network, last = VideoDenoiser(image_unet, backbone.context_Gmc[1:]), args.work / "video" / "last.ckpt"
    training = VideoTraining(network, args.learning_rate)
    if not args.export_only:
        if not last.exists():
            sigmas = backbone.sigmas[-2::-1]  # ascending, without the 0 behind the last step
            error = fit_time_embedding(network.unet, image_unet, sigmas)
            print(f"time embedding fitted, {error:.4f} of its variance left", flush=True)
            training.average.update_parameters(network)
            export_video(network, args.work / "inflated")
        latents_NTchw = encode_clips(args.work / "latents.npy", args.clips, backbone)
        keeper = ModelCheckpoint(
            last.parent, filename="{step:06d}", every_n_train_steps=50, save_last=True, enable_version_counter=False
        )
        trainer = Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_steps=args.steps,
            max_epochs=-1,
            max_time=timedelta(minutes=args.minutes),
            callbacks=[keeper],
            logger=CSVLogger(args.work, name="video_log", flush_logs_every_n_steps=5),
            log_every_n_steps=5,
            gradient_clip_val=1.0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        begun = global_step(last) if last.exists() else 0
        seed_everything(args.seed + begun)  # a run that goes on draws anew
        loader = DataLoader(Crops(latents_NTchw, args.steps * args.batch, args.seed + begun), args.batch)
        trainer.fit(training, loader, ckpt_path=last if last.exists() else None, weights_only=False)
        trainer.save_checkpoint(last)
    training.load_state_dict(torch.load(last, weights_only=False, map_location="cpu")["state_dict"])
    export_video(training.average.module, args.output or args.work / "export")
    print(f"exported step {global_step(last)}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
