"""Reading and replacing what single layers of a network give, by hooks that leave no trace.

Edits of a U-Net's attention replace the arithmetic (`zsvss.backbones.attention`). Transformers norm and rotate queries
and keys in ways of their own: here every layer runs as diffusers has it, and only its results are read or replaced.

Shape legend: b samples of a pass, n image tokens, m text tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.feature_places import Layer, Projection
from zsvss.backbones.partial_pass import ResumeState, first_tensor

Part = Literal["all", "text", "image"]
What = Literal["result", "heads", "input"]
Change = Callable[[tuple[Any, ...], Any], Any]
"""Takes a layer's arguments and its result; returns another result, or ``None`` to leave it."""


class Seam(NamedTuple):
    """A layer inside a block.

    Attributes:
        path: of the layer, inside the block.
        part: of its tokens, where text and image go through it one after the other, the text first.
        what: is read: the layer's result, one that is split into heads [b, heads, n, c], or what the layer is given.
    """

    path: str
    part: Part = "all"
    what: What = "result"

    def read(self, args: tuple[Any, ...], result: Any, num_text: int) -> Tensor:
        """The part of a layer's tokens; a copy of its own where it is one, as rotation may happen in place."""
        tokens_bnc: Tensor = args[0] if self.what == "input" else first_tensor(result)
        if self.what == "heads":
            tokens_bnc = tokens_bnc.transpose(1, 2).flatten(2)
        if self.part == "all":
            return tokens_bnc
        return (tokens_bnc[:, :num_text] if self.part == "text" else tokens_bnc[:, num_text:]).clone()


Seams = Mapping[Layer, Mapping[Projection, Seam]]


def attention_seams(
    path: str,
    part: Part = "all",
    prefix: str = "to_{}",
    output: str | None = "to_out.0",
    *,
    has_input: bool = False,
    has_norms: bool = False,
) -> dict[Projection, Seam]:
    """The seams of an attention module.

    Args:
        path: of the module, inside the block.
        part: of its tokens.
        prefix: of the projections, with their letter.
        output: layer of its output; ``None`` for none of its own.
        has_input: whether what is projected can be read: the block's tokens after its adaptive norm.
        has_norms: whether queries and keys can be read after norms of their own.
    """
    letters: dict[Projection, str] = {"query": "q", "key": "k", "value": "v"}
    seams = {name: Seam(f"{path}.{prefix.format(letter)}", part) for name, letter in letters.items()}
    if output is not None:
        seams["output"] = Seam(f"{path}.{output}", part)
    if has_input:
        seams["input"] = Seam(f"{path}.{prefix.format('q')}", part, "input")
    if has_norms:
        seams["normed_query"] = Seam(f"{path}.norm_q", part, "heads")
        seams["normed_key"] = Seam(f"{path}.norm_k", part, "heads")
    return seams


@contextmanager
def changed(changes: Iterable[tuple[nn.Module, Change]]) -> Iterator[None]:
    """Look at, or change, the results of layers while the context is open."""

    def hook(change: Change) -> Any:
        return lambda _module, args, result: change(args, result)

    with ExitStack() as stack:
        for module, change in changes:
            stack.callback(module.register_forward_hook(hook(change)).remove)
        yield


def keeping(key: FeatureKey, seam: Seam, num_text: int, kept: dict[FeatureKey, Tensor]) -> Change:
    """Keep what a seam reads of a layer."""

    def keep(args: tuple[Any, ...], result: Any) -> None:
        kept[key] = seam.read(args, result, num_text)

    return keep


def replacing(parts: Mapping[Part, Tensor]) -> Change:
    """Replace a layer's result by the tensor of all its tokens, or by those of text and image."""

    def replace(_: tuple[Any, ...], result: Tensor) -> Tensor:
        tokens = parts["all"] if "all" in parts else torch.cat([parts["text"], parts["image"]], 1)
        return tokens.to(result.dtype)

    return replace


def adding(offset_bn: Tensor) -> Change:
    """Add an offset, the same in all channels, to the image tokens: the first result of several, or the last tokens."""

    def add(_: tuple[Any, ...], result: Any) -> Any:
        if isinstance(result, tuple):
            return (add((), result[0]), *result[1:])
        num_text = result.shape[1] - offset_bn.shape[1]
        padded_bn = nn.functional.pad(offset_bn, (num_text, 0))
        return result + padded_bn.to(result.dtype)[..., None]

    return add


@contextmanager
def inputs_kept(block: nn.Module, *, has_text: bool) -> Iterator[list[ResumeState]]:
    """Keep what a block is given: its image tokens and, if the text has a stream of its own, its text tokens."""
    kept: list[ResumeState] = []

    def keep(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        kept.append(ResumeState(hidden, None, (kwargs["encoder_hidden_states"],) if has_text else ()))

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def begun_at(
    blocks: Sequence[nn.Module], first: int, state: ResumeState, returned: Callable[[Tensor, Any], Any]
) -> Iterator[None]:
    """Run a network from one of its blocks on: those before it only hand on what they are given.

    Args:
        blocks: all of the network's.
        first: the first one that is run.
        state: what it is given.
        returned: makes a block's result of image and text tokens.
    """

    def hand_on(hidden_states: Tensor, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        return returned(hidden_states, encoder_hidden_states)

    def give(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = {"hidden_states": state.hidden}
        if state.skips:
            given["encoder_hidden_states"] = state.skips[0]
        if "hidden_states" not in kwargs:
            args = (given.pop("hidden_states"), *args[1:])
        return args, {**kwargs, **given}

    handle = blocks[first].register_forward_pre_hook(give, with_kwargs=True)
    try:
        for block in blocks[:first]:
            block.forward = hand_on
        yield
    finally:
        handle.remove()
        for block in blocks[:first]:
            block.__dict__.pop("forward", None)
