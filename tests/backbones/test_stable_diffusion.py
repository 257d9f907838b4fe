"""Stable Diffusion's latents, prompt and older layout, against diffusers' own."""

import gc
from functools import partialmethod

import pytest
import torch
from diffusers import AutoencoderKL

from zsvss.backbones import unet
from zsvss.backbones.attention import edited_attention
from zsvss.backbones.base import FeatureKey
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion


@torch.inference_mode()
def test_latents_are_sampled_from_the_posterior(tiny_weights):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights))
    vae = AutoencoderKL.from_pretrained(tiny_weights, subfolder="vae", low_cpu_mem_usage=False)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    posterior = vae.encode(images).latent_dist
    expected = (posterior.mean + posterior.std * noise.posterior_Tchw) * vae.config.scaling_factor
    # The layout in memory must not matter: torch's CPU group norm loses four digits on channels-last input.
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = backbone.encode(images.contiguous(memory_format=layout), noise)
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    noised = backbone.add_noise(ours, noise)
    torch.testing.assert_close(noised, ours + backbone.sigmas[22] * noise.diffusion_Tchw)


@pytest.mark.parametrize(("settings", "maps"), [({}, 4), ({"max_batch": 1}, None), ({"reuse_recorded": False}, None)])
@torch.inference_mode()
def test_labels_and_signs_of_a_frame_share_its_attention_maps(tiny_weights, monkeypatch, settings, maps):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), first_step=24, **settings)
    noised_Tchw = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    recording = backbone.record(noised_Tchw, backbone.condition(noised_Tchw, None), [])
    injected = []

    def watched(network, edits):
        injected.extend(edit for path, edit in edits.items() if path.endswith("attn1"))
        return edited_attention(network, edits)

    monkeypatch.setattr(unet, "edited_attention", watched)
    frames_B = torch.tensor([1, 0, 0, 1, 0])
    backbone.denoise(noised_Tchw[frames_B], 24, recording, frames_B)
    assert injected
    for edit in injected:
        if maps is None:
            assert edit.shared_map_B is None
        else:
            # Of two frames in both halves of the guidance.
            assert len(edit.replace["query"]) == len(edit.replace["key"]) == maps
            assert edit.shared_map_B.tolist() == [1, 0, 0, 1, 0, 3, 2, 2, 3, 2]


@torch.inference_mode()
def test_a_feature_pass_goes_on_where_memory_ran_out(tiny_weights, monkeypatch):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), max_batch=4)
    noised_Tchw = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning, keys = backbone.condition(noised_Tchw, None), [FeatureKey(24, 7)]
    expected = backbone.record(noised_Tchw, conditioning, keys)
    run, tried = backbone.unet.forward, []

    def run_short(sample, **inputs):
        tried.append(len(sample))
        if len(tried) > 1 and len(sample) > 1:  # after the first pass others take the device's memory
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(sample, **inputs)

    monkeypatch.setattr(backbone.unet, "forward", run_short)
    short = backbone.record(noised_Tchw, conditioning, keys)
    assert tried == [4, 2, 1, 1, *[1] * 6 * 2]  # six samples a step, three steps; the four that are done are kept
    assert backbone.samples.size == 1
    torch.testing.assert_close(short.latents[24], expected.latents[24], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(short.tensors[keys[0]], expected.tensors[keys[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "autocast"), [(torch.bfloat16, False), (torch.float32, True)])
def test_half_precision_shares_no_map(tiny_weights, dtype, autocast):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights)).to(dtype)
    samples = unet.Samples(torch.arange(4), torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64))
    with torch.autocast("cpu", enabled=autocast):
        assert backbone._shared_maps(samples) is None
    assert StableDiffusion.from_pretrained(str(tiny_weights))._shared_maps(samples) is not None


@pytest.mark.parametrize(("height", "sizes"), [(32, [2, 2, 1]), (72, [1] * 5), (2, [5])])
@torch.inference_mode()
def test_a_pass_of_the_autoencoder_is_bounded_on_a_cpu(tiny_weights, monkeypatch, height, sizes):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights))
    passes = []
    monkeypatch.setattr(backbone, "decode_images", lambda latents: passes.append(len(latents)) or latents)
    backbone.decode(torch.zeros(5, 4, height, 56))
    assert passes == sizes  # of images 448 pixels wide and 256, 576 or 16 high


def test_the_empty_prompt_is_embedded_and_its_encoder_freed(weights_with_prompt):
    from transformers import CLIPTextModel

    folder, embedding = weights_with_prompt
    gc.collect()
    before = sum(type(thing) is CLIPTextModel for thing in gc.get_objects())
    backbone = StableDiffusion.from_pretrained(str(folder))
    torch.testing.assert_close(backbone.context_Gmc, torch.cat([torch.zeros_like(embedding), embedding]))
    assert sum(type(thing) is CLIPTextModel for thing in gc.get_objects()) == before
    assert not any("text_encoder" in name for name, _ in backbone.named_modules())
    assert backbone.condition(None, None).context_Gmc is backbone.context_Gmc


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_half_a_prompt(weights_with_prompt, part):
    folder, _ = weights_with_prompt
    for path in (folder / part).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {part}/"):
        StableDiffusion(str(folder)).check()


@torch.inference_mode()
def test_linear_and_convolutional_projections(editable_weights, edit_config):
    """Stable Diffusion 1.x projects by 1x1 convolutions, 2.x by linear layers of the same weights."""
    from safetensors.torch import load_file, save_file

    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    offset = torch.zeros(2, 16)
    offset[:, :5] = 50.0
    results = []
    for linear in (False, True):
        edit_config("unet/config.json", use_linear_projection=linear)
        path = editable_weights / "unet/diffusion_pytorch_model.safetensors"
        shapes = {"proj_in.weight", "proj_out.weight"}
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if ".".join(name.split(".")[-2:]) in shapes and linear:
                tensors[name] = tensor[..., 0, 0].contiguous()
        save_file(tensors, path)
        backbone = StableDiffusion.from_pretrained(str(editable_weights))
        recording = backbone.record(x, backbone.condition(None, None), [])
        results.append(backbone.denoise(x, 22, recording, torch.arange(2), offset))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_the_embedded_backbone_needs_nothing_but_the_package():
    backbone = Embedded()
    backbone.check()
    backbone.load()
    assert backbone.size_multiple == 64
    assert backbone.context_Gmc[0].abs().max() == 0
    assert backbone.fingerprint() == Embedded(max_batch=5).fingerprint()


@torch.inference_mode()
def test_a_compiled_decoder_gives_the_same_images(tiny_weights, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    plain, compiled = (
        StableDiffusion.from_pretrained(str(tiny_weights), max_batch=8, compile_decoder=chosen)
        for chosen in (False, True)
    )
    torch._dynamo.utils.counters.clear()
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))  # passes of two images and of one
    torch.testing.assert_close(compiled.decode(latents), plain.decode(latents), rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
