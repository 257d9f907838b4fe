"""Transformers that are told their prompt by one T5 text encoder alone.

Shape legend: T frames of a clip, H W pixels, m text tokens, c channels, G = 2 guidance halves (unconditional first).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import ClipNoise, Conditioning
from zsvss.backbones.empty_prompt import check_embedding, check_t5
from zsvss.backbones.transformer import TransformerBackbone


class T5Prompted(TransformerBackbone):
    """A transformer with T5's empty prompt, which its folder may hold embedded.

    Attributes:
        prompt_width: setting of the transformer's config that is the width of the text, and its default.
    """

    prompt_width: ClassVar[tuple[str, int]]
    context_Gmc: Tensor

    @override
    def encoder_parts(self) -> tuple[str, ...]:
        return () if self._context() else ("text_encoder",)

    @override
    def check_conditioner(self) -> None:
        setting, default = self.prompt_width
        width = int(self.source.config("transformer").get(setting) or default)
        context: Mapping[str, Tensor] = self._context()
        if context:
            check_embedding(context, {"cond": width}, self.source.name)
        else:
            check_t5(self.source, "text_encoder", width, setting)

    @override
    @abstractmethod
    def load_conditioner(self) -> None:
        """Embed the empty prompt, or take the folder's embedding, at the length that the transformer wants."""

    @override
    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(self.context_Gmc)
