"""The empty prompt, as the text encoders of diffusion models see it.

Nothing else is ever embedded, and that once: an encoder is read, run on the CPU and forgotten.

Shape legend: m text tokens, c channels.
"""

from __future__ import annotations

import gc
from typing import NamedTuple

import torch
from torch import Tensor

from zsvss.backbones.weights import WeightsSource


class PromptEmbedding(NamedTuple):
    """What a text encoder makes of the empty prompt, float32.

    Attributes:
        last_1mc: its last hidden states, behind the final norm.
        penultimate_1mc: the ones before the last layer, without a norm.
        pooled_1c: the projected embedding of the whole prompt; ``None`` where the encoder has no projection.
    """

    last_1mc: Tensor
    penultimate_1mc: Tensor
    pooled_1c: Tensor | None


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
    embedding = PromptEmbedding(
        output.last_hidden_state, output.hidden_states[-2], getattr(output, "text_embeds", None)
    )
    del encoder  # used once: its memory is worth more than its presence
    gc.collect()
    return embedding
