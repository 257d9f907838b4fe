"""The modulated passes of a U-Net as compiled graphs of one shape, so that nothing compiles anew between steps.

What is injected reaches the graphs as their inputs: each attention layer has one processor for good, and a pass only
gives it other tensors. Batches are filled up to one size. The feature pass, of which there is one a clip, is not
compiled: what it records differs from step to step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit

from zsvss.backbones.attention import AttentionEdit, EditedAttentionProcessor
from zsvss.backbones.partial_pass import ResumeState, run_behind

_log = logging.getLogger(__name__)


class CompiledPasses:
    """Whole passes and resumed passes, each a graph without a break for every shape of its inputs.

    PyTorch compiles a function for eight shapes (``torch._dynamo.config.recompile_limit``); passes of further ones run
    as they are, and the log says so.

    Args:
        unet: gets attention processors that stay.
        backend: of ``torch.compile``.
        mode: ``reduce-overhead`` replays the graphs on a GPU as CUDA graphs; anything else is the default mode.
    """

    def __init__(self, unet: Any, backend: Any = "inductor", mode: bool | str = True) -> None:
        unet.set_attn_processor({name: EditedAttentionProcessor(AttentionEdit()) for name in unet.attn_processors})
        self._is_replayed = isinstance(mode, str)
        named = mode if isinstance(mode, str) else None
        self._plain = {"whole": unet.forward, "behind": run_behind}
        self._compiled: dict[str, Any] = {
            name: torch.compile(function, fullgraph=True, dynamic=False, backend=backend, mode=named)
            for name, function in self._plain.items()
        }
        self._refused: set[tuple[Any, ...]] = set()

    def whole(self, **inputs: Any) -> Tensor:
        """The network's output; arguments are the network's own."""
        key = ("whole", inputs["sample"].shape)
        return self._run(key, lambda function: function(**inputs, return_dict=False)[0])

    def behind(
        self, state: ResumeState, unet: Any, block: int, resnet_options: dict[str, Any], options: dict[str, Any]
    ) -> Tensor:
        """See :func:`zsvss.backbones.partial_pass.run_behind`."""
        key = ("behind", state.hidden.shape, block)
        return self._run(key, lambda function: function(state, unet, block, resnet_options, options))

    def _run(self, key: tuple[Any, ...], call: Callable[[Any], Tensor]) -> Tensor:
        """What a function returns, compiled unless PyTorch has refused to compile it for these inputs."""
        name, shape, *_ = key
        if key not in self._refused:
            try:
                return self._kept(call(self._compiled[name]))
            except FailOnRecompileLimitHit:
                self._refused.add(key)
                _log.warning(
                    "passes of shape %s run without being compiled: PyTorch compiles for %d shapes",
                    list(shape),
                    torch._dynamo.config.recompile_limit,
                )
        return call(self._plain[name])

    def _kept(self, output: Tensor) -> Tensor:
        """The output, out of the memory of a CUDA graph, which its next replay writes to."""
        return output.clone() if self._is_replayed else output
