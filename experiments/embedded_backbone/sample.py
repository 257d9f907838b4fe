"""Pictures drawn from pure noise, and reconstructions: `python experiments/embedded_backbone/sample.py`.

Writes `samples.png`: a row of samples of the shipped backbone, below it validation scenes, and below those what the
autoencoder gives back of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zsvss.backbones.embedded import Embedded
from zsvss.backbones.input_size import resize_frames
from zsvss.data.scenes import VALIDATION_SEEDS, Scene

SIZE = (256, 448)


def drawn(backbone: Embedded, count: int, seed: int) -> Tensor:
    """Images [B, 3, H, W] in -1..1 from noise, by the backbone's whole schedule."""
    generator = torch.Generator().manual_seed(seed)
    noise = backbone.sample_noise(count, *SIZE, generator)
    x_Bchw = noise.diffusion_Tchw * backbone.sigmas[0]
    recording = backbone.record(x_Bchw, backbone.condition(x_Bchw, noise), [])
    return backbone.decode(recording.latents[backbone.steps[-1]])


def strip(images_B3HW: Tensor) -> NDArray[np.uint8]:
    """Images side by side, BGR."""
    levels = ((images_B3HW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(np.hstack(list(levels))[..., ::-1])


@torch.inference_mode()
def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "samples.png")
    args = parser.parse_args()
    backbone = Embedded(num_steps=args.steps, first_step=0, guidance=1)
    backbone.load()
    pictures = torch.from_numpy(np.stack([Scene(seed).render(0)[0] for seed in VALIDATION_SEEDS[: args.count]]))
    images_B3HW = resize_frames(pictures, SIZE).permute(0, 3, 1, 2) / 127.5 - 1
    latents_Bchw = backbone.posterior(images_B3HW).mean
    rows = [drawn(backbone, args.count, args.seed), images_B3HW, backbone.decode(latents_Bchw)]
    picture = np.vstack([strip(row) for row in rows])
    small = (picture.shape[1] // 4, picture.shape[0] // 4)
    cv2.imwrite(str(args.output), cv2.resize(picture, small, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
