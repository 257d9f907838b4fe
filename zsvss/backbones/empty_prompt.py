"""The empty prompt, as the text encoders of diffusion models see it.

Nothing else is ever embedded, and that once: an encoder is read, run on the CPU and forgotten.

Shape legend: m text tokens, c channels.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from zsvss.backbones.checks import Config, check_text_encoder
from zsvss.backbones.weights import WeightsSource


class PromptEmbedding(NamedTuple):
    """What a text encoder makes of the empty prompt, float32.

    Attributes:
        last_1mc: its last hidden states, after the final norm.
        penultimate_1mc: the ones before the last layer, without a norm.
        pooled_1c: of the whole prompt, projected where the encoder has a projection.
    """

    last_1mc: Tensor
    penultimate_1mc: Tensor
    pooled_1c: Tensor


def clip_embedding(
    source: WeightsSource, encoder_part: str = "text_encoder", *, is_projected: bool = False
) -> PromptEmbedding:
    """The empty prompt by a CLIP text encoder.

    Args:
        source: of the weights.
        encoder_part: ``text_encoder`` or ``text_encoder_2``; the tokenizer is the one of that number.
        is_projected: whether the encoder has a projection.

    Raises:
        ValueError: if the tokenizer is that of another model.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer_part = encoder_part.replace("text_encoder", "tokenizer")
    ids_1m = source.empty_prompt(tokenizer_part)
    encoder = source.load(CLIPTextModelWithProjection if is_projected else CLIPTextModel, encoder_part)
    if int(ids_1m.max()) >= encoder.config.vocab_size:
        raise ValueError(
            f"{source.name}/{tokenizer_part} has the token {int(ids_1m.max())}, and the text encoder knows only "
            f"{encoder.config.vocab_size}: they are of different models."
        )
    with torch.no_grad():
        output = encoder(ids_1m, output_hidden_states=True)
    pooled_1c = output.text_embeds if is_projected else output.pooler_output
    embedding = PromptEmbedding(output.last_hidden_state, output.hidden_states[-2], pooled_1c)
    del encoder  # used once: its memory is worth more than its presence
    gc.collect()
    return embedding


def t5_embedding(
    source: WeightsSource, encoder_part: str = "text_encoder", *, length: int, is_masked: bool = False
) -> Tensor:
    """The empty prompt by a T5 or UMT5 text encoder [1, m, c], float32.

    Its token ids are known: the end, and padding up to the length. The tokenizer is not read.

    Args:
        source: of the weights.
        encoder_part: ``text_encoder``, ``text_encoder_2`` or ``text_encoder_3``.
        length: tokens to which the prompt is padded.
        is_masked: whether padding is kept from attention; then only the end is embedded, which comes to the same.
    """
    from transformers import T5EncoderModel, UMT5EncoderModel

    is_multilingual = source.config(encoder_part).get("model_type") == "umt5"
    encoder = source.load(UMT5EncoderModel if is_multilingual else T5EncoderModel, encoder_part)
    ids_1m = torch.full((1, 1 if is_masked else length), encoder.config.pad_token_id)
    ids_1m[0, 0] = encoder.config.eos_token_id
    with torch.no_grad():
        embedding_1mc: Tensor = encoder(ids_1m).last_hidden_state
    del encoder  # used once: its memory is worth more than its presence
    gc.collect()
    return embedding_1mc


def t5_width(config: Config, part: str, place: str) -> int:
    """Channels of a T5 text encoder, by its config.

    Raises:
        ValueError: if it is another kind of encoder.
    """
    kind = config.get("model_type")
    if kind not in ("t5", "umt5"):
        raise ValueError(f"{place}/{part}: model_type = {kind!r} must be 't5' or 'umt5'.")
    return int(config["d_model"])


def check_t5(source: WeightsSource, part: str, width: int, setting: str) -> None:
    """Refuse a T5 text encoder whose channels are not what the transformer takes.

    Args:
        source: of the weights.
        part: which encoder.
        width: channels that the transformer takes.
        setting: of the transformer's config that says so, for the message.

    Raises:
        ValueError: saying which width it must have.
    """
    found = t5_width(source.config(part), part, source.name)
    if found != width:
        raise ValueError(
            f"{source.name}/{part}: d_model = {found} must be {width}, the transformer's {setting}: they are of "
            "different models."
        )


def clip_widths(source: WeightsSource, part: str) -> tuple[int, int]:
    """Channels and projected channels of a CLIP text encoder that fits its tokenizer, by the configs.

    Raises:
        ValueError: if it is another kind of encoder, or knows fewer places than the tokenizer gives.
    """
    number = part.removeprefix("text_encoder")
    config = source.config(part)
    width = int(config.get("hidden_size", 512))
    check_text_encoder(config, source.config(f"tokenizer{number}"), width, source.name, number)
    return width, int(config.get("projection_dim", 512))


def check_embedding(context: Mapping[str, Tensor], widths: Mapping[str, int], place: str) -> None:
    """Refuse a ``context.safetensors`` without these tensors, or with others.

    Args:
        context: what it holds.
        widths: name -> channels.
        place: of the model, for the message.

    Raises:
        ValueError: saying what it must hold.
    """
    if any(name not in context or context[name].shape[-1] != width for name, width in widths.items()):
        found = {name: tuple(tensor.shape) for name, tensor in context.items()}
        wanted = " and ".join(f"{name!r} of {width} channels" for name, width in widths.items())
        raise ValueError(f"{place}/context.safetensors must hold {wanted}; found {found}.")
