"""The embedded backbone's video sibling: what its image network becomes, and what its weights must hold."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

PATH = Path(__file__).parents[1] / "experiments" / "embedded_backbone" / "embedded_video.py"
spec = importlib.util.spec_from_file_location("embedded_video", PATH)
embedded_video = importlib.util.module_from_spec(spec)
spec.loader.exec_module(embedded_video)
ADDED_WEIGHTS, EmbeddedVideo, inflated = (
    embedded_video.ADDED_WEIGHTS,
    embedded_video.EmbeddedVideo,
    embedded_video.inflated,
)


@pytest.fixture(scope="module")
def embedded_video_settings(tiny_weights, tmp_path_factory):
    """An image model whose channels suit a video network, and what a video adds to it, random as after training."""
    image, added = tmp_path_factory.mktemp("video") / "image", tmp_path_factory.mktemp("video")
    shutil.copytree(tiny_weights, image)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {
            **UNet2DConditionModel.load_config(image / "unet"),
            "block_out_channels": (32,) * 4,
            "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        }
        unet = UNet2DConditionModel.from_config(config)
        unet.conv_out.weight.data *= 10  # so that a modulation shows, as it does in a trained network
        unet.save_pretrained(image / "unet")
        tensors = embedded_video.added_tensors(inflated(unet))
        save_file({name: t + 0.1 * torch.randn_like(t) for name, t in tensors.items()}, added / ADDED_WEIGHTS)
    return {"weights": str(added), "image_weights": str(image)}


@torch.inference_mode()
def test_before_training_it_is_the_image_network_frame_by_frame(embedded_video_settings):
    image = UNet2DConditionModel.from_pretrained(f"{embedded_video_settings['image_weights']}/unet")
    video = inflated(image)
    generator = torch.Generator().manual_seed(0)
    frames_T = torch.randn(3, 4, 8, 16, generator=generator)
    conditioning = torch.randn(3, 4, 8, 16, generator=generator)
    context = torch.randn(1, 4, 8, generator=generator)
    inputs = torch.cat([frames_T, conditioning], 1)[None]
    ours = video(inputs, 39, context, torch.tensor([[14.0, 127.0, 0.02]])).sample[0]
    expected = image(frames_T, 39, context.expand(3, -1, -1)).sample
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)  # sums in another order


def test_the_added_weights_make_frames_see_each_other(embedded_video_settings):
    backbone = EmbeddedVideo.from_pretrained(**embedded_video_settings)
    inputs = torch.zeros(1, 2, 8, 8, 8)
    other = inputs.clone()
    other[0, 1] = 1
    vector, context = torch.tensor([backbone.vector_c]), backbone.context_1mc
    with torch.inference_mode():
        first, second = (backbone.unet(x, 0.0, context, vector).sample[0, 0] for x in (inputs, other))
    assert (first - second).abs().max() > 1e-4


def test_missing_weights_say_how_to_train_them(embedded_video_settings, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no temporal\.safetensors; train it by .*train_video\.py"):
        EmbeddedVideo(**{**embedded_video_settings, "weights": str(tmp_path)}).check()


def test_weights_of_another_image_network_are_refused(embedded_video_settings, tmp_path):
    added = load_file(f"{embedded_video_settings['weights']}/{ADDED_WEIGHTS}")
    added.pop("time_embedding.linear_1.weight")
    save_file(added, tmp_path / ADDED_WEIGHTS)
    backbone = EmbeddedVideo(**{**embedded_video_settings, "weights": str(tmp_path)})
    with pytest.raises(ValueError, match=r"does not belong to .*'time_embedding\.linear_1\.weight'"):
        backbone.load()


def test_the_fingerprint_follows_both_files(embedded_video_settings, tmp_path):
    added = load_file(f"{embedded_video_settings['weights']}/{ADDED_WEIGHTS}")
    added["conv_in.bias"] = added["conv_in.bias"] + 1
    save_file(added, tmp_path / ADDED_WEIGHTS)
    before = EmbeddedVideo(**embedded_video_settings).fingerprint()
    assert EmbeddedVideo(**{**embedded_video_settings, "weights": str(tmp_path)}).fingerprint() != before
    other_image = EmbeddedVideo(embedded_video_settings["weights"])
    assert other_image.fingerprint() != before


def test_results_name_both_weights():
    assert EmbeddedVideo("runs/video", image_weights="image").weights_names == ("runs/video", "image")
