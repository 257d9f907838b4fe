"""Stable Video Diffusion's schedule, guidance and conditioning, against diffusers' own."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as published

from zsvss.backbones import stable_video_diffusion, unet
from zsvss.backbones.base import ClipNoise, FeatureKey
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion, resize_antialiased


@pytest.fixture
def scheduler():
    """As the original's scheduler_config.json has it, but its timesteps are Karras et al.'s own."""
    scheduler = EulerDiscreteScheduler(
        sigma_min=0.002,
        sigma_max=700.0,
        use_karras_sigmas=True,
        prediction_type="v_prediction",
        timestep_type="continuous",
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(25)
    return scheduler


def video_backbone(weights, **settings):
    return StableVideoDiffusion.from_pretrained(str(weights), **settings)


def test_schedule(tiny_video_weights, scheduler):
    backbone = video_backbone(tiny_video_weights)
    torch.testing.assert_close(torch.tensor(backbone.sigmas), scheduler.sigmas, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.tensor(backbone.timesteps), scheduler.timesteps, rtol=1e-5, atol=1e-5)
    assert list(backbone.blended_steps) == list(backbone.steps) == list(range(17, 25))


@pytest.mark.parametrize("step", [17, 24])
def test_step(tiny_video_weights, scheduler, step):
    backbone = video_backbone(tiny_video_weights)
    x, unconditional, conditional = torch.randn(3, 6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, 1.75, 2.5] * 2)[:, None, None, None]  # two clips of three frames
    guided = unconditional + scale * (conditional - unconditional)
    scheduler.scale_model_input(x, scheduler.timesteps[step])
    expected = scheduler.step(guided, scheduler.timesteps[step], x).prev_sample
    frames = torch.arange(3).repeat(2)
    ours = backbone.euler(x, torch.stack([unconditional, conditional]), step, frames, 3)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_group_norms_of_the_original(tiny_video_weights):
    diffusers_unet = UNetSpatioTemporalConditionModel.from_pretrained(
        tiny_video_weights, subfolder="unet", low_cpu_mem_usage=False
    )
    ours = dict(video_backbone(tiny_video_weights).unet.named_modules())
    changed = [
        name
        for name, module in diffusers_unet.named_modules()
        if isinstance(module, torch.nn.GroupNorm) and module.eps != ours[name].eps
    ]
    assert len(changed) == 72
    assert {ours[name].eps for name in changed} == {1e-5}


@pytest.mark.parametrize("size", [(576, 1024), (128, 224), (64, 300), (224, 224)], ids=str)
def test_image_resize(size):
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = published._resize_with_antialiasing(images, (224, 224))
    torch.testing.assert_close(resize_antialiased(images, (224, 224)), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def weights_with_image_encoder(tiny_video_weights, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    (folder / "context.safetensors").unlink()
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    (folder / "feature_extractor").mkdir()
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(means))
    return folder


@torch.inference_mode()
def test_conditioning_on_the_first_frame(weights_with_image_encoder):
    from transformers import CLIPVisionModelWithProjection

    folder = weights_with_image_encoder
    backbone = video_backbone(folder)
    images = torch.rand(3, 3, 64, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(3, 64, 128, torch.Generator().manual_seed(1))
    conditioning = backbone.condition(images, noise)

    encoder = CLIPVisionModelWithProjection.from_pretrained(folder, subfolder="image_encoder")
    resized = (published._resize_with_antialiasing(images[:1], (224, 224)) + 1) / 2
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    embedding = encoder(pixel_values=(resized - mean) / std).image_embeds
    assert conditioning.context_Gmc.shape == (2, 1, 8)
    torch.testing.assert_close(conditioning.context_Gmc[1], embedding, rtol=1e-4, atol=1e-5)
    assert conditioning.context_Gmc[0].abs().max() == 0

    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
    latent = vae.encode(images[:1] + 0.02 * noise.conditioning_13HW).latent_dist.mode()
    torch.testing.assert_close(conditioning.concat_Gchw[1:], latent, rtol=1e-5, atol=1e-5)
    assert conditioning.concat_Gchw[0].abs().max() == 0
    torch.testing.assert_close(conditioning.vector_Gc, torch.tensor([[14.0, 127.0, 0.02]]).repeat(2, 1))


def test_noise_without_the_first_frames(tiny_video_weights):
    backbone = video_backbone(tiny_video_weights)
    images = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"noise\.conditioning_13HW is missing"):
        backbone.condition(images, ClipNoise(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("max_batch", "passes"),
    [(28, [6, 3]), (4, [3]), (1, [3])],  # both guidance halves of a clip of three frames, then a clip, which is whole
)
def test_out_of_memory_tries_no_size_twice(tiny_video_weights, monkeypatch, max_batch, passes):
    backbone = video_backbone(tiny_video_weights, max_batch=max_batch)
    noise = backbone.sample_noise(3, 64, 64, torch.Generator().manual_seed(0))
    images = torch.zeros(3, 3, 64, 64)
    latents, conditioning = backbone.encode(images, noise), backbone.condition(images, noise)
    tried = []

    def run_out(sample, **_):
        tried.append(sample.shape[:2].numel())
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone.unet, "forward", run_out)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        backbone.record(backbone.add_noise(latents, noise), conditioning, [])
    assert tried == passes


def test_out_of_memory_of_the_autoencoder_tries_no_size_twice(tiny_video_weights, monkeypatch):
    backbone = video_backbone(tiny_video_weights)
    tried = []

    def run_out(latents):
        tried.append(len(latents))
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backbone, "decode_images", run_out)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        backbone.decode(torch.zeros(14, 4, 8, 8))
    assert tried == [7, 3, 1]
    assert backbone.samples.size == 28  # the U-Net has a limit of its own


@torch.inference_mode()
def test_attention_over_time_never_gets_more_batches_than_a_gpu_takes(tiny_video_weights, monkeypatch):
    backbone = video_backbone(tiny_video_weights, max_batch=100)
    clips = []

    def watch(samples):
        clips.append(len(samples.row_b) // 2)
        return samples

    monkeypatch.setattr(stable_video_diffusion, "MOST_ATTENTION_BATCHES", 2 * 8 * 8 + 1)  # a batch for each cell of 8x8
    frames_B = torch.arange(2).repeat(3)
    list(backbone._in_passes(watch, torch.zeros(6, 4, 8, 8), frames_B, 2))
    assert clips == [2, 2, 2]  # of three clips in two guidance halves
    with pytest.raises(ValueError, match=r"256 latent cells .* the 129 .*model\.input_size"):
        backbone._in_passes(watch, torch.zeros(6, 4, 16, 16, device="meta"), frames_B, 2)


@torch.inference_mode()
def test_compiled_passes_are_filled_up_to_no_more_than_that(tiny_video_weights, monkeypatch):
    sizes = []

    class Plain:
        def __init__(self, unet, *_):
            self.unet = unet

        def whole(self, **inputs):
            sizes.append(len(inputs["sample"]))
            return self.unet(**inputs, return_dict=False)[0]

    monkeypatch.setattr(unet, "CompiledPasses", Plain)
    monkeypatch.setattr(stable_video_diffusion, "MOST_ATTENTION_BATCHES", 3 * 8 * 8)
    plain, filled = (
        video_backbone(tiny_video_weights, first_step=24, max_batch=100, compile_unet=chosen)
        for chosen in (False, True)
    )
    generator = torch.Generator().manual_seed(0)
    noised = torch.randn(2, 4, 8, 8, generator=generator)
    noise = plain.sample_noise(2, 64, 64, generator)
    recording = plain.record(noised, plain.condition(torch.zeros(2, 3, 64, 64), noise), [])
    x_Bchw, frames_B = torch.randn(4, 4, 8, 8, generator=generator), torch.arange(2).repeat(2)
    expected = plain.denoise(x_Bchw, 24, recording, frames_B)
    found = filled.denoise(x_Bchw, 24, recording, frames_B)
    assert sizes == [3, 3], "of two clips in two guidance halves, three clips a pass"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_every_frame_is_decoded_alone(tiny_video_weights):
    backbone = video_backbone(tiny_video_weights)
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = backbone.decode(latents)
    alone = torch.cat([backbone.decode(latents[t : t + 1]) for t in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_temporal_queries_belong_to_their_frame_and_token(tiny_video_weights):
    """Recorded [G, T, n, c]; the network has them as sequences of frames, one a token."""
    backbone = video_backbone(tiny_video_weights, first_step=24)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 64, 128, generator=generator) * 2 - 1
    noise = backbone.sample_noise(3, 64, 128, generator)
    noised = backbone.add_noise(backbone.encode(images, noise), noise)
    seen = {}
    layer = backbone.unet.up_blocks[2].attentions[1].temporal_transformer_blocks[0].attn1.to_q
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.update(query=output))
    recording = backbone.record(noised, backbone.condition(images, noise), [FeatureKey(24, 7, "temporal_self")])
    handle.remove()
    height, width = recording.grids[7]
    assert (height, width) == (4, 8)
    query = seen["query"].view(2, height * width, 3, -1)  # halves, tokens, frames, channels
    assert torch.equal(recording.tensors[FeatureKey(24, 7, "temporal_self")], query.transpose(1, 2))


def test_temporal_cross_attention_has_one_context_for_all_frames(tiny_video_weights):
    backbone = video_backbone(tiny_video_weights)
    with pytest.raises(ValueError, match=r"no \(7, 'temporal_cross', 'key', 0\) to record"):
        backbone.record(torch.zeros(1, 4, 8, 8), None, [FeatureKey(24, 7, "temporal_cross", "key")])


@torch.inference_mode()
def test_half_precision_encodes_in_single(tiny_video_weights):
    backbone = video_backbone(tiny_video_weights)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    expected = backbone.encode(images, noise)
    backbone.half()
    # The weights were rounded to half precision, the arithmetic was not.
    torch.testing.assert_close(backbone.encode(images, noise), expected, rtol=1e-2, atol=1e-2)
    assert backbone.vae.dtype == torch.float16
