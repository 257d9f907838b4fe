"""Recording, injecting and modulating attention, without leaving a trace in the network.

Every edit goes through diffusers' public attention-processor interface: :func:`edited_attention` puts processors in
place for one call of the network and puts the old ones back, also when an exception leaves the block. The layers are
asked one by one: the network's own way walks through all its modules at every pass.

Shape legend: B samples of the network's batch, U attention maps that they share, n query tokens, m key tokens,
c channels, N heads, d channels of a head, g samples of one map, x = g d.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from zsvss.backbones.feature_places import Projection

_QUERY_CHUNK_SIZE = 256  # whose part of a shared map, of all heads, is held at a time


class _HasAttentionProcessors(Protocol):
    """The part of a diffusers network that edits rely on."""

    @property
    def attn_processors(self) -> dict[str, Any]: ...

    def get_submodule(self, target: str) -> torch.nn.Module: ...


@dataclass
class AttentionEdit:
    """What to do to one attention layer during one call; the default leaves its arithmetic as it is.

    Attributes:
        record: projections to keep; they appear in ``recorded`` after the call.
        replace: what to use in place of the layer's own query [B, n, c] and key [B, m, c], before the head split, and
            output [B, n, c]; with the output, nothing else of the layer is computed.
        shared_map_B: int64 index into the replaced query and key, which then hold a row for each attention map, and not
            for each sample.
        offset_Bn: is added to every channel of the output, after ``to_out`` and before the residual.
        recorded: projection -> tensor [B, n or m, c] of the last call.
    """

    record: frozenset[Projection] = frozenset()
    replace: dict[Projection, Tensor] = field(default_factory=dict)
    shared_map_B: Tensor | None = None
    offset_Bn: Tensor | None = None
    recorded: dict[Projection, Tensor] = field(default_factory=dict)


class EditedAttentionProcessor:
    """Scaled-dot-product attention with the seams that :class:`AttentionEdit` names."""

    def __init__(self, edit: AttentionEdit) -> None:
        self.edit = edit

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        """Attend, as diffusers' default processor does for a transformer block without masks or extra norms."""
        edit = self.edit
        replace = {projection: tensor.to(hidden_states.dtype) for projection, tensor in edit.replace.items()}
        if "output" in replace:
            output_Bnc = replace["output"]
        else:
            context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            query = replace["query"] if "query" in replace else attn.to_q(hidden_states)
            self._keep(query=query)  # a pass may end here
            key = replace["key"] if "key" in replace else attn.to_k(context)
            value = attn.to_v(context)
            if edit.shared_map_B is None:
                attended = _attend(query, key, value, attn.heads)
            else:
                attended = _attend_with_shared_maps(query, key, value, edit.shared_map_B, attn.heads)
            output_Bnc = attn.to_out[1](attn.to_out[0](attended)) / attn.rescale_output_factor
            self._keep(key=key, value=value, output=output_Bnc)
        if edit.offset_Bn is not None:
            output_Bnc = output_Bnc + edit.offset_Bn.to(output_Bnc.dtype)[..., None]
        return output_Bnc

    def _keep(self, **tensors: Tensor) -> None:
        for projection in self.edit.record & tensors.keys():
            self.edit.recorded[projection] = tensors[projection]


def _attend(query_Bnc: Tensor, key_Bmc: Tensor, value_Bmc: Tensor, num_heads: int) -> Tensor:
    """Multi-head scaled-dot-product attention [B, n, c]."""
    query, key, value = (
        tensor.unflatten(-1, (num_heads, -1)).transpose(1, 2) for tensor in (query_Bnc, key_Bmc, value_Bmc)
    )
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _attend_with_shared_maps(
    query_Unc: Tensor, key_Umc: Tensor, value_Bmc: Tensor, shared_map_B: Tensor, num_heads: int
) -> Tensor:
    """:func:`_attend`, with each map computed once and applied to the values of all its samples side by side."""
    heads = (num_heads, value_Bmc.shape[-1] // num_heads)
    output_Bnc = value_Bmc.new_empty(len(value_Bmc), query_Unc.shape[1], value_Bmc.shape[-1])
    for index, (query_nc, key_mc) in enumerate(zip(query_Unc, key_Umc, strict=True)):
        samples_g = (shared_map_B == index).nonzero()[:, 0]
        query_Nnd = query_nc.unflatten(-1, heads).transpose(0, 1) * heads[1] ** -0.5
        key_Ndm = key_mc.unflatten(-1, heads).permute(1, 2, 0)
        value_Nmgd = value_Bmc[samples_g].unflatten(-1, heads).permute(2, 1, 0, 3)
        value_Nmx = value_Nmgd.flatten(2)
        parts = [(part @ key_Ndm).softmax(-1) @ value_Nmx for part in query_Nnd.split(_QUERY_CHUNK_SIZE, 1)]
        output_Nngd = torch.cat(parts, 1).unflatten(-1, value_Nmgd.shape[2:])
        output_Bnc[samples_g] = output_Nngd.permute(2, 1, 0, 3).flatten(2)
    return output_Bnc


@contextmanager
def edited_attention(network: _HasAttentionProcessors, edits: Mapping[str, AttentionEdit]) -> Iterator[None]:
    """Apply edits to attention layers while the context is open.

    Args:
        network: a diffusers U-Net.
        edits: path of an attention module (``up_blocks.1.attentions.0.transformer_blocks.0.attn1``) -> its edit.

    Raises:
        KeyError: if the network has no attention layer of that path.
    """
    kept: list[tuple[EditedAttentionProcessor, AttentionEdit]] = []
    replaced: list[tuple[Any, Any, AttentionEdit]] = []
    layers = [_attention_layer(network, path) for path in edits]
    for layer, edit in zip(layers, edits.values(), strict=True):
        if isinstance(layer.processor, EditedAttentionProcessor):  # that stays, as in a compiled network
            kept.append((layer.processor, layer.processor.edit))
            layer.processor.edit = edit
        else:
            replaced.append((layer, layer.processor, edit))
    for layer, _, edit in replaced:
        layer.set_processor(EditedAttentionProcessor(edit))
    try:
        yield
    finally:
        for processor, edit in kept:
            processor.edit = edit
        for layer, processor, _ in replaced:
            layer.set_processor(processor)


def _attention_layer(network: _HasAttentionProcessors, path: str) -> Any:
    try:
        layer: Any = network.get_submodule(path)
    except AttributeError:
        layer = None
    if not hasattr(layer, "set_processor"):
        raise KeyError(f"the network has no attention layer {path!r}; it has {sorted(network.attn_processors)}")
    return layer


@contextmanager
def captured_calls(modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, tuple[dict[str, Any], Any]]]:
    """Keep the keyword arguments and the result of each module's last call while the context is open.

    Yields:
        name -> (keyword arguments, result), filled as the modules are called.
    """
    calls: dict[str, tuple[dict[str, Any], Any]] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _args: Any, kwargs: dict[str, Any], result: Any) -> None:
            calls[name] = (kwargs, result)

        return hook

    handles = [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _EndOfPassSignal(BaseException):
    """Control flow, not an error: the last module whose result is wanted has been run."""


@contextmanager
def ending_behind(module: torch.nn.Module) -> Iterator[None]:
    """Leave the context as soon as ``module`` has been called."""

    def end(*_: Any) -> None:
        raise _EndOfPassSignal

    handle = module.register_forward_hook(end)
    try:
        yield
    except _EndOfPassSignal:
        pass
    finally:
        handle.remove()
