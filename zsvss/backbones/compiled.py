"""The modulated passes of a U-Net as compiled graphs of one shape, so that nothing compiles anew between steps.

What is injected reaches the graphs as their inputs: each attention layer has one processor for good, and a pass only
gives it other tensors. Batches are filled up to one size. The feature pass, of which there is one a clip, is not
compiled: what it records differs from step to step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zsvss.backbones.attention import AttentionEdit, EditedAttentionProcessor
from zsvss.backbones.resume import ResumeState, run_behind


class CompiledPasses:
    """Whole passes and resumed passes, each a graph without a break.

    Args:
        unet: gets attention processors that stay.
        backend: of ``torch.compile``.
        mode: ``reduce-overhead`` replays the graphs on a GPU as CUDA graphs; anything else is the default mode.
    """

    def __init__(self, unet: Any, backend: Any = "inductor", mode: bool | str = True) -> None:
        unet.set_attn_processor({name: EditedAttentionProcessor(AttentionEdit()) for name in unet.attn_processors})
        self._is_replayed = isinstance(mode, str)
        named = mode if isinstance(mode, str) else None
        self._whole: Any = torch.compile(unet.forward, fullgraph=True, dynamic=False, backend=backend, mode=named)
        self._behind: Any = torch.compile(run_behind, fullgraph=True, dynamic=False, backend=backend, mode=named)

    def whole(self, **inputs: Any) -> Tensor:
        """The network's output; arguments are the network's own."""
        return self._kept(self._whole(**inputs, return_dict=False)[0])

    def behind(
        self, state: ResumeState, unet: Any, block: int, resnet_options: dict[str, Any], options: dict[str, Any]
    ) -> Tensor:
        """See :func:`zsvss.backbones.resume.run_behind`."""
        return self._kept(self._behind(state, unet, block, resnet_options, options))

    def _kept(self, output: Tensor) -> Tensor:
        """The output, out of the memory of a CUDA graph, which its next replay writes to."""
        return output.clone() if self._is_replayed else output
