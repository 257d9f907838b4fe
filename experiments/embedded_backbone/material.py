"""Training material of the embedded backbone: rendered frames, then their latents, as memory-mapped arrays.

Shape suffixes: N frames of the whole set, H W pixels, c latent channels, h w latent cells, B batch.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from zsvss.data.scenes import TRAIN_SEEDS, Scene

HEIGHT, WIDTH = 128, 224
FRAMES_A_SCENE = 4


def _render_scene(number: int) -> NDArray[np.uint8]:
    """Four frames far apart of training scene `number`; every other scene is hard, every other pair is mirrored."""
    cv2.setNumThreads(1)
    scene = Scene(TRAIN_SEEDS[number], height=HEIGHT, width=WIDTH, hard=number % 2 == 1)
    picks = np.random.default_rng([number, 11]).permutation(42)[:FRAMES_A_SCENE]
    images = np.stack([scene.render(int(index))[0] for index in picks])
    return images[:, :, ::-1] if number // 2 % 2 else images


def render_frames(path: Path, num_scenes: int, processes: int) -> NDArray[np.uint8]:
    """Render the training frames into `path` unless they are there already, `NHW3`."""
    if not path.exists():
        shape = (num_scenes * FRAMES_A_SCENE, HEIGHT, WIDTH, 3)
        partial = path.with_suffix(".partial")
        frames = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        with ProcessPoolExecutor(processes) as pool:
            for number, images in enumerate(pool.map(_render_scene, range(num_scenes), chunksize=32)):
                frames[number * FRAMES_A_SCENE : (number + 1) * FRAMES_A_SCENE] = images
        frames.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


class Crops(Dataset[Tensor]):
    """Random crops of the frames, float `3HW` in -1..1."""

    def __init__(self, frames_NHW3: NDArray[np.uint8], size: tuple[int, int], seed: int) -> None:
        self._frames, self._size, self._seed = frames_NHW3, size, seed

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Tensor:
        height, width = self._size
        rng = np.random.default_rng([self._seed, index])
        y, x = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
        crop = np.ascontiguousarray(self._frames[index, y : y + height, x : x + width])
        return torch.from_numpy(crop).permute(2, 0, 1).float() / 127.5 - 1


class Latents(Dataset[tuple[Tensor, Tensor]]):
    """Means and standard deviations of the frames' latents, `chw` each."""

    def __init__(self, moments_N2chw: NDArray[np.float16]) -> None:
        self._moments = moments_N2chw

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        mean_chw, deviation_chw = torch.from_numpy(self._moments[index].astype(np.float32))
        return mean_chw, deviation_chw


def images_to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 `BHW3` to float `B3HW` in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def encode_frames(path: Path, frames_NHW3: NDArray[Any], autoencoder: AutoencoderKL) -> NDArray[np.float16]:
    """Encode all frames into `path` unless they are there already, `N2chw` (mean and standard deviation)."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        factor = 2 ** (len(autoencoder.config.block_out_channels) - 1)
        shape = (len(frames_NHW3), 2, autoencoder.config.latent_channels, HEIGHT // factor, WIDTH // factor)
        moments = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        for start in range(0, len(frames_NHW3), 16):
            images_B3HW = images_to_tensor(frames_NHW3[start : start + 16])
            with torch.autocast("cpu", torch.bfloat16):
                posterior = autoencoder.encode(images_B3HW).latent_dist
            pair = torch.stack([posterior.mean.float(), posterior.std.float()], 1)
            moments[start : start + 16] = pair.numpy() * autoencoder.config.scaling_factor
        moments.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")
