import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.backbones.input_size import NetworkSize, resize_frames


@pytest.mark.parametrize(
    ("network", "own", "expected"),
    [
        (NetworkSize(None, 64, 0), (480, 853), (448, 832)),
        (NetworkSize(None, 64, 0), (448, 832), (448, 832)),
        (NetworkSize((130, 200), 32, 0), (480, 853), (128, 192)),
        # With its padding on both sides, a frame makes up a multiple.
        (NetworkSize(None, 64, 16), (480, 853), (480, 864 - 64)),
    ],
)
def test_network_size(network, own, expected):
    assert network.of(*own) == expected
    assert all((side + 2 * network.padding) % network.multiple == 0 for side in expected)


def test_too_small():
    with pytest.raises(ValueError, match=r"frames of 16x64 pixels are too small.*32x32.*model\.input_size"):
        NetworkSize(None, 32, 0).of(16, 64)


def test_frames_are_resized_as_by_pil():
    frames_THW3 = torch.randint(256, (3, 33, 47, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized_THW3 = resize_frames(frames_THW3, (20, 64))
    for frame_HW3, found_HW3 in zip(frames_THW3.numpy(), resized_THW3, strict=True):
        expected = Image.fromarray(frame_HW3).resize((64, 20), Image.Resampling.BICUBIC)
        assert np.array_equal(found_HW3.numpy(), np.asarray(expected))
