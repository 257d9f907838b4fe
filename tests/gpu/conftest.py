"""Fixtures of the tests that need a GPU; ``ZSVSS_GPU_TESTS_ON=cpu`` runs those that can on a CPU, to try the tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

ON = os.environ.get("ZSVSS_GPU_TESTS_ON", "cuda")
MakeSegmenter = Callable[..., VideoSegmenter]


@pytest.fixture
def device() -> torch.device:
    """The GPU."""
    if ON == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU that this PyTorch sees (torch.cuda.is_available() is False)")
    return torch.device(ON)


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """The GPU, for tests that mean nothing elsewhere."""
    if device.type != "cuda":
        pytest.skip("means nothing but on a GPU")
    return device


@pytest.fixture
def exact_products() -> Iterator[None]:
    """Without TF32, as a CPU multiplies."""
    cudnn: Any = torch.backends.cudnn
    backends: list[Any] = [cudnn.conv, torch.backends.cuda.matmul]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.fp32_precision = value


@pytest.fixture(params=[StableDiffusion, StableVideoDiffusion], ids=lambda kind: str(kind.__name__))
def make_segmenter(request: pytest.FixtureRequest, settings_of: dict[type, dict[str, str]]) -> MakeSegmenter:
    """Make the whole method on a backbone with tiny weights."""

    def make(dtype: torch.dtype = torch.float32, **settings: Any) -> VideoSegmenter:
        backbone = request.param.from_pretrained(**{**settings_of[request.param], "first_step": 23, **settings})
        context = KNNSceneContext(4, num_restarts=2)
        return VideoSegmenter(backbone, context, CorrespondenceRefinement(), MaskedModulation()).to(ON, dtype)

    return make


@pytest.fixture
def clips() -> list[Tensor]:
    """Two clips of three frames of a generated video."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(256, (1, 8, 8, 3), generator=generator, dtype=torch.uint8).expand(6, -1, -1, -1)
    frames_THW3 = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    moved = torch.stack([frame.roll(3 * t, 1) for t, frame in enumerate(frames_THW3)])
    return list(moved.split(3))


@pytest.fixture(scope="session")
def demo_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of the command line: the embedded backbone on generated videos."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        "model: {backbone: Embedded, context: {num_clusters: 2}, modulation: null, input_size: [64, 128], windows: [2]}"
        "\n"
        "data:\n"
        "  class_path: ProceduralVideos\n"
        "  init_args: {num_videos: 4, num_frames: 3, height: 64, width: 128, clip_length: 3, num_workers: 1}\n"
        f"trainer: {{accelerator: {'gpu' if ON == 'cuda' else ON}, devices: 1, enable_progress_bar: false}}\n"
    )
    return path
