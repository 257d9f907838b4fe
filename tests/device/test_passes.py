"""Passes of the networks on the pretend accelerator: what they wait for, allocate, keep and compute in."""

import weakref
from collections import defaultdict
from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
from pretend_device import DEVICE, NAME, running
from toy_backbone import striped_video

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.samples import Samples
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.unet import UNetBackbone
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation

KINDS = pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion], ids=lambda kind: kind.__name__)
PASSES = ("_recorded_pass", "_edited_pass", "_resumed_pass")


@pytest.fixture
def backbone(kind, settings_of):
    """A pass of the video model holds a clip of two frames in both guidance halves."""
    return kind.from_pretrained(**settings_of[kind], first_step=23, max_batch=4)


def recorded(backbone, *keys):
    """The feature pass over two frames of noise."""
    noised = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    images = torch.zeros(2, 3, 64, 64, device=backbone.device)
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    return backbone.record(noised, backbone.condition(images, noise), keys)


@KINDS
def test_a_cuda_graph_could_be_taken_of_every_pass(backbone):
    """No wait within a pass, and as many allocations as in any other pass of its kind, step and size."""
    frames, _ = striped_video(num_frames=4, height=64, width=64)
    segmenter = VideoSegmenter(backbone, KNNSceneContext(2, num_restarts=1), None, MaskedModulation())
    allocations = defaultdict(set)
    with running() as device, ExitStack() as watches:

        def watched(name):
            plain = getattr(UNetBackbone, name)

            def run(self, *args):
                (num_samples,) = (len(value.row_b) for value in args if isinstance(value, Samples))
                steps = [value for value in args if isinstance(value, int)]
                stalls, before = device.num_stalls, device.allocations
                result = plain(self, *args)
                assert device.num_stalls == stalls, f"{name} waits"
                allocations[(name, *steps, num_samples)].add(device.allocations - before)
                return result

            return patch.object(UNetBackbone, name, run)

        segmenter.to(DEVICE)
        for name in PASSES:
            watches.enter_context(watched(name))
        for clip in frames.split(2):
            segmenter(clip.to(DEVICE))
    assert {name for name, *_ in allocations} == set(PASSES)
    assert all(len(counts) == 1 for counts in allocations.values()), dict(allocations)


@pytest.mark.parametrize("kind", [StableDiffusion])
def test_memory_of_a_recording_is_freed_before_a_pass_is_tried_again(backbone, monkeypatch):
    backbone.samples.size = 1
    key = FeatureKey(23, 7)
    plain, given, alive = UNetBackbone._recorded_pass, [], []

    def short_of_memory(self, *args):
        if len(given) == 2 and len(alive) < 2:  # before the third pass, and when it is tried again
            alive.append([tensor() is not None for tensor in given])
            if len(alive) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        done = plain(self, *args)
        if key in done.tensors:
            given.append(weakref.ref(done.tensors[key]))
        return done

    with running(), torch.inference_mode():
        backbone.to(DEVICE)
        monkeypatch.setattr(UNetBackbone, "_recorded_pass", short_of_memory)
        recorded(backbone, key)
    assert alive == [[True, True], [False, False]]


@KINDS
@torch.inference_mode()
def test_what_the_host_keeps_is_asked_for_once_a_pass(backbone):
    x_Rchw = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    frames_R, offset_Rn = torch.arange(2).repeat(4), torch.ones(8, 16)
    arguments = (x_Rchw, frames_R, offset_Rn)

    def denoised(first, frames, offset):
        recording = recorded(backbone)
        waits = device.num_stalls
        rows = [
            backbone.denoise(first, step, recording, frames, offset if step == 23 else None) for step in backbone.steps
        ]
        return torch.stack(rows), device.num_stalls - waits

    with running() as device:
        backbone.to(DEVICE)
        moved = [tensor.to(DEVICE) for tensor in arguments]
        expected, none = denoised(*moved)
        backbone.keeps_on_host = True
        found, waits = denoised(*moved)
        assert torch.equal(found.cpu(), expected.cpu())
    assert none == 0
    assert waits == 2 * (2 * 8 // 4), "two steps of 16 samples, four a pass"


@pytest.mark.parametrize("kind", [StableVideoDiffusion])
@pytest.mark.parametrize(("dtype", "wanted"), [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_a_video_models_first_frame_is_encoded_in_float32_under_autocast_to_float16(backbone, dtype, wanted):
    """Its weights are float32 then, and say nothing."""
    seen = set()
    for module in backbone.vae.encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    with running(), torch.inference_mode(), torch.autocast(NAME, dtype):
        backbone.to(DEVICE)
        conditioning = backbone.condition(torch.zeros(2, 3, 64, 64, device=DEVICE), noise)
    assert seen == {wanted}
    assert conditioning.concat_Gchw.dtype == torch.float32
