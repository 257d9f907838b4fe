"""Tiny random networks of every layout that a backbone can load: a megabyte, milliseconds a pass."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion


@pytest.fixture(scope="session")
def tiny_video_weights(tmp_path_factory):
    """Stable Video Diffusion's layout with a fixed token in place of an image encoder."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

    folder = tmp_path_factory.mktemp("tiny_video_weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32, 64, 64),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            cross_attention_dim=8,
            num_attention_heads=(2, 2, 2, 2),
        )
        # Different from layer to layer, as in trained networks, so that a mix-up of the branches shows.
        for name, parameter in unet.named_parameters():
            if name.endswith("mix_factor"):
                torch.nn.init.normal_(parameter)
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4
        )
        save_file({"cond": torch.randn(1, 1, 8)}, folder / "context.safetensors")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def settings_of(tiny_weights, tiny_video_weights):
    """Class of a backbone -> settings that give it tiny weights: a new kind of backbone adds its own here."""
    return {
        StableDiffusion: {"weights": str(tiny_weights)},
        StableVideoDiffusion: {"weights": str(tiny_video_weights)},
    }


@pytest.fixture
def editable_weights(tiny_weights, tmp_path):
    """A copy of the tiny image weights that a test may damage."""
    return shutil.copytree(tiny_weights, tmp_path / "weights")


@pytest.fixture
def edit_config(editable_weights):
    """Change entries of one of the copy's JSON files."""

    def edit(name, **entries):
        path = editable_weights / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return edit
