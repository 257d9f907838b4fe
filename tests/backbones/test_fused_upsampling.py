"""Upsampling and convolution as one operation, against diffusers' two."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from pretend_device import DEVICE, running
from torch import nn

from zsvss.backbones.fused_upsampling import MergedUpsampling, merge_upsampling


def plain_layer() -> Upsample2D:
    torch.manual_seed(0)
    return Upsample2D(3, use_conv=True, out_channels=5)


@pytest.mark.parametrize("output_size", [None, (10, 14), (11, 13)], ids=["default", "double", "other"])
def test_merged_upsampling_equals_upsampling_and_convolution(output_size):
    plain = plain_layer().double()
    hidden = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        merged = MergedUpsampling(plain)(hidden, output_size)
        torch.testing.assert_close(merged, plain(hidden, output_size), rtol=0, atol=1e-12)


def test_only_plain_layers_are_merged():
    network = nn.ModuleDict(
        {"plain": plain_layer(), "normed": Upsample2D(4, use_conv=True, norm_type="rms_norm", eps=1e-6)}
    )
    network["without_convolution"] = Upsample2D(4)
    merge_upsampling(network)
    merge_upsampling(network)
    merged = {name for name, layer in network.named_children() if isinstance(layer, MergedUpsampling)}
    assert merged == {"plain"}
    assert isinstance(network["plain"].plain, Upsample2D)


def test_a_device_runs_the_plain_layer_and_a_cpu_the_merged_one_again():
    network = nn.Sequential(plain_layer())
    hidden = torch.randn(1, 3, 4, 6)
    with torch.no_grad():
        expected = network(hidden)
        merge_upsampling(network)
        merged = network(hidden)
        with running():
            network.to(DEVICE)
            assert network[0].weight_cd44 is None
            assert torch.equal(network(hidden.to(DEVICE)).cpu(), expected)
        network.to("cpu")
        assert torch.equal(network(hidden), merged)
    assert not torch.equal(merged, expected), "the last digits tell one way from the other"
