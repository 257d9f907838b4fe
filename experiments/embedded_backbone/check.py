"""Do the features group by class? `python experiments/embedded_backbone/check.py [folder of weights ...]`.

On validation scenes, K-means (K = 20) over the tokens of a clip, every cluster named by the majority class of its
tokens, and the mean IoU on the token grid over all scenes. Rows: colour and position on the same grid, the
autoencoder's bare latents, an untrained U-Net of the same architecture, and each network given. Features alone,
with one shared noise level and no scene context; the whole method is measured elsewhere.

Shape suffixes: T frames, H W pixels, n tokens a frame, c channels, h w token grid.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from material import images_to_tensor
from networks import CONTEXT_TOKENS, CONTEXT_WIDTH, build_scheduler, build_unet
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from zsvss import backbones
from zsvss.backbones.input_size import resize_frames
from zsvss.data.scenes import CLASSES, VALIDATION_SEEDS, Scene
from zsvss.stages.nearest_resizing import to_grid

NUM_CLUSTERS, NUM_FRAMES, TIMESTEP = 20, 14, 39
SIZE, GRID = (256, 448), (16, 28)  # of the frames that a network sees, and of its tokens
Describe = Callable[[NDArray[np.uint8]], Tensor]


def load_denoiser(folder: Path) -> tuple[UNet2DConditionModel, Tensor]:
    """U-Net and null context from an exported folder."""
    context_1kd = load_file(folder / "context.safetensors")["cond"].float()
    return UNet2DConditionModel.from_pretrained(folder / "unet").float(), context_1kd


def untrained() -> tuple[UNet2DConditionModel, Tensor]:
    """The same architecture with random weights."""
    torch.manual_seed(0)
    return build_unet(), torch.zeros(1, CONTEXT_TOKENS, CONTEXT_WIDTH)


def describe_by(unet: UNet2DConditionModel, context_1kd: Tensor, autoencoder: AutoencoderKL) -> Describe:
    """Features of the method: self-attention queries of output blocks 6..8 at the last timestep."""
    unet.eval()
    recorded: list[Tensor] = []
    for attention in unet.up_blocks[2].attentions:
        query = attention.transformer_blocks[0].attn1.to_q
        query.register_forward_hook(lambda module, inputs, output: recorded.append(output.float()))
    scheduler = build_scheduler()

    @torch.inference_mode()
    def describe(frames_THW3: NDArray[np.uint8]) -> Tensor:
        recorded.clear()
        generator = torch.Generator().manual_seed(0)
        latents = (
            autoencoder.encode(images_to_tensor(frames_THW3)).latent_dist.mode() * autoencoder.config.scaling_factor
        )
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.full((len(latents),), TIMESTEP)
        unet(scheduler.add_noise(latents, noise, timesteps), timesteps, context_1kd.expand(len(latents), -1, -1))
        features_Tnc = torch.stack(recorded).mean(0)
        return features_Tnc / features_Tnc.abs().amax(-1, keepdim=True)

    return describe


def describe_latents(autoencoder: AutoencoderKL) -> Describe:
    """The autoencoder's latents, pooled to the token grid."""

    @torch.inference_mode()
    def describe(frames_THW3: NDArray[np.uint8]) -> Tensor:
        latents_Tchw = autoencoder.encode(images_to_tensor(frames_THW3)).latent_dist.mode()
        return functional.avg_pool2d(latents_Tchw, 2).flatten(2).transpose(1, 2)

    return describe


def describe_colour(frames_THW3: NDArray[np.uint8]) -> Tensor:
    """Colour and position of every cell of the token grid, each 0..1."""
    colour_T3hw = functional.adaptive_avg_pool2d(images_to_tensor(frames_THW3), GRID)
    colour_Thw3 = colour_T3hw.permute(0, 2, 3, 1) / 2 + 0.5
    y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in GRID), indexing="ij")
    place_Thw2 = torch.stack([y, x], -1).expand(len(frames_THW3), -1, -1, -1)
    return torch.cat([colour_Thw3, place_Thw2], -1).flatten(1, 2)


def confusion_of(describe: Describe, seed: int, hard: bool) -> NDArray[np.int64]:
    """Confusion matrix of one scene, rows the truth, after majority naming."""
    scene = Scene(seed, hard=hard)
    rendered = [scene.render(index) for index in range(0, 3 * NUM_FRAMES, 3)]
    images_THW3 = torch.from_numpy(np.stack([image for image, _ in rendered]))
    features_Tnc = describe(resize_frames(images_THW3, SIZE).numpy())
    truth = np.stack([to_grid(torch.from_numpy(labels), GRID).numpy() for _, labels in rendered]).ravel()
    tokens = np.ascontiguousarray(features_Tnc.flatten(0, 1).numpy(), np.float32)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    _, clusters, _ = cv2.kmeans(tokens, NUM_CLUSTERS, None, criteria, 3, cv2.KMEANS_PP_CENTERS)
    counts = np.zeros((NUM_CLUSTERS, len(CLASSES)), np.int64)
    np.add.at(counts, (clusters.ravel(), truth), 1)
    named = counts.argmax(1)[clusters.ravel()]
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(confusion, (truth, named), 1)
    return confusion


def intersection_over_union(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of every class."""
    hit = np.diag(confusion)
    return hit / np.maximum(confusion.sum(0) + confusion.sum(1) - hit, 1)


def main() -> None:
    """Print the table and write it beside this file when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path, help="exported folders (default: the committed one)")
    parser.add_argument("--autoencoder", type=Path, help="its folder; default: that of the committed backbone")
    parser.add_argument("--scenes", type=int, default=12, help="scenes of each kind, normal and hard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="also write the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    embedded = Path(backbones.__path__[0]) / "embedded"
    paths = args.networks or [embedded]
    autoencoder = AutoencoderKL.from_pretrained(args.autoencoder or embedded / "vae").float().eval()
    rows = {"colour and position": describe_colour, "bare latents": describe_latents(autoencoder)}
    rows["untrained"] = describe_by(*untrained(), autoencoder)
    rows |= {str(path): describe_by(*load_denoiser(path), autoencoder) for path in paths}
    table: dict[str, dict[str, float]] = {}
    for name, describe in rows.items():
        table[name] = {}
        for kind in ("normal", "hard"):
            total = sum(
                confusion_of(describe, VALIDATION_SEEDS[number], kind == "hard") for number in range(args.scenes)
            )
            ious = intersection_over_union(np.asarray(total))
            table[name][kind] = float(ious.mean())
            table[name] |= {f"{kind} {label}": float(iou) for label, iou in zip(CLASSES, ious, strict=True)}
        short = name if len(name) < 40 else "..." + name[-36:]
        print(f"{short:40s} normal {table[name]['normal']:.3f}  hard {table[name]['hard']:.3f}", flush=True)
    if args.output:
        args.output.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
