"""Records named tensors in the forward passes of a U-Net and joins those of all passes.

Shape legend: b samples of a pass, B rows, S sequences of T frames each, h w latent cells, n tokens, c channels,
G = 2 guidance halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from zsvss.backbones.attention import AttentionEdit, captured_calls, edited_attention
from zsvss.backbones.base import FeatureKey
from zsvss.backbones.feature_places import Layer
from zsvss.backbones.host_memory import joined, to_host
from zsvss.backbones.partial_pass import ResumeState, first_tensor, join
from zsvss.backbones.unet_layout import output_block


class RecordedPass(NamedTuple):
    """What a pass gives; leading dimensions [b], or [G, T] when all passes of a step are joined.

    Attributes:
        output: of the network, float32 [..., c, h, w]; empty where the pass ended before it.
        tensors: what was recorded, [..., n, c].
        state: after the modulated block; ``None`` but at the modulated step.
    """

    output: Tensor
    tensors: dict[FeatureKey, Tensor]
    state: ResumeState | None

    def to_host(self) -> RecordedPass:
        """The same with what was recorded in the host's memory."""
        tensors = {key: to_host(tensor) for key, tensor in self.tensors.items()}
        return RecordedPass(self.output, tensors, self.state and self.state.to_host())


@contextmanager
def recorded(unet: Any, paths: Mapping[FeatureKey, str | None], num_samples: int) -> Iterator[dict[FeatureKey, Tensor]]:
    """Record tensors of the one pass that runs while the context is open.

    Args:
        unet: the network.
        paths: what to record -> path of its attention module or transformer block, or ``None`` for the output of a
            whole output block.
        num_samples: of the pass.

    Yields:
        key -> tensor [b, n, c], filled when the context closes without an exception.
    """
    tensors: dict[FeatureKey, Tensor] = {}
    edits: dict[str, AttentionEdit] = {}
    watched: dict[str, nn.Module] = {}
    for key, path in paths.items():
        if path is None:
            watched[f"block {key.block}"] = output_block(unet, key.block)
        elif key.layer == "transformer":
            watched[path] = unet.get_submodule(path)
        else:
            edit = edits.setdefault(path, AttentionEdit())
            edit.record |= {key.projection}
    with edited_attention(unet, edits), captured_calls(watched) as calls:
        yield tensors
    for key, path in paths.items():
        if path is None:
            tensors[key] = first_tensor(calls[f"block {key.block}"][1]).flatten(2).transpose(1, 2)
        elif key.layer == "transformer":
            tensors[key] = first_tensor(calls[path][1])
        else:
            tensors[key] = by_frame(edits[path].recorded[key.projection], key.layer, num_samples)


def last_module(unet: Any, paths: Mapping[FeatureKey, str | None]) -> nn.Module:
    """The module after whose call everything is recorded: of the last block as little is run as will do.

    Args:
        unet: the network.
        paths: as :func:`recorded` takes them.
    """
    block = max((key.block for key in paths), default=0)
    of_block = [key for key in paths if key.block == block]
    last: nn.Module = output_block(unet, block)
    if {(key.layer, key.projection) for key in of_block} == {("self", "query")}:
        deepest = max(of_block, key=lambda key: key.depth)
        last = unet.get_submodule(f"{paths[deepest]}.to_k")  # asked for when the query is kept
    return last


def join_passes(passes: Sequence[RecordedPass], num_frames: int) -> RecordedPass:
    """Join all passes of a step."""
    outputs, tensors, states = zip(*passes, strict=True)
    state = join(states, num_frames) if states[0] is not None else None
    return RecordedPass(by_half(outputs, num_frames), by_key(tensors, num_frames), state)


def by_key(passes: Sequence[Mapping[FeatureKey, Tensor]], num_frames: int) -> dict[FeatureKey, Tensor]:
    """Join what all passes recorded into [G, T, n, c]."""
    return {key: by_half([tensors[key] for tensors in passes], num_frames) for key in passes[0]}


def by_half(tensors_b: Sequence[Tensor], num_rows: int) -> Tensor:
    """Join passes into [G, B, ...]."""
    joined_GB: Tensor = joined(tensors_b).unflatten(0, (-1, num_rows))
    return joined_GB


def as_in_layer(tensor_bnc: Tensor, layer: Layer, num_frames: int) -> Tensor:
    """Rearrange [S T, n, c] as temporal layers have it, [S n, T, c]; other layers have it as it is."""
    if not layer.startswith("temporal"):
        return tensor_bnc
    tensor_STnc = tensor_bnc.reshape(-1, num_frames, *tensor_bnc.shape[1:])
    return tensor_STnc.transpose(1, 2).flatten(0, 1)


def by_frame(tensor: Tensor, layer: Layer, num_samples: int) -> Tensor:
    """Undo :func:`as_in_layer`; returns [b, n, c]."""
    if not layer.startswith("temporal"):
        return tensor
    num_frames = tensor.shape[1]
    tensor_SnTc = tensor.reshape(num_samples // num_frames, -1, *tensor.shape[1:])
    return tensor_SnTc.transpose(1, 2).flatten(0, 1)
