"""What several tests share.

Nothing here imports PyTorch before a fixture needs it: the process that only hands tests out to others does without.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import clean_environment  # noqa: F401  (importing it cleans, before anything that reads the environment)

# isort: split
import pytest
from page_in_chromium import CHROMIUM
from warm_python import WarmPython

from zsvss.commands.allocator import keep_freed_memory

keep_freed_memory()  # as runs on a CPU do

# A device registers once in a process; pytest would import the file a second time, to look for doctests.
collect_ignore = ["pretend_device.py"]


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Starts command lines without importing PyTorch for each."""
    python = WarmPython()
    yield python
    python.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, by Playwright, of which there may be one in a process."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("needs chromium on PATH (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def parsing_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The command line's parser in this process: every component is known, and nothing lands in the repository."""
    from zsvss.commands.lightning import import_components

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zsvss"])
    caplog.set_level(logging.ERROR, "lightning.pytorch.utilities.rank_zero")
    import_components()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of the Stable Diffusion layout with small random weights (0.3 MB, milliseconds a pass)."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file
    from tiny_models import write_autoencoder

    folder = tmp_path_factory.mktemp("tiny_weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=8,
            attention_head_dim=8,
            norm_num_groups=4,
        )
        write_autoencoder(folder)
        save_file({"cond": torch.randn(1, 4, 8)}, folder / "context.safetensors")
    unet.save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))
    return folder


@pytest.fixture(scope="session")
def tiny_video_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Video Diffusion's layout with a fixed token in place of an image encoder."""
    import torch
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny_video_weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32, 64, 64),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            cross_attention_dim=8,
            num_attention_heads=(2, 2, 2, 2),
        )
        # Different from layer to layer, as in trained networks, so that a mix-up of the branches shows.
        for name, parameter in unet.named_parameters():
            if name.endswith("mix_factor"):
                torch.nn.init.normal_(parameter)
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4
        )
        save_file({"cond": torch.randn(1, 1, 8)}, folder / "context.safetensors")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def settings_of(
    tiny_weights: Path, tiny_video_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[type, dict[str, Any]]:
    """Class of a backbone -> settings that give it tiny weights: a new kind of backbone adds its own here."""
    import tiny_models

    from zsvss.backbones.cogvideox import CogVideoX
    from zsvss.backbones.flux import Flux
    from zsvss.backbones.pixart import PixArt
    from zsvss.backbones.stable_diffusion import StableDiffusion
    from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
    from zsvss.backbones.stable_diffusion_xl import StableDiffusionXL
    from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
    from zsvss.backbones.wan import Wan

    settings: dict[type, dict[str, Any]] = {
        StableDiffusion: {"weights": str(tiny_weights), "first_step": 23},
        StableVideoDiffusion: {"weights": str(tiny_video_weights), "first_step": 23},
        StableDiffusionXL: {"weights": tiny_models.write_sdxl, "first_step": 18},
        StableDiffusion3: {"weights": tiny_models.write_sd3, "first_step": 26, "guidance": 4.0},
        PixArt: {"weights": tiny_models.write_pixart, "first_step": 18},
        Flux: {"weights": tiny_models.write_flux, "first_step": 31},
        CogVideoX: {"weights": tiny_models.write_cogvideox, "first_step": 18},
        Wan: {"weights": tiny_models.write_wan, "first_step": 26},
    }
    return tiny_models.Written(settings, tmp_path_factory.mktemp)


# Tens of seconds to minutes each, the longest first.
LONGEST = (
    "test_parity_end_to_end.py",
    "backbones/test_golden.py",
    "test_demo.py",
    "cluster/test_resume.py",
    "commands/test_sweep.py",
)


MANY = 100_000  # objects; those that are imported are four times as many


def pass_over_what_is_there() -> None:
    """Let garbage collections look at new objects alone: all that was imported is half a second's work each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import without garbage collections, which find nothing then."""
    gc.disable()
    yield
    pass_over_what_is_there()
    gc.enable()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Pass over what a file has left for good: libraries import more when used, and a reader's fork unfreezes."""
    yield
    if nextitem is not None and nextitem.path != item.path and len(gc.get_objects()) > MANY:
        pass_over_what_is_there()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process is left alone with one at the end."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
