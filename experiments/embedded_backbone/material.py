"""Training material of the embedded backbone: pictures, the teacher's latents of them, and their own latents.

Everything lies as memory-mapped arrays in the work folder and is made once.

Shape suffixes: N pictures of a set, H W pixels, B batch, t teacher channels, c channels of latents, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from teacher import STRIDE, TEACHER_CHANNELS, Projection, load_teacher
from torch import Tensor

from zsvss.data.scenes import TRAIN_SEEDS, Scene

SIZES = {"small": (192, 256), "large": (256, 448), "sharp": (192, 256)}
"""Height and width of the pictures of each set; the networks see them whole, or windows of them."""
SCENE_SIZE = (128, 224)
SHARPEST = 6.0
"""Scale, relative to the size that covers, at which a sharp cut of a wallpaper shows the least of it."""
Picture = NDArray[np.uint8]


class Sources(NamedTuple):
    """Where the pictures come from.

    Attributes:
        photos: folder of photographs, searched to any depth; ``None`` leaves them out.
        videos: folder with a folder of numbered frames for each video; ``None`` leaves them out.
        wallpapers: folder of large photographs, cut at several scales; ``None`` leaves them out.
        num_scenes: generated scenes of the training seeds, every other one hard.
    """

    photos: Path | None
    videos: Path | None
    wallpapers: Path | None
    num_scenes: int


def cover(image: Image.Image, size: tuple[int, int], rng: np.random.Generator, scale: float = 1.0) -> Picture:
    """Shrink or enlarge until `size` times `scale` is covered; cut `size` out at random, mirrored half of the time."""
    height, width = size
    factor = scale * max(height / image.height, width / image.width)
    new = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    pixels = np.asarray(image.convert("RGB").resize(new, Image.Resampling.BICUBIC, reducing_gap=3.0))
    y, x = (int(rng.integers(0, have - want + 1)) for have, want in zip(pixels.shape, size, strict=False))
    cut = pixels[y : y + height, x : x + width]
    return np.ascontiguousarray(cut[:, ::-1] if rng.random() < 0.5 else cut)


def _images(folder: Path | None) -> Iterator[Image.Image]:
    """All JPEG, PNG and WebP files below a folder, by name."""
    paths = sorted(folder.rglob("*")) if folder else []
    for path in paths:
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            with Image.open(path) as image:
                yield image


def small_pictures(sources: Sources, rng: np.random.Generator) -> Iterator[Picture]:
    """Photographs, every other frame of the videos near and far, cuts of the wallpapers, every other scene."""
    size = SIZES["small"]
    yield from (cover(image, size, rng) for image in _images(sources.photos))
    for number, image in enumerate(_images(sources.videos)):
        if number % 2 == 0:
            yield from (cover(image, size, rng, scale) for scale in (1.0, 1.6))
    for image in _images(sources.wallpapers):
        if min(image.size) >= 600:
            yield from (cover(image, size, rng, 2 ** rng.uniform(0, 1.9)) for _ in range(8))
    for number in range(0, sources.num_scenes, 2):
        yield cover(_scene_frame(number, 0), size, rng)


def large_pictures(sources: Sources, rng: np.random.Generator) -> Iterator[Picture]:
    """Whole frames of the videos and wallpapers, and two frames of every scene."""
    size = SIZES["large"]
    for number, image in enumerate(_images(sources.videos)):
        if number % 2 == 0:
            yield cover(image, size, rng)
    yield from (cover(image, size, rng) for image in _images(sources.wallpapers) if min(image.size) >= 600)
    for number in range(sources.num_scenes):
        yield from (cover(_scene_frame(number, delay), size, rng) for delay in (0, 5))


def sharp_pictures(sources: Sources, rng: np.random.Generator) -> Iterator[Picture]:
    """Cuts at up to the pictures' own sharpness: three of every frame of the videos, 40 of every wallpaper.

    The photographs are smaller than the pictures of a set; enlarged, they are less sharp than the frames of a camera.
    """
    size = SIZES["sharp"]
    for image in _images(sources.videos):
        yield from (cover(image, size, rng, rng.uniform(1.2, 2.4)) for _ in range(3))
    for image in _images(sources.wallpapers):
        if min(image.size) >= 600:
            own = min(SHARPEST, image.height / size[0], image.width / size[1])
            yield from (cover(image, size, rng, own ** rng.uniform(0, 1)) for _ in range(40))


def _scene_frame(number: int, delay: int) -> Image.Image:
    """A frame of training scene `number`, at the size of the generated videos of the benchmarks."""
    height, width = SCENE_SIZE
    scene = Scene(TRAIN_SEEDS[number], height=height, width=width, hard=number % 2 == 1)
    start = int(np.random.default_rng([number, 11]).integers(0, 36))
    return Image.fromarray(scene.render(start + delay)[0])


def gather(path: Path, pictures: Iterator[Picture], limit: int, seed: int) -> NDArray[np.uint8]:
    """Write at most `limit` pictures, in a random order, into `path` unless it is there; returns them, `NHW3`."""
    if not path.exists():
        chosen = list(pictures)
        order = np.random.default_rng(seed).permutation(len(chosen))[:limit]
        _write(path, np.stack([chosen[index] for index in order]))
    return np.load(path, mmap_mode="r")


def _write(path: Path, array: NDArray[np.generic]) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.rename(path)


@torch.inference_mode()
def teacher_latents(path: Path, pictures_NHW3: NDArray[np.uint8], weights: Path) -> NDArray[np.float16]:
    """The teacher's latents of all pictures, `Nthw`, made into `path` unless they are there; in bfloat16."""
    if not path.exists():
        teacher = load_teacher(weights).bfloat16().to(memory_format=torch.channels_last)
        count, height, width, _ = pictures_NHW3.shape
        latents = np.empty((count, TEACHER_CHANNELS, height // STRIDE, width // STRIDE), np.float16)
        for index in range(count):
            images_13HW = images_to_tensor(pictures_NHW3[index : index + 1]).bfloat16() / 2 + 0.5
            latents[index] = teacher(images_13HW.contiguous(memory_format=torch.channels_last))[0].float().numpy()
        _write(path, latents)
    return np.load(path, mmap_mode="r")


@torch.inference_mode()
def own_latents(path: Path, pictures_NHW3: NDArray[np.uint8], autoencoder: AutoencoderKL) -> NDArray[np.float16]:
    """Mean latents of the embedded autoencoder, `Nchw`, made into `path` unless they are there."""
    if not path.exists():
        batches = np.array_split(np.arange(len(pictures_NHW3)), max(1, len(pictures_NHW3) // 8))
        parts = [
            autoencoder.encode(images_to_tensor(pictures_NHW3[batch])).latent_dist.mean.half().numpy()
            for batch in batches
        ]
        _write(path, np.concatenate(parts))
    return np.load(path, mmap_mode="r")


def images_to_tensor(images_BHW3: NDArray[np.uint8]) -> Tensor:
    """uint8 `BHW3` to float `B3HW` in -1..1."""
    return torch.from_numpy(np.array(images_BHW3)).permute(0, 3, 1, 2).float() / 127.5 - 1


def cell_colours(picture_HW3: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Mean CIELAB colour of each cell, `3hw`, divided by 100."""
    cells = cv2.resize(np.ascontiguousarray(picture_HW3), grid[::-1], interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(cells.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).transpose(2, 0, 1) / 100


class Examples:
    """Batches of pictures with their latents, drawn at random without end; one set and one window a batch.

    The sets take turns. Small and sharp pictures are whole, of large ones there are half as many windows. The window
    is what the network sees, so places are counted within it.

    Args:
        pictures: of each set, `NHW3`.
        latents: of each set; gives `Bchw` for row numbers.
        turns: names of the sets, in the order of their batches, over and over.
        windows: heights and widths of the windows of large pictures, in latent cells, multiples of eight.
        batch: small or sharp pictures a batch.
        seed: of the draw.
    """

    def __init__(
        self,
        pictures: dict[str, NDArray[np.uint8]],
        latents: dict[str, Callable[[NDArray[np.int64]], NDArray[np.floating]]],
        turns: tuple[str, ...],
        windows: tuple[tuple[int, int], ...],
        batch: int,
        seed: int,
    ) -> None:
        self._pictures, self._latents, self._turns, self._windows = pictures, latents, turns, windows
        self._batch, self._seed = batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield latents `Bchw`, colours of the token cells `B3hw`, and the pictures `B3HW`."""
        rng, step = np.random.default_rng(self._seed), 0
        while True:
            name = self._turns[step % len(self._turns)]
            count = self._batch // 2 if name == "large" else self._batch
            rows = np.sort(rng.choice(len(self._pictures[name]), count, replace=False))
            pictures_BHW3 = np.array(self._pictures[name][rows])
            latents_Bchw = np.asarray(self._latents[name](rows), np.float32)
            if name == "large":
                pictures_BHW3, latents_Bchw = window(pictures_BHW3, latents_Bchw, self._windows, rng)
            grid = (latents_Bchw.shape[2] // 2, latents_Bchw.shape[3] // 2)
            colours_B3hw = np.stack([cell_colours(picture, grid) for picture in pictures_BHW3])
            yield torch.from_numpy(latents_Bchw), torch.from_numpy(colours_B3hw), images_to_tensor(pictures_BHW3)
            step += 1


def window(
    pictures_BHW3: NDArray[np.uint8],
    latents_Bchw: NDArray[np.float32],
    sizes: tuple[tuple[int, int], ...],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut one window, of one of `sizes` in latent cells, out of pictures and latents alike."""
    height, width = sizes[rng.integers(len(sizes))]
    y, x = (
        2 * int(rng.integers(0, (have - want) // 2 + 1))
        for have, want in zip(latents_Bchw.shape[2:], (height, width), strict=True)
    )
    pixels = pictures_BHW3[:, STRIDE * y : STRIDE * (y + height), STRIDE * x : STRIDE * (x + width)]
    return pixels, np.ascontiguousarray(latents_Bchw[:, :, y : y + height, x : x + width])


def projected(
    latents_Nthw: NDArray[np.float16], projection: Projection
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """The teacher's latents of row numbers, as targets."""
    return lambda rows: projection(latents_Nthw[rows])
