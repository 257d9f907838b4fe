"""Each backbone against diffusers' own pipeline and scheduler, on tiny random weights in the real layouts.

A pipeline from an image runs the encoder, adds noise, denoises and decodes; its text encoders embed the empty prompt.
The generator's first numbers sample the posterior, the next ones are the noise, in the pipeline and in ours.
"""

import shutil

import diffusers
import numpy as np
import pytest
import tiny_models
import torch
from diffusers.pipelines.wan import pipeline_wan_video2video
from safetensors.torch import load_file
from torch.nn import functional
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
    UMT5EncoderModel,
)

from zsvss.backbones.base import ClipNoise
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.flux import Flux
from zsvss.backbones.pixart import PixArt
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.stable_diffusion_xl import StableDiffusionXL
from zsvss.backbones.wan import Wan

SIZE = (64, 96)
IMAGE = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 2 - 1


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def sampled(backbone):
    """Latents after the last step and the image that they decode to, of one image."""
    noise = backbone.sample_noise(1, *SIZE, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        noised = backbone.add_noise(backbone.encode(IMAGE, noise), noise)
        recording = backbone.record(noised, backbone.condition(IMAGE, noise), [])
        latents = recording.latents[backbone.steps[-1]]
        return latents, backbone.decode(latents)


def by_pipeline(pipeline, image=IMAGE, **arguments):
    """The same by a pipeline."""
    pipeline.set_progress_bar_config(disable=True)
    results = []
    for kind in ("latent", "pt"):
        generator = torch.Generator().manual_seed(0)
        result = pipeline(image=(image + 1) / 2, generator=generator, output_type=kind, **arguments)
        results.append(result.images)
    return results[0], results[1] * 2 - 1


SSD = {  # other depths in every layer of an up block, and none in the middle
    "transformer_layers_per_block": (0, 2, 2),
    "reverse_transformer_layers_per_block": [[2, 2, 3], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}


@pytest.fixture(scope="module", params=[{}, SSD], ids=["base", "SSD-1B"])
def sdxl(request, tmp_path_factory):
    folder = tiny_models.write_sdxl(tmp_path_factory.mktemp("sdxl"), **request.param)
    tiny_models.write_sdxl_prompt(folder)
    return folder


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_stable_diffusion_xl(sdxl, guidance):
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=part(diffusers.AutoencoderKL, sdxl, "vae"),
        text_encoder=CLIPTextModel.from_pretrained(sdxl / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(sdxl / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(sdxl / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(sdxl / "tokenizer_2"),
        unet=part(diffusers.UNet2DConditionModel, sdxl, "unet"),
        scheduler=diffusers.EulerDiscreteScheduler.from_pretrained(
            sdxl, subfolder="scheduler", timestep_spacing="trailing"
        ),
        add_watermarker=False,
    )
    expected = by_pipeline(pipeline, prompt="", strength=0.1, num_inference_steps=20, guidance_scale=guidance)
    backbone = StableDiffusionXL.from_pretrained(str(sdxl), first_step=18, guidance=guidance)
    latents, image = sampled(backbone)
    close(latents, expected[0])
    close(image.clamp(-1, 1), expected[1])


@pytest.mark.parametrize("num_blocks", [4, 3])
def test_distillates_of_stable_diffusion_with_fewer_layers(num_blocks, tmp_path):
    """Two steps, guided, by diffusers' U-Net and scheduler; and a modulated pass, resumed and full."""
    folder = tiny_models.write_bk_sdm(tmp_path, num_blocks)
    backbone = StableDiffusion.from_pretrained(str(folder), first_step=23)
    assert backbone.places.blocks[backbone.modulation_block].name == f"up.{num_blocks - 2}.attn.1"
    latents, _ = sampled(backbone)
    noise = backbone.sample_noise(1, *SIZE, torch.Generator().manual_seed(0))
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(25)
    with torch.inference_mode():
        x = scheduler.add_noise(backbone.encode(IMAGE, noise), noise.diffusion_Tchw, scheduler.timesteps[23:24])
        for timestep in scheduler.timesteps[23:]:
            both = scheduler.scale_model_input(x, timestep).repeat(2, 1, 1, 1)
            unconditional, conditional = backbone.unet(both, timestep, backbone.context_Gmc).sample
            x = scheduler.step(unconditional + 5 * (conditional - unconditional), timestep, x).prev_sample
        close(latents, x)


def part(kind, folder, name):
    return kind.from_pretrained(folder, subfolder=name, low_cpu_mem_usage=False)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    folder = tiny_models.write_sd3(tmp_path_factory.mktemp("sd3"))
    tiny_models.write_sd3_prompt(folder)
    return folder


def sd3_pipeline(folder):
    third = folder / "text_encoder_3"
    third = T5EncoderModel.from_pretrained(third) if third.exists() else None
    return diffusers.StableDiffusion3Img2ImgPipeline(
        transformer=part(diffusers.SD3Transformer2DModel, folder, "transformer"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler"),
        vae=part(diffusers.AutoencoderKL, folder, "vae"),
        text_encoder=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        text_encoder_3=third,
        tokenizer_3=T5Tokenizer(),
    )


@pytest.fixture(scope="module")
def sd3_of_two_encoders(sd3, tmp_path_factory):
    folder = shutil.copytree(sd3, tmp_path_factory.mktemp("sd3") / "two")
    shutil.rmtree(folder / "text_encoder_3")
    return folder


@pytest.mark.parametrize(("name", "guidance"), [("sd3", 4.0), ("sd3", 1.0), ("sd3_of_two_encoders", 1.0)])
def test_stable_diffusion_3(name, guidance, request):
    """Guided by zeros, which diffusers must be given: its own unconditional half is the empty prompt, as ours."""
    sd3 = request.getfixturevalue(name)
    pipeline = sd3_pipeline(sd3)
    prompt = {"prompt": ""}
    if guidance != 1:
        cond, _, pooled, _ = pipeline.encode_prompt("", "", "", do_classifier_free_guidance=False)
        prompt = {"prompt_embeds": cond, "pooled_prompt_embeds": pooled}
        prompt |= {f"negative_{name}": torch.zeros_like(tensor) for name, tensor in prompt.items()}
    expected = by_pipeline(
        pipeline,
        **prompt,
        height=SIZE[0],
        width=SIZE[1],
        strength=2 / 28,
        num_inference_steps=28,
        guidance_scale=guidance,
    )
    backbone = StableDiffusion3.from_pretrained(str(sd3), first_step=26, guidance=guidance)
    latents, image = sampled(backbone)
    close(latents, expected[0])
    close(image.clamp(-1, 1), expected[1])


ALPHA = {"sample_size": 128, "width": 24}  # is told the size of the image, in a third of the width each


@pytest.fixture(scope="module", params=[{}, ALPHA], ids=["Sigma", "alpha"])
def pixart(request, tmp_path_factory):
    folder = tiny_models.write_pixart(tmp_path_factory.mktemp("pixart"), **request.param)
    tiny_models.write_pixart_prompt(folder)
    return folder


@pytest.mark.parametrize("guidance", [4.5, 1.0])
def test_pixart(pixart, guidance):
    """The pipeline starts from our noised latents, as it has none that starts from an image."""
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.0001, beta_end=0.02, beta_schedule="linear", timestep_spacing="trailing"
    )
    is_alpha = PixArt(str(pixart)).source.config("transformer")["sample_size"] == 128
    pipeline = (diffusers.PixArtAlphaPipeline if is_alpha else diffusers.PixArtSigmaPipeline)(
        tokenizer=T5Tokenizer(),
        text_encoder=T5EncoderModel.from_pretrained(pixart / "text_encoder"),
        vae=part(diffusers.AutoencoderKL, pixart, "vae"),
        transformer=part(diffusers.PixArtTransformer2DModel, pixart, "transformer"),
        scheduler=scheduler,
    )
    backbone = PixArt.from_pretrained(str(pixart), first_step=18, guidance=guidance)
    latents, image = sampled(backbone)
    noise = backbone.sample_noise(1, *SIZE, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded = pipeline.vae.encode(IMAGE).latent_dist
        clean = (encoded.mean + encoded.std * noise.posterior_Tchw) * pipeline.vae.config.scaling_factor
        level = ((1 - scheduler.alphas_cumprod[99]) / scheduler.alphas_cumprod[99]) ** 0.5
    cond, mask, _, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False)
    prompt = {"prompt_embeds": cond, "prompt_attention_mask": mask, "negative_prompt": None}
    prompt |= {"negative_prompt_embeds": torch.zeros_like(cond), "negative_prompt_attention_mask": mask}
    pipeline.set_progress_bar_config(disable=True)
    expected = [
        pipeline(
            **prompt,
            timesteps=[99, 49],
            latents=clean / level + noise.diffusion_Tchw,
            guidance_scale=guidance,
            height=SIZE[0],
            width=SIZE[1],
            use_resolution_binning=False,
            output_type=kind,
        ).images
        for kind in ("latent", "pt")
    ]
    close(latents, expected[0])
    close(image.clamp(-1, 1), expected[1] * 2 - 1)


@pytest.fixture(scope="module", params=[True, False], ids=["dev", "schnell"])
def flux(request, tmp_path_factory):
    folder = tiny_models.write_flux(tmp_path_factory.mktemp("flux"), told=request.param)
    tiny_models.write_flux_prompt(folder)
    return folder


@pytest.mark.parametrize("guidance", [3.5, 1.0])
def test_flux(flux, guidance):
    """Its guidance is a number that it is told. Levels of noise are those of the image's size, 4 by 6 tokens."""
    pipeline = diffusers.FluxImg2ImgPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(flux, subfolder="scheduler"),
        vae=part(diffusers.AutoencoderKL, flux, "vae"),
        text_encoder=CLIPTextModel.from_pretrained(flux / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(flux / "tokenizer"),
        text_encoder_2=T5EncoderModel.from_pretrained(flux / "text_encoder_2"),
        tokenizer_2=T5Tokenizer(),
        transformer=part(diffusers.FluxTransformer2DModel, flux, "transformer"),
    )
    expected = by_pipeline(
        pipeline,
        prompt="",
        height=SIZE[0],
        width=SIZE[1],
        strength=2 / 33 - 1e-6,
        num_inference_steps=33,
        guidance_scale=guidance,
        max_sequence_length=512 if pipeline.transformer.config.guidance_embeds else 256,
    )
    backbone = Flux.from_pretrained(str(flux), first_step=31, told_guidance=guidance, image_tokens=24)
    latents, image = sampled(backbone)
    packed = functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)
    close(packed, expected[0])
    close(image.clamp(-1, 1), expected[1])


VIDEO = torch.rand(9, 3, *SIZE, generator=torch.Generator().manual_seed(6)) * 2 - 1


def sampled_video(backbone, *, is_mean=False):
    """What `sampled` gives, of a clip of nine frames, which have three latent frames."""
    generator = torch.Generator().manual_seed(0)
    size = (SIZE[0] // 8, SIZE[1] // 8)
    channels = backbone.latent_channels
    groups = backbone.groups(len(VIDEO))
    if is_mean:
        posterior = torch.zeros(3, channels, *size)
        diffusion = torch.randn(1, channels, 3, *size, generator=generator)[0].transpose(0, 1)
    else:
        posterior = torch.randn(1, channels, 3, *size, generator=generator)[0].transpose(0, 1)
        diffusion = torch.randn(1, 3, channels, *size, generator=generator)[0]
    noise = ClipNoise(posterior[groups], diffusion[groups])
    with torch.inference_mode():
        noised = backbone.add_noise(backbone.encode(VIDEO, noise), noise)
        recording = backbone.record(noised, backbone.condition(VIDEO, noise), [])
        latents = recording.latents[backbone.steps[-1]]
        return latents[[0, 1, 5]], backbone.decode(latents)


@pytest.fixture(scope="module", params=[False, True], ids=["2B", "5B"])
def cogvideox(request, tmp_path_factory):
    write = tiny_models.write_cogvideox
    folder = write(tmp_path_factory.mktemp("cogvideox"), use_rotary_positional_embeddings=request.param)
    tiny_models.write_cogvideox_prompt(folder)
    return folder


@pytest.mark.parametrize("guidance", [6.0, 1.0])
def test_cogvideox(cogvideox, guidance):
    pipeline = diffusers.CogVideoXVideoToVideoPipeline(
        tokenizer=T5Tokenizer(),
        text_encoder=T5EncoderModel.from_pretrained(cogvideox / "text_encoder"),
        vae=part(diffusers.AutoencoderKLCogVideoX, cogvideox, "vae"),
        transformer=part(diffusers.CogVideoXTransformer3DModel, cogvideox, "transformer"),
        scheduler=diffusers.CogVideoXDDIMScheduler.from_pretrained(cogvideox, subfolder="scheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    cond, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False, max_sequence_length=5)
    expected = [
        pipeline(
            video=[(VIDEO + 1) / 2],
            prompt_embeds=cond,
            negative_prompt_embeds=torch.zeros_like(cond),
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=20,
            strength=0.1,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(0),
            output_type=kind,
        ).frames
        for kind in ("latent", "pt")
    ]
    backbone = CogVideoX.from_pretrained(str(cogvideox), first_step=18, guidance=guidance)
    latents, video = sampled_video(backbone)
    close(latents, expected[0][0])
    close(video.clamp(-1, 1), expected[1][0] * 2 - 1)


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    folder = tiny_models.write_wan(tmp_path_factory.mktemp("wan"))
    tiny_models.write_wan_prompt(folder)
    return folder


class SingleShift(diffusers.FlowMatchEulerDiscreteScheduler):
    """Euler steps on the levels of Wan's own scheduler, which is of a higher order."""

    def set_timesteps(self, num_inference_steps, device=None, **_):
        super().set_timesteps(device=device, sigmas=np.linspace(1, 1 / 1000, num_inference_steps + 1)[:-1])


def test_wan_is_sampled_on_the_levels_of_its_own_scheduler(wan):
    own = diffusers.UniPCMultistepScheduler.from_pretrained(wan, subfolder="scheduler")
    own.set_timesteps(28)
    backbone = Wan(str(wan))
    backbone.check()
    assert backbone.sigmas == pytest.approx(own.sigmas.tolist(), abs=2e-6)
    assert backbone.timesteps == pytest.approx(own.timesteps.tolist(), abs=1)  # which it rounds down
    assert [int(timestep) for timestep in backbone.timesteps[-3:]] == [266, 189, 102]


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_wan(wan, guidance, monkeypatch):
    """Diffusers' pipeline takes the posterior's mean, and here Euler steps."""
    monkeypatch.setattr(pipeline_wan_video2video, "prompt_clean", str.strip)  # which needs ftfy
    backbone = Wan.from_pretrained(str(wan), first_step=26, guidance=guidance)
    # Loading it by diffusers needs accelerate.
    transformer = diffusers.WanTransformer3DModel.from_config(backbone.transformer.config)
    transformer.load_state_dict(load_file(wan / "transformer/diffusion_pytorch_model.safetensors"))
    pipeline = diffusers.WanVideoToVideoPipeline(
        tokenizer=T5Tokenizer(),
        text_encoder=UMT5EncoderModel.from_pretrained(wan / "text_encoder"),
        vae=part(diffusers.AutoencoderKLWan, wan, "vae"),
        transformer=transformer,
        scheduler=SingleShift(shift=3.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    cond, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False, max_sequence_length=512)
    expected = [
        pipeline(
            video=[(VIDEO + 1) / 2],
            prompt_embeds=cond,
            negative_prompt_embeds=torch.zeros_like(cond),
            height=SIZE[0],
            width=SIZE[1],
            num_inference_steps=28,
            strength=2 / 28,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(0),
            output_type=kind,
        ).frames
        for kind in ("latent", "pt")
    ]
    latents, video = sampled_video(backbone, is_mean=True)
    close(latents, expected[0][0].transpose(0, 1))
    close(video.clamp(-1, 1), expected[1][0] * 2 - 1)
