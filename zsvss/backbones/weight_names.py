"""Names of the files of a model in diffusers' layout."""

from __future__ import annotations


def path_of(part: str, filename: str) -> str:
    """Path of a file in the model; part ``.`` is the model itself.

    >>> path_of("unet", "config.json"), path_of(".", "model_index.json")
    ('unet/config.json', 'model_index.json')
    """
    return f"{part}/{filename}".removeprefix("./")


def is_encoder(part: str) -> bool:
    """Whether a part is a network of transformers and not of diffusers."""
    return part.startswith(("text_encoder", "image_encoder"))


def weight_names(part: str, variant: str | None) -> tuple[str, str]:
    """Paths of the single file and of the index of several, one of which a part must have.

    >>> weight_names("vae", "fp16")[1]
    'vae/diffusion_pytorch_model.safetensors.index.fp16.json'
    """
    stem, dotted = _stem(part), f".{variant}" if variant else ""
    return path_of(part, f"{stem}{dotted}.safetensors"), path_of(part, f"{stem}.safetensors.index{dotted}.json")


def all_names(part: str, variant: str | None) -> list[str]:
    """The same, and the several files as they are commonly named; ``?`` stands for any character.

    A pattern fits no file of another variant.

    >>> all_names("text_encoder", None)[2:]
    ['text_encoder/model-?????-of-?????.safetensors']
    """
    stem, number = _stem(part), "-?????-of-?????"
    several = [f"{stem}.{variant}{number}", f"{stem}{number}.{variant}"] if variant else [f"{stem}{number}"]
    return [*weight_names(part, variant), *(path_of(part, f"{name}.safetensors") for name in several)]


def _stem(part: str) -> str:
    """What the names of a part's weights begin with."""
    return "model" if is_encoder(part) else "diffusion_pytorch_model"
