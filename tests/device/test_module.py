"""The LightningModule on the pretend accelerator, by Lightning's own loops: the CPU's numbers and predictions."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from pretend_device import DEVICE, NAME, running
from tiny_run import quiet_trainer

from zsvss.backbones import latent_diffusion
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.data.procedural import ProceduralVideos
from zsvss.metrics import FirstFrameNaming, HungarianNaming
from zsvss.module import VideoSegmentation
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.upsampling import SoftUpsampling


class PretendAccelerator(Accelerator):
    """What Lightning wants to know of a device."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "pretend"


def pretend_trainer(folder, **settings) -> Trainer:
    strategy = SingleDeviceStrategy(DEVICE, accelerator=PretendAccelerator())
    return quiet_trainer(folder, strategy=strategy, accelerator="auto", **settings)


def data_of(**settings):
    defaults = {"num_videos": 2, "num_frames": 3, "height": 70, "width": 64, "clip_length": 2, "num_workers": 0}
    return ProceduralVideos(**defaults | settings)


@pytest.fixture
def make(tiny_weights, monkeypatch):
    """A module without masked modulation, the slowest stage, which the segmenter's tests have."""
    monkeypatch.setattr(latent_diffusion, "image_format", lambda *_: torch.contiguous_format)

    def module(naming, **settings):
        context = KNNSceneContext(num_clusters=3, num_restarts=2)
        backbone = StableDiffusion(str(tiny_weights), first_step=23, **settings)
        return VideoSegmentation(
            backbone, context, CorrespondenceRefinement(), SoftUpsampling(), naming=naming, windows=(2,)
        )

    return module


def results_of(module, trainer, **settings):
    trainer.test(module, datamodule=data_of(**settings), verbose=False)
    return [{**result.to_dict(), "seconds": None} for result in module.results]


@pytest.mark.parametrize("naming", [FirstFrameNaming, HungarianNaming])
def test_a_test_run_ends_with_the_cpus_numbers(make, tmp_path, naming):
    expected = results_of(make(naming()), quiet_trainer(tmp_path))
    with running() as device:
        assert results_of(make(naming()), pretend_trainer(tmp_path)) == expected
        assert device.allocations > 1000, "the work was done there"
    assert len(expected) == 2


def test_predictions_and_workers_that_pin_what_they_read(make, tmp_path):
    def labels(trainer, **settings):
        outputs = trainer.predict(make(None), datamodule=data_of(num_videos=1, **settings))
        return torch.cat([output["labels"].cpu() for output in outputs])

    expected = labels(quiet_trainer(tmp_path))
    with running() as device:
        assert torch.equal(labels(pretend_trainer(tmp_path), num_workers=1), expected)
        assert device.num_pinned >= 2 * 3, "frames, resized frames and labels of two clips"
    with running() as device:
        labels(quiet_trainer(tmp_path), num_workers=1)
        assert device.num_pinned == 0


def test_lightning_moves_a_module_whose_networks_take_turns(make, tmp_path):
    """It has the whole module moved to the device, and back at the end."""

    def labels(module, trainer):
        outputs = trainer.predict(module, datamodule=data_of(num_videos=1))
        return torch.cat([output["labels"].cpu() for output in outputs])

    expected = labels(make(None), quiet_trainer(tmp_path))
    module = make(None, offload=True)
    networks = []
    with running():
        module.backbone.turn_of = lambda name, plain=module.backbone.turn_of: networks.append(name) or plain(name)
        assert torch.equal(labels(module, pretend_trainer(tmp_path)), expected)
        assert {weight.device.type for weight in module.parameters()} == {"cpu"}
    assert networks == ["vae", "unet"] * 2, "two clips, of which nothing is decoded"


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "bf16-mixed", "16-mixed"])
def test_lightnings_precisions_give_numbers(make, tmp_path, precision):
    plugin = HalfPrecision(precision)
    if precision.endswith("mixed"):  # what Lightning takes for a GPU
        scaler = torch.amp.GradScaler(NAME, enabled=False) if precision == "16-mixed" else None
        plugin = MixedPrecision(precision, NAME, scaler)
    with running():
        (result,) = results_of(make(HungarianNaming()), pretend_trainer(tmp_path, plugins=[plugin]), num_videos=1)
    assert result["num_frames"] == 3
    assert sum(count for _, _, count in result["confusion"]) == 3 * 70 * 64


def test_deterministic_mode_ends_with_the_same_numbers(make, tmp_path):
    expected = results_of(make(HungarianNaming()), quiet_trainer(tmp_path), num_videos=1)
    try:
        with running():
            trainer = pretend_trainer(tmp_path, deterministic=True)
            assert results_of(make(HungarianNaming()), trainer, num_videos=1) == expected
    finally:
        torch.use_deterministic_algorithms(False)
