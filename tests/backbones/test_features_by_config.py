"""Features of any block, layer, projection and step by config alone: through the real parser, off a real network."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.commands.lightning import Rehearsal
from zsvss.stages.features import AttentionFeatures, Features

pytestmark = pytest.mark.usefixtures("parsing_quietly")
CONFIG = """\
model: {backbone: Embedded, modulation: null}
data: {class_path: ProceduralVideos, init_args: {num_videos: 1, num_frames: 2}}
trainer: {accelerator: cpu, devices: 1, logger: false}
"""
STEPS = ([-1], [23], [23, 24])
PROJECTIONS = [
    *itertools.product(("self", "temporal_self"), ("query", "key", "value", "output")),
    *itertools.product(("cross", "temporal_cross"), ("query", "output")),
    ("block", "output"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def networks(tiny_weights: Path, tiny_video_weights: Path) -> dict[str, Backbone]:
    """An image and a video network with attention in blocks 3 to 11."""
    image = StableDiffusion.from_pretrained(str(tiny_weights), first_step=23)
    video = StableVideoDiffusion.from_pretrained(str(tiny_video_weights), first_step=23)
    return {"image": image, "video": video}


def through_the_command_line(config: Path, block: int, layer: str, projection: str, steps: list[int]) -> Features:
    """What the command line makes of its options."""
    key = "--model.features"
    options = [key, "AttentionFeatures", f"{key}.blocks", f"[{block}]", f"{key}.layer", layer]
    options += [f"{key}.projection", projection, f"{key}.steps", str(steps)]
    features: Features = Rehearsal(["test", "--config", str(config), *options]).build().model.segmenter.features
    return features


@pytest.mark.parametrize("number", range(len(PROJECTIONS)), ids=["-".join(names) for names in PROJECTIONS])
@torch.inference_mode()
def test_every_block(config: Path, networks: dict[str, Backbone], number: int) -> None:
    """Blocks 3 to 11, alone: the recorded tensor, averaged over the steps and normalised.

    The parser takes its time: a block and steps of their own go through it for each layer and projection.
    """
    layer, projection = PROJECTIONS[number]
    steps = STEPS[number % len(STEPS)]
    backbone = networks["video" if layer.startswith("temporal") else "image"]
    every = {block: AttentionFeatures((block,), layer, projection, steps) for block in range(3, 12)}
    every[3 + number % 9] = through_the_command_line(config, 3 + number % 9, layer, projection, steps)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = backbone.sample_noise(2, 64, 64, torch.Generator().manual_seed(1))
    noised = backbone.add_noise(backbone.encode(images, noise), noise)
    keys = [key for features in every.values() for key in features.keys(backbone)]
    recording = backbone.record(noised, backbone.condition(images, noise), keys)
    for block, features in every.items():
        expected = [FeatureKey(24 if step == -1 else step, block, layer, projection) for step in steps]
        assert features.keys(backbone) == expected
        mean = torch.stack([recording.tensors[key][1] for key in expected]).mean(0)
        tokens_Tnc = features(backbone, recording, images)
        height, width = features.grid(backbone, recording)
        assert tokens_Tnc.shape[:2] == (2, height * width)
        torch.testing.assert_close(tokens_Tnc, mean / mean.abs().amax(-1, keepdim=True))
