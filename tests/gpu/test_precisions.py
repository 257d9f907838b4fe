"""Lightning's precisions, and compiled networks, on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from zsvss.backbones import latent_diffusion
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.data.procedural import ProceduralVideos
from zsvss.metrics import HungarianNaming
from zsvss.module import VideoSegmentation
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["32-true", "16-true", "bf16-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", [StableDiffusion, StableVideoDiffusion])
def test_a_run_ends_with_numbers(
    kind: type, precision: Any, settings_of: dict[type, dict[str, str]], device: torch.device, tmp_path: Path
) -> None:
    backbone = kind(**{**settings_of[kind], "first_step": 23})
    context = KNNSceneContext(4, num_restarts=2)
    module = VideoSegmentation(
        backbone, context, CorrespondenceRefinement(), MaskedModulation(), naming=HungarianNaming(), windows=(2,)
    )
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    data = ProceduralVideos(num_videos=1, num_frames=3, height=64, width=64, clip_length=3, num_workers=0)
    trainer.test(module, datamodule=data, verbose=False)
    assert 0 <= module.numbers["test/mIoU"] <= 1
    assert int(module.results[0].confusion.sum()) == 3 * 64 * 64


def test_the_decoder_compiled_by_inductor(
    make_segmenter: Callable[..., VideoSegmenter], device: torch.device, clips: list[Tensor], exact_products: None
) -> None:
    plain, compiled = (make_segmenter(compile_decoder=chosen).backbone for chosen in (False, True))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        torch.testing.assert_close(compiled.decode(latents), plain.decode(latents), rtol=0, atol=1e-3)


def test_the_unet_compiled_by_inductor(
    settings_of: dict[type, dict[str, str]], device: torch.device, exact_products: None
) -> None:
    """The plain network, as a guided pass without injection runs it."""
    backbone = StableDiffusion.from_pretrained(**settings_of[StableDiffusion]).to(device)
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, generator=generator)
    inputs = {
        "sample": x.to(device),
        "timestep": torch.tensor(39, device=device),
        "encoder_hidden_states": context.to(device),
    }
    compiled: Any = torch.compile(backbone.unet)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(**inputs).sample, backbone.unet(**inputs).sample, rtol=0, atol=1e-3)


@pytest.mark.parametrize("chosen", [True, "reduce-overhead"])
def test_compiled_passes_give_the_plain_labels(
    settings_of: dict[type, dict[str, str]],
    device: torch.device,
    clips: list[Tensor],
    exact_products: None,
    chosen: Any,
) -> None:
    """Over two clips, so that what is to be replayed as CUDA graphs is replayed."""
    found = []
    for way in (False, chosen):
        backbone = StableDiffusion.from_pretrained(
            **settings_of[StableDiffusion], first_step=23, max_batch=8, compile_unet=way
        )
        segmenter = VideoSegmenter(backbone.to(device), KNNSceneContext(3, num_restarts=1), None, MaskedModulation())
        found.append([segmenter(clip).labels_THW for clip in clips])
    for ours, theirs in zip(*found, strict=True):
        assert float((ours == theirs).float().mean()) > 0.99, "batches of another size round in another way"


def test_channels_last_gives_the_contiguous_images(
    make_segmenter: Callable[..., VideoSegmenter], gpu: torch.device, exact_products: None, monkeypatch: Any
) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(gpu)
    backbone = make_segmenter().backbone
    weight = backbone.get_parameter("vae.decoder.conv_in.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = backbone.decode(latents)
        monkeypatch.setattr(latent_diffusion, "image_format", lambda _: torch.contiguous_format)
        expected = make_segmenter().backbone.decode(latents)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
