"""Convolutions over time of one frame, against PyTorch's in three dimensions."""

import pytest
import torch
from pretend_device import DEVICE, running
from torch import nn

from zsvss.backbones.single_frames import SingleFrameConvolution, take_single_frames


def plain_layer(**settings) -> nn.Conv3d:
    torch.manual_seed(0)
    return nn.Conv3d(3, 5, **{"kernel_size": (3, 1, 1), "padding": (1, 0, 0), **settings})


@pytest.mark.parametrize("num_frames", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_it_equals_the_plain_convolution(kernel, num_frames):
    plain = plain_layer(kernel_size=(kernel, 1, 1), padding=(kernel // 2, 0, 0)).double()
    hidden = torch.randn(2, 3, num_frames, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(SingleFrameConvolution(plain)(hidden), plain(hidden), rtol=0, atol=1e-12)


def test_only_convolutions_over_time_alone_are_taken():
    network = nn.ModuleDict(
        {
            "over_time": plain_layer(),
            "over_space": plain_layer(kernel_size=3, padding=1),
            "unpadded": plain_layer(padding=0),
            "dilated": plain_layer(dilation=(2, 1, 1), padding=(2, 0, 0)),
            "repeating": plain_layer(padding_mode="replicate"),
            "of_images": nn.Conv2d(3, 5, 3),
        }
    )
    take_single_frames(network)
    take_single_frames(network)
    taken = {name for name, layer in network.named_children() if isinstance(layer, SingleFrameConvolution)}
    assert taken == {"over_time"}
    assert isinstance(network["over_time"].plain, nn.Conv3d)


def test_a_device_runs_the_plain_layer():
    layer, seen = SingleFrameConvolution(plain_layer()), []
    layer.plain.register_forward_hook(lambda *_: seen.append(layer.plain.weight.device.type))
    hidden = torch.randn(1, 3, 1, 6, 7)
    with torch.no_grad():
        on_cpu = layer(hidden)
        assert not seen
        with running():
            layer.to(DEVICE)
            torch.testing.assert_close(layer(hidden.to(DEVICE)).cpu(), on_cpu)
            assert len(seen) == 1
