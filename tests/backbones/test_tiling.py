"""Encoding and decoding tile by tile, which diffusers' autoencoders do."""

import pytest
import torch

from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.wan import Wan


@pytest.fixture(
    params=[
        (StableDiffusion3, 1, (64, 64), (48, 48)),
        (CogVideoX, 9, (48, 80), (40, 64)),
        (Wan, 1, (256, 256), (192, 192)),
    ],
    ids=lambda param: param[0].__name__,
    scope="module",
)
def case(request, settings_of):
    """A backbone, the same with tiles, frames of a clip, size of a tile, and what of the first one is not blended."""
    kind, *more = request.param
    whole, tiled = (kind.from_pretrained(**settings_of[kind], tiling=tiling) for tiling in (False, True))
    return whole, tiled, *more


def passed(backbone, num_frames, height, width):
    """Latents of images, and images of latents."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_frames, 3, height, width, generator=generator) * 2 - 1
    latents = backbone.encode(images, backbone.sample_noise(num_frames, height, width, generator))
    drawn = torch.randn(latents.shape, generator=generator)
    return latents, backbone.decode(drawn)


@torch.inference_mode()
def test_what_fits_a_tile_is_the_same_to_the_last_bit(case):
    whole, tiled, num_frames, tile, _ = case
    for expected, found in zip(*(passed(backbone, num_frames, *tile) for backbone in (whole, tiled)), strict=True):
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_larger_images_are_decoded_in_tiles(case, monkeypatch):
    """The first tile, where none lies over it, is what its latents alone are decoded to."""
    whole, tiled, num_frames, tile, own = case
    cells = [side // tiled.latent_stride for side in tile]
    shape = num_frames, tiled.latent_channels, *(side * 3 // 2 for side in cells)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    seen = []
    plain = tiled.vae.decoder.forward
    monkeypatch.setattr(
        tiled.vae.decoder, "forward", lambda x, **more: seen.append(tuple(x.shape[-2:])) or plain(x, **more)
    )
    found = tiled.decode(latents)
    expected = whole.decode(latents[..., : cells[0], : cells[1]].contiguous())
    torch.testing.assert_close(found[..., : own[0], : own[1]], expected[..., : own[0], : own[1]])
    assert found.shape == (num_frames, 3, *(side * tiled.latent_stride for side in shape[2:]))
    assert all(height <= cells[0] and width <= cells[1] for height, width in seen)
    assert not torch.equal(found, whole.decode(latents))
    images = torch.zeros(num_frames, *found.shape[1:])
    noise = tiled.sample_noise(num_frames, *found.shape[2:], torch.Generator().manual_seed(1))
    assert tiled.encode(images, noise).shape == shape
