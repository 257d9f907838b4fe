"""Refuses models of another kind by their configs, before anything large is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

Config = Mapping[str, Any]

# First letters of a pipeline's class -> what it is, and the backbone that runs it, if one does. The first that fits.
_PIPELINES: dict[str, tuple[str, str | None]] = {
    "StableDiffusionXLInpaint": ("a Stable Diffusion XL for inpainting, whose network also takes a mask", None),
    "StableDiffusionXLInstructPix2Pix": ("InstructPix2Pix, whose network also takes the image that is edited", None),
    "StableDiffusionXL": ("Stable Diffusion XL", "StableDiffusionXL"),
    "StableDiffusion3Inpaint": ("a Stable Diffusion 3 for inpainting", None),
    "StableDiffusion3": ("Stable Diffusion 3 or 3.5", "StableDiffusion3"),
    "StableDiffusionInpaint": (
        "a Stable Diffusion for inpainting, whose network also takes a mask and a masked image",
        None,
    ),
    "StableDiffusionDepth2Img": ("a Stable Diffusion for depth, whose network also takes a depth map", None),
    "StableDiffusionInstructPix2Pix": ("InstructPix2Pix, whose network also takes the image that is edited", None),
    "StableDiffusionUpscale": ("the upscaler of Stable Diffusion", None),
    "StableDiffusionLatentUpscale": ("the latent upscaler of Stable Diffusion", None),
    "StableDiffusionImageVariation": (
        "Stable Diffusion for image variations, conditioned on images in place of text",
        None,
    ),
    "StableDiffusionGLIGEN": ("GLIGEN, whose network also takes boxes", None),
    "StableDiffusionLDM3D": ("LDM3D, whose autoencoder also holds depth", None),
    "StableDiffusion": ("Stable Diffusion", "StableDiffusion"),
    "StableVideoDiffusion": ("Stable Video Diffusion", "StableVideoDiffusion"),
    "StableUnCLIP": ("Stable unCLIP, whose network takes class embeddings", None),
    "StableCascade": ("Stable Cascade", None),
    "StableAudio": ("Stable Audio", None),
    "LatentConsistencyModel": ("a latent consistency model (LCM), whose network is told the guidance scale", None),
    "AltDiffusion": ("AltDiffusion", None),
    "AnimateDiff": ("AnimateDiff", None),
    "Allegro": ("Allegro", None),
    "AuraFlow": ("AuraFlow", None),
    "Bria": ("BRIA", None),
    "Chroma": ("Chroma", None),
    "CogVideoXImageToVideo": ("CogVideoX from an image, whose network also takes the image's latent", None),
    "CogVideoXFun": ("CogVideoX Fun, whose network also takes a control video", None),
    "CogVideoX": ("CogVideoX", "CogVideoX"),
    "CogView": ("CogView", None),
    "Cosmos": ("Cosmos", None),
    "Flux2": ("FLUX.2", None),
    "Flux3": ("FLUX.3", None),
    "FluxKontext": ("FLUX.1 Kontext, whose network also takes the image that is edited", None),
    "FluxPriorRedux": ("FLUX.1 Redux, which embeds an image for another model", None),
    "FluxFill": ("FLUX.1 Fill, whose network also takes a mask and a masked image", None),
    "FluxControl": ("FLUX.1 Depth or Canny, whose network also takes an image", None),
    "Flux": ("FLUX.1", "Flux"),
    "HiDream": ("HiDream", None),
    "HunyuanDiT": ("Hunyuan-DiT", None),
    "HunyuanVideo": ("HunyuanVideo", None),
    "HunyuanImage": ("HunyuanImage", None),
    "I2VGenXL": ("I2VGen-XL", None),
    "IF": ("DeepFloyd IF", None),
    "Kandinsky": ("Kandinsky", None),
    "Kolors": ("Kolors", None),
    "LTX": ("LTX-Video", None),
    "Latte": ("Latte", None),
    "Lumina": ("Lumina", None),
    "Marigold": ("Marigold", None),
    "Mochi": ("Mochi", None),
    "OmniGen": ("OmniGen", None),
    "PixArt": ("PixArt", "PixArt"),
    "Qwen": ("Qwen-Image", None),
    "Sana": ("SANA", None),
    "SkyReels": ("SkyReels", None),
    "TextToVideoSD": ("ModelScope's text-to-video model", None),
    "UnCLIP": ("unCLIP", None),
    "WanImageToVideo": ("Wan from an image, whose network also takes the image's latent", None),
    "WanVACE": ("Wan VACE, whose network also takes a control video", None),
    "WanAnimate": ("Wan Animate, whose network also takes a pose and a face", None),
    "Wan": ("Wan", "Wan"),
    "Wuerstchen": ("Wuerstchen", None),
    "ZImage": ("Z-Image", None),
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
# Statistics of an autoencoder's latents that a Stable Diffusion leaves out -> what has them.
_EXTRA_STATISTICS = {
    "shift_factor": "the network was trained on latents of mean zero, as Stable Diffusion 3 and FLUX.1 have",
    "latents_mean": (
        "the network was trained on latents of unit variance by EDM preconditioning, as Playground v2.5 was"
    ),
}
_FEW_STEPS = re.compile(r"turbo|lightning|hyper-?sd|(?<![a-z])lcm|dmd2?(?![a-z])|tcd(?![a-z])", re.IGNORECASE)
_FEW_STEP_SCHEDULERS = ("LCMScheduler", "TCDScheduler")


def backbone_of(index: Config) -> tuple[str, str | None] | None:
    """What a model is, and the name of the backbone that runs it, if one does.

    Args:
        index: ``model_index.json``; may be empty.

    Returns:
        ``None`` if nothing tells.

    >>> backbone_of({"_class_name": "StableVideoDiffusionPipeline"})
    ('Stable Video Diffusion', 'StableVideoDiffusion')
    """
    name = str(index.get("_class_name", ""))
    if index.get("requires_aesthetics_score"):
        return "the refiner of Stable Diffusion XL, whose network is also told an aesthetic score", None
    known = next((known for prefix, known in _PIPELINES.items() if name.startswith(prefix)), None)
    if known is None and "transformer" in index and "unet" not in index:
        return "a model with a transformer in place of a U-Net", None
    return known


def check_pipeline(index: Config, wanted: str, needs: str, place: str) -> None:
    """Refuse a model of another kind by its name.

    Args:
        index: ``model_index.json``; may be empty.
        wanted: name of the backbone, as pipelines ask for it.
        needs: which models it runs.
        place: of the model, for the message.

    Raises:
        ValueError: saying what it is.
    """
    known = backbone_of(index)
    if known is None or known[1] == wanted:
        return
    kind, also = known
    remedy = f"Use --model.backbone {also}." if also else f"{wanted} needs {needs}."
    name = index.get("_class_name", "")
    raise ValueError(f"{place} is {kind} (model_index.json: {name}), which this backbone cannot run. {remedy}")


def check_inputs(unet: Config, vae: Config, concatenated: int, place: str, given: Collection[str] = ()) -> None:
    """Refuse a U-Net that takes more, or other things, than the backbone gives it.

    Args:
        unet: its config.
        vae: the autoencoder's config.
        concatenated: latents that the backbone concatenates to the noisy one.
        place: of the model, for the message.
        given: settings of additional inputs that the backbone gives.

    Raises:
        ValueError: naming the setting.
    """
    for key, what in _EXTRA_INPUTS.items():
        if unet.get(key) is not None and key not in given:
            raise ValueError(
                f"{place}/unet: {key} = {unet[key]!r}: the network takes {what}. This backbone does not "
                f"give it that; {key} must be null."
            )
    latent = vae.get("latent_channels", 4)
    wanted, found = latent * (1 + concatenated), unet.get("in_channels", 4)
    if found != wanted:
        extra = _EXTRA_CHANNELS.get(found - latent)
        raise ValueError(
            f"{place}/unet: in_channels = {found} must be {wanted}"
            + (f"; it also takes {extra}." if extra else f", as the autoencoder has {latent} latent channels.")
        )
    if unet.get("out_channels", 4) != latent:
        raise ValueError(
            f"{place}/unet: out_channels = {unet['out_channels']} must be {latent}, the autoencoder's latent channels."
        )
    for key, what in _EXTRA_STATISTICS.items():
        if vae.get(key) is not None:
            raise ValueError(f"{place}/vae: {key} = {vae[key]!r} must be null: {what}.")


def check_text_encoder(encoder: Config, tokenizer: Config, width: int, place: str, number: str = "") -> None:
    """Refuse a text encoder that does not fit the U-Net or the tokenizer.

    Args:
        encoder: its config.
        tokenizer: the tokenizer's config.
        width: of the U-Net's cross-attention.
        place: of the model, for the message.
        number: of the encoder, as its part's name has it, such as ``_2``.

    Raises:
        ValueError: naming the setting.
    """
    kind = encoder.get("model_type", "clip_text_model")
    if not str(kind).startswith("clip"):
        raise ValueError(f"{place}/text_encoder{number}: model_type = {kind!r} must be 'clip_text_model'.")
    text = encoder.get("text_config") or encoder
    _check_width(f"text_encoder{number}", "hidden_size", text.get("hidden_size", 512), width, place)
    tokens, places = tokenizer.get("model_max_length", 77), text.get("max_position_embeddings", 77)
    if tokens > places:
        raise ValueError(
            f"{place}/tokenizer{number}: model_max_length = {tokens} must be at most {places}, the text "
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
