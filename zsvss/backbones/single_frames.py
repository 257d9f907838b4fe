"""Convolutions over time of clips of one frame, without the frames that are not there.

Shape legend: b clips, c input channels, d output channels, h w cells.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SingleFrameConvolution(nn.Module):
    """Convolves one frame by the middle of a kernel over time, with a third of the multiplications of its 3 frames.

    The frames before and after are padding, zeros that add nothing. On a CPU only, where one thread convolves in three
    dimensions by PyTorch's slow way; elsewhere, and over several frames, the plain layer runs.

    Args:
        plain: a convolution of an odd number of frames, of one cell each, padded to as many frames as came in.
    """

    def __init__(self, plain: nn.Conv3d) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, hidden_bcThw: Tensor) -> Tensor:
        """Return [b, d, T, h, w]."""
        if hidden_bcThw.shape[2] != 1 or hidden_bcThw.device.type != "cpu":
            convolved: Tensor = self.plain(hidden_bcThw)
            return convolved
        middle_dc11 = self.plain.weight[:, :, self.plain.kernel_size[0] // 2]
        return functional.conv2d(hidden_bcThw[:, :, 0], middle_dc11, self.plain.bias)[:, :, None]


def take_single_frames(network: nn.Module) -> None:
    """Put :class:`SingleFrameConvolution` in place of the network's convolutions over time alone."""
    for module in list(network.modules()):
        if isinstance(module, SingleFrameConvolution):
            continue
        for name, child in module.named_children():
            if isinstance(child, nn.Conv3d) and _is_over_time(child):
                setattr(module, name, SingleFrameConvolution(child))


def _is_over_time(layer: nn.Conv3d) -> bool:
    frames = layer.kernel_size[0]
    return (
        layer.kernel_size == (frames, 1, 1)
        and layer.padding == (frames // 2, 0, 0)
        and layer.stride == layer.dilation == (1, 1, 1)
        and layer.groups == frames % 2 == 1
        and layer.padding_mode == "zeros"
    )
