"""Channels last in the autoencoder on a device, and in bfloat16 on a CPU: the same images and latents."""

import pytest
import torch
from pretend_device import DEVICE, running
from stalls import segment_on_cpu, segment_on_device
from toy_backbone import striped_video

from zsvss.backbones.memory_format import image_format, lay_out
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.bench.published import put_back_plain_layers
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def watched_convolutions(network):
    """Whether the weights and the results of its convolutions have channels last, filled as it runs."""
    found = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(
                lambda module, _, output: found.append((is_channels_last(module.weight), is_channels_last(output)))
            )
    return found


@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion])
@torch.inference_mode()
def test_the_autoencoder_of_a_device_has_channels_last(kind, settings_of):
    generator = torch.Generator().manual_seed(0)
    backbone = kind.from_pretrained(**settings_of[kind])
    images = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, generator)
    found = watched_convolutions(backbone.vae)
    latents = backbone.encode(images, noise)
    decoded = backbone.decode(latents)
    assert not any(weight for weight, _ in found)  # results of attention have channels last on a CPU too
    found.clear()
    with running() as device:
        device.lays_out = True
        backbone.to(DEVICE)
        latents_there = backbone.encode(images.to(DEVICE), noise)
        decoded_there = backbone.decode(latents.to(DEVICE))
        assert set(found) == {(True, True)}
        assert latents_there.is_contiguous(), "the U-Net gets what it has always got"
        assert decoded_there.is_contiguous()
        torch.testing.assert_close(latents_there.cpu(), latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoded_there.cpu(), decoded, rtol=1e-4, atol=1e-5)
    backbone.to("cpu")
    assert torch.equal(backbone.encode(images, noise), latents)


def test_labels_are_those_of_a_cpu(tiny_weights, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "_shared_maps", lambda *_: None)
    clips = [striped_video(num_frames=2, height=64, width=64)[0]]

    def make():
        backbone = StableDiffusion.from_pretrained(str(tiny_weights), first_step=24)
        for network in (backbone.unet, backbone.vae):
            put_back_plain_layers(network)
        return VideoSegmenter(backbone, KNNSceneContext(3, num_restarts=2), None, MaskedModulation())

    expected = segment_on_cpu(make, clips)
    with running() as device:
        device.lays_out = True
        found = segment_on_device(make, clips).labels
    assert torch.equal(found[0], expected[0])
    assert len(expected[0].unique()) == 3


def test_a_distilled_decoder_is_laid_out_too(tiny_weights):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights))
    backbone.tiny_decoder = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3))
    with running():
        backbone.to(DEVICE)
        assert is_channels_last(backbone.tiny_decoder[0].weight)


def test_weights_over_time_are_left_alone():
    network = torch.nn.ModuleList([torch.nn.Conv2d(2, 3, 3), torch.nn.Conv3d(2, 3, 3)])
    lay_out(network, torch.channels_last)
    assert is_channels_last(network[0].weight)
    assert network[1].weight.is_contiguous()


@pytest.mark.parametrize(
    ("kind", "dtype", "is_last"),
    [
        ("cpu", torch.float32, False),
        ("cpu", torch.bfloat16, True),
        ("mps", torch.bfloat16, False),
        ("cuda", torch.float32, True),
        ("xpu", torch.float16, True),
    ],
)
def test_which_devices_have_it(kind, dtype, is_last):
    assert (image_format(torch.device(kind), dtype) == torch.channels_last) == is_last


@torch.inference_mode()
def test_the_autoencoder_has_channels_last_in_bfloat16_on_a_cpu(tiny_weights):
    generator = torch.Generator().manual_seed(0)
    backbone = StableDiffusion.from_pretrained(str(tiny_weights))
    images = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, generator)
    latents = backbone.encode(images, noise)
    decoded = backbone.decode(latents)
    backbone.bfloat16()
    found = watched_convolutions(backbone.vae)
    latents_halved = backbone.encode(images, noise)
    decoded_halved = backbone.decode(latents)
    assert set(found) == {(True, True)}
    assert latents_halved.is_contiguous()
    assert decoded_halved.is_contiguous()
    for halved, exact in ((latents_halved, latents), (decoded_halved, decoded)):
        assert halved.dtype == torch.float32
        assert 0 < (halved - exact).std() < 0.05 * exact.std()  # some dozens of roundings to 2**-9
    found.clear()
    backbone.float().decode(latents)
    assert not any(weight for weight, _ in found)
