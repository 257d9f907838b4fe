"""Each backbone against diffusers' own pipeline and scheduler, on tiny random weights in the real layouts.

A pipeline from an image runs the encoder, adds noise, denoises and decodes; its text encoders embed the empty prompt.
The generator's first numbers sample the posterior, the next ones are the noise, in the pipeline and in ours.
"""

import diffusers
import pytest
import tiny_models
import torch

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_diffusion_xl import StableDiffusionXL

SIZE = (64, 96)
IMAGE = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 2 - 1


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def sampled(backbone):
    """Latents behind the last step and the image that they decode to, of one image."""
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


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    folder = tiny_models.write_sdxl(tmp_path_factory.mktemp("sdxl"))
    tiny_models.write_sdxl_prompt(folder)
    return folder


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_stable_diffusion_xl(sdxl, guidance):
    part = lambda kind, name: kind.from_pretrained(sdxl, subfolder=name, low_cpu_mem_usage=False)  # noqa: E731
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=part(diffusers.AutoencoderKL, "vae"),
        text_encoder=CLIPTextModel.from_pretrained(sdxl / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(sdxl / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(sdxl / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(sdxl / "tokenizer_2"),
        unet=part(diffusers.UNet2DConditionModel, "unet"),
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
