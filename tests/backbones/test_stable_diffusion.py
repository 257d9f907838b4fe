"""Stable Diffusion's schedule, prediction types, prompt and older layout, against diffusers' own."""

import gc
import json
from functools import partialmethod

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler

from zsvss.backbones import unet
from zsvss.backbones.attention import edited_attention
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}


@pytest.mark.parametrize("num_steps", [1, 7, 16, 25, 50])
def test_schedule(tiny_weights, num_steps):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), num_steps=num_steps, first_step=num_steps - 1)
    scheduler = EulerDiscreteScheduler(**SCHEDULE)
    scheduler.set_timesteps(num_steps)
    assert backbone.timesteps == scheduler.timesteps.tolist()
    torch.testing.assert_close(torch.tensor(backbone.sigmas), scheduler.sigmas, rtol=1e-5, atol=0)  # theirs is float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("step", [22, 24])
def test_step(editable_weights, edit_config, prediction_type, step):
    edit_config("scheduler/scheduler_config.json", prediction_type=prediction_type)
    backbone = StableDiffusion.from_pretrained(str(editable_weights))
    assert backbone.prediction_type == prediction_type
    scheduler = EulerDiscreteScheduler(prediction_type=prediction_type, **SCHEDULE)
    scheduler.set_timesteps(25)
    generator = torch.Generator().manual_seed(0)
    x, unconditional, conditional = torch.randn(3, 2, 4, 8, 8, generator=generator)
    scaled = scheduler.scale_model_input(x, scheduler.timesteps[step])
    torch.testing.assert_close(x / (backbone.sigmas[step] ** 2 + 1) ** 0.5, scaled)
    guided = unconditional + 5 * (conditional - unconditional)
    expected = scheduler.step(guided, scheduler.timesteps[step], x).prev_sample
    ours = backbone.euler(x, torch.stack([unconditional, conditional]), step, torch.arange(2), 2)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_setting_overrides_the_scheduler(tiny_weights):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), prediction_type="v_prediction")
    assert backbone.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"prediction_type": "sample"}, "prediction_type 'sample' is not known"),
        ({"beta_schedule": "linear"}, "beta_schedule 'linear' must be 'scaled_linear'"),
    ],
)
def test_schedules_that_are_not_known(editable_weights, edit_config, entries, problem):
    edit_config("scheduler/scheduler_config.json", **entries)
    with pytest.raises(ValueError, match=problem):
        StableDiffusion.from_pretrained(str(editable_weights))


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
            assert len(edit.query_Bnc) == len(edit.key_Bmc) == maps  # of two frames in both halves of the guidance
            assert edit.shared_map_B.tolist() == [1, 0, 0, 1, 0, 3, 2, 2, 3, 2]


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


@pytest.fixture
def weights_with_prompt(editable_weights):
    """Tiny weights with a tokenizer and a text encoder, whose embedding is returned too."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    (editable_weights / "context.safetensors").unlink()
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}
    files = editable_weights.parent
    (files / "vocab.json").write_text(json.dumps(vocabulary))
    (files / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(files / "vocab.json"), str(files / "merges.txt"), model_max_length=7)
    tokenizer.save_pretrained(editable_weights / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=4,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    encoder = CLIPTextModel(config).eval()
    encoder.save_pretrained(editable_weights / "text_encoder")
    with torch.no_grad():
        embedding = encoder(torch.tensor([[0, 1, 1, 1, 1, 1, 1]])).last_hidden_state
    return editable_weights, embedding


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
    assert backbone.size_multiple == 32
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
