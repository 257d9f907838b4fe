"""Train the embedded backbone: `python experiments/embedded_backbone/train.py`.

Stage A trains the autoencoder on rendered frames, stage B the U-Net on their latents; no labels are used. Every part
is kept in the work folder, so that a run that was interrupted goes on where it stopped. The last step exports the
averaged weights as diffusers folders.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from export import balance_queries, export_autoencoder, export_denoiser, standardise_latents
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from material import FRAMES_A_SCENE, Crops, Latents, encode_frames, render_frames
from networks import AutoencoderTraining, DenoiserTraining
from torch.utils.data import DataLoader, Dataset, RandomSampler

from zsvss import backbones


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "zsvss_embedded", help="checkpoints, frames, logs"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(backbones.__path__[0]) / "embedded", help="exported weights"
    )
    parser.add_argument("--scenes", type=int, default=2000, help="training scenes, four frames each")
    parser.add_argument("--autoencoder-steps", type=int, default=6000)
    parser.add_argument("--autoencoder-minutes", type=float, default=9)
    parser.add_argument("--unet-steps", type=int, default=12000)
    parser.add_argument("--unet-minutes", type=float, default=42)
    parser.add_argument(
        "--balance", type=float, default=0.25, help="power of the queries' balancing; 0 leaves them alone"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--processes", type=int, default=2, help="training processes, each on `threads` threads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="export the newest checkpoints and stop")
    return parser.parse_args()


def fit(
    name: str, module: LightningModule, data: Dataset, batch: int, steps: int, minutes: float, args: argparse.Namespace
) -> Path:
    """Train until `steps` or `minutes` are spent, going on from the last checkpoint; returns the last checkpoint."""
    folder = args.work / name
    keeper = ModelCheckpoint(
        folder,
        filename="{step:06d}",
        every_n_train_steps=500,
        save_top_k=-1,
        save_last=True,
        enable_version_counter=False,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=args.processes,
        strategy="ddp" if args.processes > 1 else "auto",
        precision="bf16-mixed",
        max_steps=steps,
        max_epochs=-1,
        max_time=timedelta(minutes=minutes),
        callbacks=[keeper],
        logger=CSVLogger(args.work, name=f"{name}_log", flush_logs_every_n_steps=20),
        log_every_n_steps=20,
        gradient_clip_val=1.0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    generator = torch.Generator().manual_seed(args.seed)
    sampler = RandomSampler(data, generator=generator)  # type: ignore[arg-type]
    loader = DataLoader(data, batch // args.processes, sampler=sampler, drop_last=True)
    last = folder / "last.ckpt"
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=False)
    trainer.save_checkpoint(last)
    return last


def main() -> None:
    """Run whatever part is not done yet."""
    args = parse()
    torch.set_num_threads(args.threads)
    rank = int(os.environ.get("LOCAL_RANK", "0"))  # Lightning starts this script once more for every further process
    seed_everything(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    frames_NHW3 = render_frames(args.work / "frames.npy", args.scenes, args.threads)[: args.scenes * FRAMES_A_SCENE]

    stage_a, done = AutoencoderTraining(), args.work / "autoencoder" / "done"
    last = args.work / "autoencoder" / "last.ckpt"
    if not done.exists() and not args.export_only:
        seed_everything(args.seed + rank)  # every process draws its own noise
        crops = Crops(frames_NHW3, (64, 64), args.seed)
        last = fit("autoencoder", stage_a, crops, 8, args.autoencoder_steps, args.autoencoder_minutes, args)
        if rank == 0:
            done.touch()
    stage_a.load_state_dict(torch.load(last, weights_only=False)["state_dict"])
    autoencoder = stage_a.average.module.eval()
    standardise_latents(autoencoder, frames_NHW3)
    if rank == 0:
        export_autoencoder(autoencoder, args.output)

    moments_N2chw = encode_frames(args.work / "latents.npy", frames_NHW3, autoencoder)
    seed_everything(args.seed)
    stage_b, last = DenoiserTraining(args.learning_rate), args.work / "unet" / "last.ckpt"
    if not args.export_only:
        seed_everything(args.seed + rank)
        latents = Latents(moments_N2chw)
        last = fit("unet", stage_b, latents, args.batch, args.unet_steps, args.unet_minutes, args)
    if rank == 0:
        stage_b.load_state_dict(torch.load(last, weights_only=False)["state_dict"])
        sample_Bchw = torch.from_numpy(moments_N2chw[:: max(1, len(moments_N2chw) // 120), 0].astype(np.float32))
        balance_queries(stage_b.average.module, sample_Bchw, args.balance)
        export_denoiser(stage_b.average.module, args.output)


if __name__ == "__main__":
    main()
