"""Train the embedded backbone: `python experiments/embedded_backbone/train.py --teacher taef2_encoder.pth ...`.

Stage A distils the encoder from a published one, stage B trains the decoder, stage C the U-Net on the latents; no
labels are used. Every part is kept in the work folder, so that a run that was interrupted goes on where it stopped. The
last step exports the averaged weights as diffusers folders.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export import export_autoencoder, export_denoiser
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from material import (
    Examples,
    Sources,
    gather,
    large_pictures,
    own_latents,
    projected,
    sharp_pictures,
    small_pictures,
    teacher_latents,
)
from networks import DecoderTraining, DenoiserTraining, EncoderTraining, _Training, build_autoencoder
from numpy.typing import NDArray
from readout import Reading, speak
from targets import NUM_LATENTS, Scale, fit_scales
from teacher import fit_projection
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from zsvss import backbones

READING = Reading({"cell": 1.0, "around": 0.7, "colour": 0.5, "place": 1.2})
"""What the exported queries say, as chosen on generated validation videos and DAVIS (README.md)."""
TURNS = {"autoencoder": ("small", "sharp", "large", "sharp"), "unet": ("small", "small", "large")}
"""Sets of pictures in the order of their batches."""
WINDOWS = {"autoencoder": ((24, 32),), "unet": ((32, 56), (32, 40), (24, 40), (32, 32))}
"""Heights and widths of windows of large pictures, in latent cells."""


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default = Path(tempfile.gettempdir()) / "zsvss_embedded"
    parser.add_argument("--work", type=Path, default=default, help="pictures, latents, checkpoints, logs")
    parser.add_argument(
        "--output", type=Path, default=Path(backbones.__path__[0]) / "embedded", help="exported weights"
    )
    parser.add_argument("--teacher", type=Path, required=True, help="taef2_encoder.pth of madebyollin/taesd")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--videos", type=Path, help="folder with a folder of frames for each video")
    parser.add_argument("--wallpapers", type=Path, help="folder of large photographs")
    parser.add_argument("--scenes", type=int, default=450, help="generated training scenes")
    parser.add_argument("--small", type=int, default=5000, help="small pictures at most")
    parser.add_argument("--large", type=int, default=600, help="large pictures at most")
    parser.add_argument("--sharp", type=int, default=3500, help="sharp cuts at most")
    parser.add_argument("--encoder-steps", type=int, default=10000)
    parser.add_argument("--decoder-steps", type=int, default=3000)
    parser.add_argument("--unet-steps", type=int, default=3800)
    parser.add_argument("--encoder-batch", type=int, default=6, help="pictures a step; of large ones half as many")
    parser.add_argument("--decoder-batch", type=int, default=4, help="likewise")
    parser.add_argument("--unet-batch", type=int, default=8, help="likewise")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="export the newest checkpoints and stop")
    return parser.parse_args()


class _Stream(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches without end, ready-made."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __iter__(self) -> Any:
        return iter(self._examples)


def fit(name: str, module: _Training, examples: Examples, args: argparse.Namespace) -> torch.nn.Module:
    """Train for the module's steps, going on from the last checkpoint; returns the averaged network."""
    last = args.work / name / "last.ckpt"
    if not args.export_only:
        keeper = ModelCheckpoint(
            last.parent, filename="{step:06d}", every_n_train_steps=200, save_last=True, enable_version_counter=False
        )
        trainer = Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_steps=module.num_steps,
            max_epochs=-1,
            callbacks=[keeper],
            logger=CSVLogger(args.work, name=f"{name}_log", flush_logs_every_n_steps=25),
            log_every_n_steps=25,
            gradient_clip_val=1.0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(_Stream(examples), batch_size=None)
        trainer.fit(module, loader, ckpt_path=last if last.exists() else None, weights_only=False)
        trainer.save_checkpoint(last)
    module.load_state_dict(torch.load(last, weights_only=False, map_location="cpu")["state_dict"])
    return module.average.module.eval()


def sample_of(examples: Examples, count: int) -> tuple[Tensor, Tensor]:
    """Latents and colours of about `count` small pictures."""
    latents, colours = [], []
    for latents_Bchw, colours_B3hw, _ in examples:
        if not latents or latents_Bchw.shape[1:] == latents[0].shape[1:]:
            latents.append(latents_Bchw)
            colours.append(colours_B3hw)
        if sum(map(len, latents)) >= count:
            break
    return torch.cat(latents), torch.cat(colours)


def gather_all(args: argparse.Namespace) -> dict[str, NDArray[np.uint8]]:
    """All sets of pictures."""
    sources = Sources(args.photos, args.videos, args.wallpapers, args.scenes)
    rng = np.random.default_rng(args.seed)
    return {
        "small": gather(args.work / "small.npy", small_pictures(sources, rng), args.small, args.seed),
        "large": gather(args.work / "large.npy", large_pictures(sources, rng), args.large, args.seed),
        "sharp": gather(args.work / "sharp.npy", sharp_pictures(sources, rng), args.sharp, args.seed),
    }


def train_autoencoder(pictures: dict[str, NDArray[np.uint8]], args: argparse.Namespace) -> Any:
    """Stages A and B."""
    raw = {
        name: teacher_latents(args.work / f"{name}_teacher.npy", part, args.teacher) for name, part in pictures.items()
    }
    projection = fit_projection(raw["small"][:400], NUM_LATENTS)
    latents = {name: projected(part, projection) for name, part in raw.items()}
    turns, windows = TURNS["autoencoder"], WINDOWS["autoencoder"]
    examples = Examples(pictures, latents, turns, windows, args.encoder_batch, args.seed)
    autoencoder = fit("encoder", EncoderTraining(build_autoencoder(), args.encoder_steps), examples, args)
    examples = Examples(pictures, latents, turns, windows, args.decoder_batch, args.seed)
    return fit("decoder", DecoderTraining(autoencoder, args.decoder_steps), examples, args)


def main() -> None:
    """Run whatever part is not done yet."""
    args = parse()
    torch.set_num_threads(args.threads)
    seed_everything(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    pictures = gather_all(args)
    autoencoder = train_autoencoder(pictures, args)
    export_autoencoder(autoencoder, args.output)
    own = {name: own_latents(args.work / f"{name}_own.npy", pictures[name], autoencoder) for name in set(TURNS["unet"])}
    rows = {name: (lambda chosen, part=part: part[chosen]) for name, part in own.items()}
    examples = Examples(pictures, rows, TURNS["unet"], WINDOWS["unet"], args.unet_batch, args.seed + 1)
    latents_Bchw, colours_B3hw = sample_of(examples, 300)
    scales: dict[str, Scale] = fit_scales(latents_Bchw, colours_B3hw)
    denoiser: Any = fit("unet", DenoiserTraining(args.unet_steps, scales), examples, args)
    speak(denoiser, latents_Bchw, colours_B3hw, scales, READING)
    export_denoiser(denoiser, args.output)


if __name__ == "__main__":
    main()
