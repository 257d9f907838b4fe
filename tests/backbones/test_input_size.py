from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zsvss.backbones import embedded
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.input_size import NetworkSize, resize_frames
from zsvss.segmenter import VideoSegmenter


@pytest.mark.parametrize(
    ("network", "own", "expected"),
    [
        (NetworkSize(None, 64, 0), (480, 853), (448, 832)),
        (NetworkSize(None, 64, 0), (448, 832), (448, 832)),
        (NetworkSize((130, 200), 32, 0), (480, 853), (128, 192)),
        # With its padding on both sides, a frame makes up a multiple.
        (NetworkSize(None, 64, 16), (480, 853), (480, 864 - 64)),
        # Frames come to about as many pixels as the backbone was trained on, in their own shape.
        (NetworkSize(None, 64, 0, native=(256, 448)), (480, 853), (256, 448)),
        (NetworkSize(None, 64, 0, native=(256, 448)), (1920, 1080), (448, 256)),
        (NetworkSize(None, 64, 0, native=(256, 448)), (600, 600), (320, 320)),
        (NetworkSize(None, 64, 0, native=(256, 448)), (100, 4000), (64, 2112)),
        (NetworkSize(None, 64, 32, native=(256, 448)), (480, 853), (256, 448)),
        (NetworkSize(None, 64, 32, native=(256, 448)), (252, 448), (256, 448)),
        (NetworkSize(None, 64, 32, native=(256, 448)), (20, 20000), (64, 10688)),  # no side that is all padding
        (NetworkSize(None, 64, 0, native=(256, 448)), (96, 160), (256, 448)),
        (NetworkSize((256, 256), 64, 0, native=(256, 448)), (480, 853), (256, 256)),
    ],
)
def test_network_size(network, own, expected):
    assert network.of(*own) == expected
    assert all((side + 2 * network.padding) % network.multiple == 0 for side in expected)


def test_the_embedded_backbone_knows_its_own_size():
    def seen(**settings):
        return VideoSegmenter(Embedded(), **settings).network_size.of(480, 853)

    assert seen() == (256, 448)
    assert seen(input_size=(480, 853)) == seen(input_size="frames") == (448, 832)
    larger = VideoSegmenter(Embedded(native_size=(512, 896)))
    assert (larger.network_size.of(480, 853), larger.network_size.of(853, 480)) == ((512, 896), (896, 512))
    elsewhere = VideoSegmenter(Embedded(str(Path(embedded.__file__).parent)))
    assert elsewhere.network_size.of(480, 853) == (448, 832), "other weights may be made for anything"


def test_too_small():
    with pytest.raises(ValueError, match=r"frames of 16x64 pixels are too small.*32x32.*model\.input_size"):
        NetworkSize(None, 32, 0).of(16, 64)


def test_frames_are_resized_as_by_pil():
    frames_THW3 = torch.randint(256, (3, 33, 47, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized_THW3 = resize_frames(frames_THW3, (20, 64))
    for frame_HW3, found_HW3 in zip(frames_THW3.numpy(), resized_THW3, strict=True):
        expected = Image.fromarray(frame_HW3).resize((64, 20), Image.Resampling.BICUBIC)
        assert np.array_equal(found_HW3.numpy(), np.asarray(expected))
