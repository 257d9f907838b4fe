"""Encoding and decoding tile by tile, which diffusers' autoencoders do."""

import pytest
import torch

from zsvss.backbones.auto import Auto
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion


@pytest.fixture(params=[(StableDiffusion3, 1), (CogVideoX, 9)], ids=["images", "video"], scope="module")
def pair(request, settings_of):
    """A backbone, the same with tiles, and the frames of a clip."""
    kind, num_frames = request.param
    whole, tiled = (kind.from_pretrained(**settings_of[kind], tiling=tiling) for tiling in (False, True))
    return whole, tiled, num_frames


def passed(backbone, height, width, num_frames):
    """Latents of images, and images of latents."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_frames, 3, height, width, generator=generator) * 2 - 1
    latents = backbone.encode(images, backbone.sample_noise(num_frames, height, width, generator))
    drawn = torch.randn(latents.shape, generator=generator)
    return latents, backbone.decode(drawn)


@torch.inference_mode()
def test_what_fits_a_tile_is_the_same_to_the_last_bit(pair):
    whole, tiled, num_frames = pair
    for expected, found in zip(*(passed(backbone, 32, 48, num_frames) for backbone in (whole, tiled)), strict=True):
        assert torch.equal(found, expected)


@torch.inference_mode()
def test_larger_images_are_computed_in_tiles_and_blended(pair, monkeypatch):
    """None of them is larger than a tile, and the image that comes of them is near the whole one."""
    whole, tiled, num_frames = pair
    seen = []
    plain = tiled.vae.decoder.forward
    monkeypatch.setattr(
        tiled.vae.decoder, "forward", lambda x, **more: seen.append(tuple(x.shape[-2:])) or plain(x, **more)
    )
    size = (96, 128)
    (_, expected), (latents, found) = (passed(backbone, *size, num_frames) for backbone in (whole, tiled))
    assert found.shape == expected.shape == (num_frames, 3, *size)
    assert latents.isfinite().all()
    assert len(seen) > 1
    cells = [side // tiled.latent_stride for side in size]
    assert all(height < cells[0] and width < cells[1] for height, width in seen)
    difference = (found - expected).abs()
    assert 0 < difference.mean() < expected.std() / 4


def test_auto_hands_tiles_on_where_there_are_any(settings_of):
    assert Auto(settings_of[StableDiffusion3]["weights"], tiling=True).tiling
    with pytest.raises(ValueError, match="which has no setting tiling"):
        Auto(settings_of[StableVideoDiffusion]["weights"], tiling=True)
