"""Networks that lie on a device in turns, where its memory does not hold them side by side.

The weights of a frozen model never change. So the host keeps its own for good, in pinned memory: a turn begins with a
copy that nobody waits for, and ends without one, as what lies on the device is dropped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.backbones.batching import is_out_of_memory

Conversion = Callable[[Tensor], Tensor]
"""Changes the device or the type of a tensor."""

_DO_NOT_FIT = (
    "The networks of {} do not fit there side by side: with --model.backbone.offload true they lie there in turns."
)


class TurnTaking(Backbone):
    """A backbone whose networks can lie on the device in turns, and in the host's memory otherwise.

    On a CPU there is nothing to be moved, and nothing is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turns_on = torch.device("cpu")
        self._on_host: dict[str, dict[str, Tensor]] = {}
        self._present: str | None = None

    @property
    @abstractmethod
    def in_turns(self) -> tuple[str, ...]:
        """Attributes that hold the networks that take turns, if they do; they need not be there."""

    @property
    @override
    def device(self) -> torch.device:
        return self._turns_on if self.takes_turns else super().device

    def turn_of(self, name: str) -> None:
        """Have a network on the device; if networks take turns, in place of the one that was there.

        Args:
            name: of the attribute.

        Raises:
            RuntimeError: PyTorch's own, if the device's memory does not hold it; none lies there then.
        """
        if not self._on_host or self._present == name:
            return
        self._end_turn()
        with torch.inference_mode(mode=False):  # weights outlive the block in which a turn begins
            moved = {key: weight.to(self._turns_on, non_blocking=True) for key, weight in self._on_host[name].items()}
            _put(getattr(self, name), moved)
        self._present = name

    def _end_turn(self) -> None:
        if self._present is not None:
            with torch.inference_mode(mode=False):
                _put(getattr(self, self._present), self._on_host[self._present])
            self._present = None

    @contextmanager
    def moving(self, fn: Conversion) -> Iterator[Conversion]:
        """Convert all weights while the context is open.

        Args:
            fn: a conversion of the whole model, which may move it.

        Yields:
            The conversion to be applied: where networks take turns it leaves them in the host's memory, and changes
            their type alone.

        Raises:
            RuntimeError: PyTorch's own, if memory runs out; it then tells how to make do with less.
        """
        if self.takes_turns:
            yield from self._moving_in_turns(fn)
            return
        try:
            yield fn
        except RuntimeError as error:
            if is_out_of_memory(error):
                error.args = (f"{error} {_DO_NOT_FIT.format(type(self).__name__)}",)
            raise

    def _moving_in_turns(self, fn: Conversion) -> Iterator[Conversion]:
        self._end_turn()
        self._on_host = {}
        self._turns_on = fn(torch.empty(0, device=self._turns_on)).device
        networks = {name: getattr(self, name) for name in self.in_turns if getattr(self, name, None) is not None}
        here = {id(weight) for network in networks.values() for weight in _weights(network).values()}
        yield lambda weight: weight.to(fn(weight.new_empty(0)).dtype) if id(weight) in here else fn(weight)
        if self._turns_on.type != "cpu":
            for name, network in networks.items():
                self._on_host[name] = {key: _pinned(weight) for key, weight in _weights(network).items()}
                _put(network, self._on_host[name])


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(chain(network.named_parameters(), network.named_buffers()))


def _put(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network other tensors, by the names of its weights."""
    by_id = {id(weight): tensors[name] for name, weight in _weights(network).items()}
    network._apply(lambda weight: by_id[id(weight)])


def _pinned(tensor: Tensor) -> Tensor:
    """The numbers of a weight of the host in pinned memory, in its own layout.

    They are never the parameter itself, which a turn gives others.
    """
    numbers = tensor.detach()
    return numbers if numbers.is_pinned() else torch.empty_like(numbers, pin_memory=True).copy_(numbers)
