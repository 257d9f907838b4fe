"""Nearest-neighbour upsampling and the convolution after it as one operation.

Shape legend: b images, c input channels, d output channels, h w cells.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional


class MergedUpsampling(nn.Module):
    """Doubles height and width and convolves, with 4/9 of the multiplications and without the enlarged input.

    Of the nine cells that the 3x3 kernel meets after a nearest-neighbour upsampling, at most four differ. Adding up
    the weights that meet the same cell gives a transposed convolution of kernel 4 and stride 2.

    On a CPU only: of the algorithms that cuDNN has for transposed convolutions, some add up in another order each time.
    Elsewhere the plain layer runs and the added weights take no memory.

    Args:
        plain: diffusers' layer of this purpose, with a 3x3 convolution and no norm.
    """

    weight_cd44: Tensor | None

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain
        self.register_buffer("weight_cd44", self._added(), persistent=False)

    def _added(self) -> Tensor:
        """The added weights [c, d, 4, 4]."""
        weight_dc33 = self.plain.conv.weight.detach()
        ones = torch.ones(1, 1, 2, 2, dtype=torch.float64)
        mirrored = weight_dc33.double().transpose(0, 1).flip(2, 3).flatten(0, 1)[:, None]
        weight_cd44 = functional.conv_transpose2d(mirrored, ones).unflatten(0, weight_dc33.shape[1::-1])[:, :, 0]
        added: Tensor = weight_cd44.to(weight_dc33)
        return added

    def _apply(self, fn: Any, recurse: bool = True) -> MergedUpsampling:
        nn.Module._apply(self, fn, recurse)
        if self.plain.conv.weight.device.type != "cpu":
            self.weight_cd44 = None
        elif self.weight_cd44 is None:
            self.weight_cd44 = self._added()
        return self

    def forward(self, hidden_bchw: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
        """Return [b, d, 2 h, 2 w]; another ``output_size``, and another device, take the plain way."""
        height, width = hidden_bchw.shape[-2:]
        is_double = output_size is None or tuple(output_size) == (2 * height, 2 * width)
        if self.weight_cd44 is None or not is_double:
            enlarged: Tensor = self.plain(hidden_bchw, output_size)
            return enlarged
        return functional.conv_transpose2d(hidden_bchw, self.weight_cd44, self.plain.conv.bias, stride=2, padding=1)


def merge_upsampling(network: nn.Module) -> None:
    """Put :class:`MergedUpsampling` in place of the network's upsampling layers, wherever they are of that kind."""
    for module in list(network.modules()):
        if isinstance(module, MergedUpsampling):
            continue
        for name, child in module.named_children():
            if isinstance(child, Upsample2D) and _is_plain(child):
                setattr(module, name, MergedUpsampling(child))


def _is_plain(layer: Any) -> bool:
    convolution = getattr(layer, "conv", None)
    return (
        isinstance(convolution, nn.Conv2d)
        and layer.interpolate
        and layer.norm is None
        and convolution.kernel_size == (3, 3)
        and convolution.padding == (1, 1)
    )
