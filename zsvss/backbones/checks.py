"""Refuses models of another kind by their configs, before anything large is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

# First letters of a pipeline's class -> what it is; ``None`` for what is a plain Stable Diffusion. The first that fits.
_PIPELINES: dict[str, str | None] = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3 or 3.5",
    "StableDiffusionInpaint": "a Stable Diffusion for inpainting, whose network also takes a mask and a masked image",
    "StableDiffusionDepth2Img": "a Stable Diffusion for depth, whose network also takes a depth map",
    "StableDiffusionInstructPix2Pix": "InstructPix2Pix, whose network also takes the image that is edited",
    "StableDiffusionUpscale": "the upscaler of Stable Diffusion",
    "StableDiffusionLatentUpscale": "the latent upscaler of Stable Diffusion",
    "StableDiffusionImageVariation": "Stable Diffusion for image variations, conditioned on images in place of text",
    "StableDiffusionGLIGEN": "GLIGEN, whose network also takes boxes",
    "StableDiffusionLDM3D": "LDM3D, whose autoencoder also holds depth",
    "StableDiffusion": None,
    "StableVideoDiffusion": "Stable Video Diffusion",
    "StableUnCLIP": "Stable unCLIP, whose network takes class embeddings",
    "StableCascade": "Stable Cascade",
    "StableAudio": "Stable Audio",
    "LatentConsistencyModel": "a latent consistency model (LCM), whose network is told the guidance scale",
    "AltDiffusion": "AltDiffusion",
    "AnimateDiff": "AnimateDiff",
    "Allegro": "Allegro",
    "AuraFlow": "AuraFlow",
    "Bria": "BRIA",
    "Chroma": "Chroma",
    "CogVideoX": "CogVideoX",
    "CogView": "CogView",
    "Cosmos": "Cosmos",
    "Flux2": "FLUX.2",
    "Flux3": "FLUX.3",
    "Flux": "FLUX.1",
    "HiDream": "HiDream",
    "HunyuanDiT": "Hunyuan-DiT",
    "HunyuanVideo": "HunyuanVideo",
    "HunyuanImage": "HunyuanImage",
    "I2VGenXL": "I2VGen-XL",
    "IF": "DeepFloyd IF",
    "Kandinsky": "Kandinsky",
    "Kolors": "Kolors",
    "LTX": "LTX-Video",
    "Latte": "Latte",
    "Lumina": "Lumina",
    "Marigold": "Marigold",
    "Mochi": "Mochi",
    "OmniGen": "OmniGen",
    "PixArt": "PixArt",
    "Qwen": "Qwen-Image",
    "Sana": "SANA",
    "SkyReels": "SkyReels",
    "TextToVideoSD": "ModelScope's text-to-video model",
    "UnCLIP": "unCLIP",
    "Wan": "Wan",
    "Wuerstchen": "Wuerstchen",
    "ZImage": "Z-Image",
}
# Settings of a U-Net that a Stable Diffusion leaves out -> what has them.
_EXTRA_INPUTS = {
    "addition_embed_type": "an added embedding, as Stable Diffusion XL and Kandinsky have",
    "class_embed_type": "class embeddings, as unCLIP and image variations have",
    "num_class_embeds": "class embeddings, as the upscaler has",
    "time_cond_proj_dim": "an embedding of the guidance scale, as a latent consistency model (LCM) has",
    "encoder_hid_dim": "a projection of the prompt, as Kandinsky, DeepFloyd IF and IP-Adapter have",
}
# Input channels beyond the latent's -> what has them.
_EXTRA_CHANNELS = {
    5: "a mask and a masked image: an inpainting model",
    1: "a depth map: a depth model",
    4: "the latent of an image: an editing model such as InstructPix2Pix, or a video model",
    3: "a small image: an upscaler",
}
_FEW_STEPS = re.compile(r"turbo|lightning|hyper-?sd|(?<![a-z])lcm|dmd2?(?![a-z])|tcd(?![a-z])", re.IGNORECASE)
_FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")


def check_pipeline(index: Config, wanted: str, place: str) -> None:
    """Refuse a model of another kind by its name.

    Args:
        index: ``model_index.json``; may be empty.
        wanted: the pipeline of the backbone: ``StableDiffusion`` or ``StableVideoDiffusion``.
        place: of the model, for the message.

    Raises:
        ValueError: saying what it is.
    """
    name = str(index.get("_class_name", ""))
    kind = next((kind for prefix, kind in _PIPELINES.items() if name.startswith(prefix)), "")
    if kind == "" and "transformer" in index and "unet" not in index:
        kind = "a model with a transformer in place of a U-Net"
    if kind is None:
        kind = "Stable Diffusion"
    if not kind or (wanted == "StableDiffusion" and kind == "Stable Diffusion"):
        return
    if name.startswith(wanted) and wanted == "StableVideoDiffusion":
        return
    also = {"Stable Diffusion": "StableDiffusion", "Stable Video Diffusion": "StableVideoDiffusion"}.get(kind)
    remedy = f"Use --model.backbone {also}." if also else f"{wanted} needs {_OF_BACKBONE[wanted]}."
    raise ValueError(f"{place} is {kind} (model_index.json: {name}), which this backbone cannot run. {remedy}")


_OF_BACKBONE = {
    "StableDiffusion": "Stable Diffusion 1.x or 2.x",
    "StableVideoDiffusion": "Stable Video Diffusion",
}


def check_inputs(unet: Config, vae: Config, concatenated: int, place: str) -> None:
    """Refuse a U-Net that takes more, or other things, than the backbone gives it.

    Args:
        unet: its config.
        vae: the autoencoder's config.
        concatenated: latents that the backbone concatenates to the noisy one.
        place: of the model, for the message.

    Raises:
        ValueError: naming the setting.
    """
    for key, what in _EXTRA_INPUTS.items():
        if unet.get(key) is not None:
            raise ValueError(
                f"{place}/unet: {key} = {unet[key]!r}: the network takes {what}. This backbone does not "
                f"give it that; {key} must be null."
            )
    latent = vae.get("latent_channels", 4)
    given, found = latent * (1 + concatenated), unet.get("in_channels", 4)
    if found != given:
        extra = _EXTRA_CHANNELS.get(found - latent)
        raise ValueError(
            f"{place}/unet: in_channels = {found} must be {given}"
            + (f"; it also takes {extra}." if extra else f", as the autoencoder has {latent} latent channels.")
        )
    if unet.get("out_channels", 4) != latent:
        raise ValueError(
            f"{place}/unet: out_channels = {unet['out_channels']} must be {latent}, the autoencoder's latent channels."
        )
    for key in ("shift_factor", "latents_mean"):
        if vae.get(key) is not None:
            raise ValueError(
                f"{place}/vae: {key} = {vae[key]!r} must be null: the autoencoder is that of another model."
            )


def check_text_encoder(encoder: Config, tokenizer: Config, width: int, place: str) -> None:
    """Refuse a text encoder that does not fit the U-Net or the tokenizer.

    Args:
        encoder: its config.
        tokenizer: the tokenizer's config.
        width: of the U-Net's cross-attention.
        place: of the model, for the message.

    Raises:
        ValueError: naming the setting.
    """
    kind = encoder.get("model_type", "clip_text_model")
    if not str(kind).startswith("clip"):
        raise ValueError(f"{place}/text_encoder: model_type = {kind!r} must be 'clip_text_model'.")
    text = encoder.get("text_config") or encoder
    _check_width("text_encoder", "hidden_size", text.get("hidden_size", 512), width, place)
    tokens, places = tokenizer.get("model_max_length", 77), text.get("max_position_embeddings", 77)
    if tokens > places:
        raise ValueError(
            f"{place}/tokenizer: model_max_length = {tokens} must be at most {places}, the text "
            "encoder's max_position_embeddings."
        )


def check_image_encoder(encoder: Config, width: int, place: str) -> None:
    """Refuse an image encoder of another width than the U-Net's cross-attention; raises :class:`ValueError`."""
    _check_width("image_encoder", "projection_dim", encoder.get("projection_dim", 512), width, place)


def _check_width(part: str, key: str, found: int, width: int, place: str) -> None:
    if found != width:
        raise ValueError(
            f"{place}/{part}: {key} = {found} must be {width}, the U-Net's cross_attention_dim: "
            "encoder and network are of different models."
        )


def few_steps(names: list[str], scheduler: Config) -> str | None:
    """Why a checkpoint seems to be distilled for sampling in few steps; ``None`` if nothing says so.

    The weights themselves do not tell. A scheduler for few steps does for certain; a name or the spacing of a scheduler
    only suggest it.

    Args:
        names: of the model, as its files and the user call it.
        scheduler: its config; may be empty.
    """
    kind = str(scheduler.get("_class_name", ""))
    if kind in _FEW_STEP_SCHEDULERS:
        return f"its scheduler is a {kind}"
    named = next((name for name in names if _FEW_STEPS.search(name)), None)
    if named is not None:
        return f"it is called {named!r}"
    trailing = scheduler.get("timestep_spacing") == "trailing" and scheduler.get("prediction_type") == "epsilon"
    if trailing and kind.startswith("Euler") and not scheduler.get("rescale_betas_zero_snr"):
        return f"its {kind} counts timesteps from the end (timestep_spacing: trailing), as SD-Turbo's does"
    return None
