"""Partial forward passes: runs only the part of a U-Net after one output block.

Masked modulation adds a number that is constant over the channels to the output of an attention layer. The layer norms
after it remove it, so the modulated block's output is the recorded one plus that number times the row sums of the
block's last projection, and everything up to that block need not be computed again.

Shape legend: b samples of the network's batch, T frames, c channels, h w latent cells, n tokens, G = 2 guidance halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zsvss.backbones.host_memory import joined, picked, to_host
from zsvss.backbones.samples import Samples
from zsvss.backbones.unet_layout import has_attention, output_block, position

Calls = Mapping[str, tuple[dict[str, Any], Any]]


class ResumeState(NamedTuple):
    """What the blocks after the modulated one consume; leading dimensions [b], or [G, T] when joined.

    Attributes:
        hidden: output of the modulated block; of a transformer, the image tokens that it is given.
        time_embedding: of every sample; ``None`` where it is computed anew.
        skips: from the encoder, in the order of their use; of a transformer, the text tokens that the block is given.
    """

    hidden: Tensor
    time_embedding: Tensor | None
    skips: tuple[Tensor, ...]

    def to_host(self) -> ResumeState:
        """The same in the host's memory."""
        time_embedding = None if self.time_embedding is None else to_host(self.time_embedding)
        return ResumeState(to_host(self.hidden), time_embedding, tuple(to_host(skip) for skip in self.skips))


def watched_modules(unet: Any, block: int) -> dict[str, nn.Module]:
    """Modules whose calls :func:`resume_state` needs."""
    first, _ = position(unet, block)
    modules = {f"up block {i}": unet.up_blocks[i] for i in range(first, len(unet.up_blocks))}
    return {**modules, "modulated": output_block(unet, block)}


def resume_state(calls: Calls, unet: Any, block: int) -> ResumeState:
    """Read the state after ``block`` off the captured calls of one pass."""
    first, layer = position(unet, block)
    skips: list[Tensor] = []
    for i in range(first, len(unet.up_blocks)):
        in_order = calls[f"up block {i}"][0]["res_hidden_states_tuple"][::-1]
        skips += in_order[layer + 1 :] if i == first else in_order
    hidden = first_tensor(calls["modulated"][1])
    time_embedding = calls[f"up block {first}"][0]["temb"].expand(len(hidden), -1)
    return ResumeState(hidden, time_embedding, tuple(skips))


def join(states: Sequence[ResumeState], num_frames: int) -> ResumeState:
    """Join the states of the passes that together hold all halves of the clip: leading dimensions [G, T]."""
    hidden, time_embedding, skips = zip(*states, strict=True)
    return ResumeState(
        joined(hidden).unflatten(0, (-1, num_frames)),
        None if time_embedding[0] is None else joined(time_embedding).unflatten(0, (-1, num_frames)),
        tuple(joined(parts).unflatten(0, (-1, num_frames)) for parts in zip(*skips, strict=True)),
    )


def select(state: ResumeState, samples: Samples) -> ResumeState:
    """Pick samples out of a joined state."""
    return ResumeState(
        picked(state.hidden, samples),
        None if state.time_embedding is None else picked(state.time_embedding, samples),
        tuple(picked(skip, samples) for skip in state.skips),
    )


def modulated(state: ResumeState, unet: Any, block: int, offset_bn: Tensor) -> ResumeState:
    """Add what an offset to the attention output of ``block`` makes of the block's output.

    Args:
        state: of the samples.
        unet: the network.
        block: the modulated output block.
        offset_bn: what reaches the block's last projection, on its token grid.
    """
    row_sums_c = output_block(unet, block).proj_out.weight.flatten(1).float().sum(1)
    shift_bcn = offset_bn.float()[:, None] * row_sums_c[:, None]
    hidden = state.hidden + shift_bcn.unflatten(2, state.hidden.shape[-2:]).to(state.hidden.dtype)
    return state._replace(hidden=hidden)


def run_behind(
    state: ResumeState, unet: Any, block: int, resnet_options: dict[str, Any], attention_options: dict[str, Any]
) -> Tensor:
    """Run the U-Net from after ``block`` to its end.

    Args:
        state: of the samples.
        unet: the network.
        block: last output block that is not run.
        resnet_options: keyword arguments of every residual block.
        attention_options: keyword arguments of every transformer.

    Returns:
        The network's output [b, c, h, w].
    """
    hidden, skips = state.hidden, list(state.skips)
    first, layer = position(unet, block)
    for i in range(first, len(unet.up_blocks)):
        up_block = unet.up_blocks[i]
        for j in range(layer + 1 if i == first else 0, len(up_block.resnets)):
            hidden = up_block.resnets[j](torch.cat([hidden, skips.pop(0)], 1), state.time_embedding, **resnet_options)
            if has_attention(up_block):
                hidden = up_block.attentions[j](hidden, return_dict=False, **attention_options)[0]
        for upsampler in up_block.upsamplers or ():
            hidden = upsampler(hidden)
    output: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
    return output


def first_tensor(result: Any) -> Tensor:
    """A module's tensor, out of the tuple that some return it in."""
    tensor: Tensor = result[0] if isinstance(result, tuple) else result
    return tensor
