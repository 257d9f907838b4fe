"""Full precision: neither autocast nor TF32 reaches what is not a network."""

import contextlib

import pytest
import torch
from pretend_device import DEVICE, NAME, running
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.features import FeaturePass
from zsvss.stages.joint_features import LabFeatures
from zsvss.stages.precision import full_precision, tf32_settings

CPU = torch.device("cpu")


@pytest.fixture
def chosen():
    """Set how float32 is multiplied, and put it back."""
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]

    def choose(convolution, matmul):
        backends[0].fp32_precision, backends[1].fp32_precision = convolution, matmul

    yield choose
    choose(*before)


@pytest.mark.parametrize(("convolution", "matmul"), [("tf32", "tf32"), ("tf32", "ieee"), ("ieee", "ieee")])
def test_tf32_is_off_inside_and_as_before_outside(chosen, convolution, matmul):
    chosen(convolution, matmul)
    with contextlib.suppress(KeyError), full_precision(CPU):
        inside = tf32_settings()
        raise KeyError
    assert inside == {"convolution": "ieee", "matmul": "ieee"}
    assert tf32_settings() == {"convolution": convolution, "matmul": matmul}


def test_the_older_switch_of_products_is_obeyed_and_left_alone():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(CPU):
            assert tf32_settings()["matmul"] == "ieee"
        assert tf32_settings()["matmul"] == "tf32"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@torch.inference_mode()
def test_features_are_read_in_full_precision_under_autocast():
    """CIELAB by a matrix in bfloat16 is off by up to 2.4."""
    frames, _ = striped_video(num_frames=2)
    segmenter = VideoSegmenter(ToyBackbone())
    images_T3HW = segmenter.to_images(frames)
    recording = segmenter.backbone.record(torch.zeros(2, 4, 8, 12), None, [])
    expected, _ = FeaturePass(segmenter.backbone, recording, images_T3HW).read(LabFeatures())
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = FeaturePass(segmenter.backbone, recording, images_T3HW).read(LabFeatures())
    assert torch.equal(found, expected)
    with running(), torch.autocast(NAME, torch.float16):
        recording.noised_Tchw = recording.noised_Tchw.to(DEVICE)
        found, _ = FeaturePass(segmenter.backbone, recording, images_T3HW.to(DEVICE)).read(LabFeatures())
        assert torch.equal(found.cpu(), expected)
