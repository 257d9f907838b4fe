"""Models of other kinds are told from their configs, by name, before any weights are read."""

import json
import logging
import re
import shutil

import pytest
import tiny_models
from diffusers import pipelines

from zsvss.backbones.checks import check_pipeline, check_text_encoder, few_steps
from zsvss.backbones.pixart import PixArt
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion


@pytest.fixture
def configs_alone(editable_weights):
    """A model whose weights are not there: whatever is refused, is refused without them."""
    for path in editable_weights.rglob("diffusion_pytorch_model*.safetensors"):
        path.unlink()
    return editable_weights


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
        ("StableDiffusionXLInpaintPipeline", "a Stable Diffusion XL for inpainting"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3 or 3.5"),
        ("StableDiffusionInpaintPipeline", "a Stable Diffusion for inpainting"),
        ("StableDiffusionDepth2ImgPipeline", "a Stable Diffusion for depth"),
        ("StableDiffusionInstructPix2PixPipeline", "InstructPix2Pix"),
        ("StableDiffusionUpscalePipeline", "the upscaler of Stable Diffusion"),
        ("StableUnCLIPImg2ImgPipeline", "Stable unCLIP"),
        ("LatentConsistencyModelPipeline", "a latent consistency model (LCM)"),
        ("AnimateDiffPipeline", "AnimateDiff"),
        ("FluxPipeline", "FLUX.1"),
        ("FluxKontextPipeline", "FLUX.1"),
        ("Flux2Pipeline", "FLUX.2"),
        ("PixArtSigmaPipeline", "PixArt"),
        ("SanaPipeline", "SANA"),
        ("WanPipeline", "Wan"),
        ("CogVideoXPipeline", "CogVideoX"),
        ("LTXPipeline", "LTX-Video"),
        ("HunyuanVideoPipeline", "HunyuanVideo"),
        ("KolorsPipeline", "Kolors"),
    ],
)
def test_pipelines_of_other_kinds(configs_alone, name, kind):
    assert hasattr(pipelines, name)  # as diffusers calls it
    (configs_alone / "model_index.json").write_text(json.dumps({"_class_name": name}))
    for backbone in (StableDiffusion, StableVideoDiffusion):
        with pytest.raises(ValueError, match=f" is {re.escape(kind)}.*{name}.*cannot run") as caught:
            backbone(str(configs_alone)).check()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionControlNetPipeline", "SomebodysPipeline"])
def test_pipelines_whose_networks_decide(editable_weights, name):
    (editable_weights / "model_index.json").write_text(json.dumps({"_class_name": name, "unet": ["diffusers", "x"]}))
    StableDiffusion(str(editable_weights)).check()


def test_a_pipeline_of_the_other_backbone(configs_alone):
    for name, backbone, other in (
        (
            "StableVideoDiffusionPipeline",
            StableDiffusion,
            "Stable Video Diffusion .* Use --model.backbone StableVideo",
        ),
        ("StableDiffusionPipeline", StableVideoDiffusion, "Stable Diffusion .* Use --model.backbone StableDiffusion"),
    ):
        (configs_alone / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(ValueError, match=f"is {other}"):
            backbone(str(configs_alone)).check()
    check_pipeline({"_class_name": "StableVideoDiffusionPipeline"}, "StableVideoDiffusion", "videos", "here")


def test_an_unknown_pipeline_with_a_transformer():
    with pytest.raises(ValueError, match=r"with a transformer in place of a U-Net \(model_index.json: NextPipeline\)"):
        check_pipeline({"_class_name": "NextPipeline", "transformer": ["x", "y"]}, "StableDiffusion", "images", "here")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"in_channels": 9}, "in_channels = 9 must be 4; it also takes a mask and a masked image: an inpainting model"),
        ({"in_channels": 5}, "in_channels = 5 must be 4; it also takes a depth map"),
        ({"in_channels": 8}, "in_channels = 8 must be 4; it also takes the latent of an image: an editing model"),
        ({"in_channels": 7}, "in_channels = 7 must be 4; it also takes a small image: an upscaler"),
        ({"in_channels": 6}, "in_channels = 6 must be 4, as the autoencoder has 4 latent channels"),
        ({"out_channels": 8}, "out_channels = 8 must be 4"),
        ({"class_embed_type": "projection"}, "class_embed_type = 'projection': the network takes class embeddings"),
        ({"num_class_embeds": 1000}, "num_class_embeds = 1000: the network takes class embeddings"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256: .* latent consistency model"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type = 'text_time': .* Stable Diffusion XL"),
        ({"encoder_hid_dim": 1280}, "encoder_hid_dim = 1280: .* a projection of the prompt"),
    ],
)
def test_networks_that_take_more(configs_alone, edit_config, entries, problem):
    edit_config("unet/config.json", **entries)
    with pytest.raises(ValueError, match=f"/unet: {problem}"):
        StableDiffusion(str(configs_alone)).check()


def test_a_video_network_without_the_conditioning_latent(tiny_video_weights, tmp_path):
    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps({**config, "in_channels": 4}))
    with pytest.raises(ValueError, match="in_channels = 4 must be 8"):
        StableVideoDiffusion(str(folder)).check()


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"latent_channels": 16}, "unet: in_channels = 4 must be 16"),
        (
            {"shift_factor": 0.1159},
            "vae: shift_factor = 0.1159 must be null: the network was trained on latents of mean zero",
        ),
        ({"latents_mean": [0.1, 0.2, 0.3, 0.4]}, "vae: latents_mean = .* must be null"),
    ],
)
def test_autoencoders_of_other_models(configs_alone, edit_config, entries, problem):
    edit_config("vae/config.json", **entries)
    with pytest.raises(ValueError, match=problem):
        StableDiffusion(str(configs_alone)).check()


def test_a_text_encoder_of_another_width(weights_with_prompt, edit_config):
    folder, _ = weights_with_prompt
    (folder / "text_encoder/model.safetensors").unlink()
    edit_config("text_encoder/config.json", hidden_size=16)
    with pytest.raises(ValueError, match="text_encoder: hidden_size = 16 must be 8, the U-Net's cross_attention_dim"):
        StableDiffusion(str(folder)).check()
    edit_config("text_encoder/config.json", model_type="t5")
    with pytest.raises(ValueError, match="text_encoder: model_type = 't5' must be 'clip_text_model'"):
        StableDiffusion(str(folder)).check()


def test_a_tokenizer_longer_than_the_encoder():
    check_text_encoder({"hidden_size": 8, "max_position_embeddings": 77}, {"model_max_length": 77}, 8, "here")
    with pytest.raises(ValueError, match="tokenizer: model_max_length = 1000 must be at most 77"):
        check_text_encoder({"hidden_size": 8, "max_position_embeddings": 77}, {"model_max_length": 1000}, 8, "here")


def test_an_image_encoder_of_another_width(tiny_video_weights, tmp_path):
    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    (folder / "context.safetensors").unlink()
    (folder / "image_encoder").mkdir()
    (folder / "image_encoder/config.json").write_text(json.dumps({"projection_dim": 1024}))
    with pytest.raises(ValueError, match="image_encoder: projection_dim = 1024 must be 8"):
        StableVideoDiffusion(str(folder)).check()


@pytest.mark.parametrize(
    ("name", "scheduler", "reason"),
    [
        ("owner/model", {"_class_name": "LCMScheduler"}, "its scheduler is a LCMScheduler"),
        ("stabilityai/sd-turbo", {}, "it is called 'stabilityai/sd-turbo'"),
        ("owner/Hyper-SD15", {}, "it is called"),
        ("owner/dreamshaper-8-lcm", {}, "it is called"),
        (
            "folder",
            {
                "_class_name": "EulerDiscreteScheduler",
                "timestep_spacing": "trailing",
                "prediction_type": "epsilon",
            },
            "counts timesteps from the end",
        ),
        ("stabilityai/stable-diffusion-2-1", {"_class_name": "PNDMScheduler", "timestep_spacing": "leading"}, None),
        (
            "folder",
            {
                "_class_name": "EulerDiscreteScheduler",
                "timestep_spacing": "trailing",
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
            },
            None,
        ),
        ("owner/vlcmodel", {}, None),
    ],
)
def test_signs_of_distillation(name, scheduler, reason):
    found = few_steps([name], scheduler)
    assert found is None if reason is None else reason in found


def test_distilled_checkpoints_are_named_with_their_guidance(editable_weights, edit_config, caplog):
    edit_config("scheduler/scheduler_config.json", _class_name="LCMScheduler")
    with caplog.at_level(logging.WARNING, "zsvss"):
        StableDiffusion.from_pretrained(str(editable_weights), guidance=1)
        assert not caplog.messages
        backbone = StableDiffusion.from_pretrained(str(editable_weights))
        backbone.check()
        backbone.load()
    (message,) = caplog.messages
    assert "its scheduler is a LCMScheduler" in message
    assert "--model.backbone.guidance 1 (it is 5)" in message


def test_distilled_transformers_are_named_too(tmp_path, caplog):
    """PixArt-LCM by its scheduler, Stable Diffusion 3.5 large turbo by its name; unguided, as by default, they run."""
    pixart = tiny_models.write_pixart(tmp_path / "pixart")
    scheduler = pixart / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "_class_name": "LCMScheduler"}))
    turbo = tiny_models.write_sd3(tmp_path / "stable-diffusion-3.5-large-turbo")
    with caplog.at_level(logging.WARNING, "zsvss"):
        PixArt.from_pretrained(str(pixart))
        StableDiffusion3.from_pretrained(str(turbo))
        assert not caplog.messages
        PixArt.from_pretrained(str(pixart), guidance=4.5)
        StableDiffusion3.from_pretrained(str(turbo), guidance=4.0)
    lcm, named = caplog.messages
    assert "its scheduler is a LCMScheduler" in lcm
    assert "--model.backbone.guidance 1 (it is 4)" in named
    assert "large-turbo" in named
