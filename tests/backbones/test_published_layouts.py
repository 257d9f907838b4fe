"""Which published models work: the table of ``docs/models.md``, each row on the configs of such a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from published_layouts import EPSILON, LAYOUTS, Layout, V, index, pixart, stable_diffusion, video, wan
from tiny_models import write_json

import zsvss.backbones.auto
from zsvss.backbones.auto import Auto
from zsvss.backbones.base import Backbone
from zsvss.backbones.checks import backbone_of
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.weight_files import NotFetchedError
from zsvss.backbones.weights import WeightsSource

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ROWS = re.findall(
    r"^\| ([^|]+?) \| `([^|]+?)` \| ([^|]+?) \| (works|refused)[:;]? ?([^|]*?) \|$", PAGE.read_text(), re.M
)


def write(folder: Path, layout: Layout) -> str:
    for name, content in layout.items():
        write_json(folder / name, content)
    return str(folder)


def test_the_table_has_all_layouts() -> None:
    assert [row[0] for row in ROWS] == list(LAYOUTS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(row: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What works is accepted by its configs; what is refused is told what the table says."""
    name, _, kind, outcome, words = row
    layout, settings = LAYOUTS[name]
    folder = write(tmp_path, layout)
    monkeypatch.setattr(WeightsSource, "check", lambda *_: None)  # there are none
    if outcome == "works":
        backbone = Auto(folder, **settings)
        assert type(backbone).__name__ == kind.strip("`")
        backbone.check()
        assert {name: getattr(backbone, name) for name in settings} == settings
        places = backbone.places
        assert places.clustered
        assert {places.find(name).block for name in places.clustered} <= set(range(len(places.blocks)))
    else:
        named = kind.strip("`") if kind != "-" else "StableDiffusion"
        with pytest.raises(ValueError, match=re.escape(words.strip('"`'))):
            class_of(named)(folder).check()


def class_of(name: str) -> Any:
    module = __import__(f"zsvss.backbones.{zsvss.backbones.auto._MODULES[name]}", fromlist=[name])
    return getattr(module, name)


def test_auto_says_what_it_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone Auto: .* is SANA; the backbones StableDiffusion, .* can be named"):
        Auto(write(tmp_path / "sana", index("SanaPipeline")))
    with pytest.raises(ValueError, match=r"has no model_index\.json that tells what it is"):
        Auto(write(tmp_path / "nothing", {"unet/config.json": {}}))


def test_auto_hands_settings_on(tmp_path: Path) -> None:
    folder = write(tmp_path, stable_diffusion(None, EPSILON))
    backbone = Auto(folder, num_steps=10, first_step=8, modulation_block="up.2.attn.1", max_batch=3, tiling=True)
    assert (backbone.steps, backbone.modulation_block, backbone.samples.size) == (range(8, 10), 7, 3)
    assert backbone.tiling
    assert backbone.guidance == StableDiffusion(folder).guidance
    with pytest.raises(ValueError, match=r"is run by StableVideoDiffusion, which has no setting guidance, tiling\. "):
        Auto(write(tmp_path / "video", video()), guidance=1.0, tiling=True)


def test_auto_takes_settings_on_the_command_line(tmp_path: Path) -> None:
    from jsonargparse import ArgumentParser

    folder = write(tmp_path, stable_diffusion(None, EPSILON))
    parser = ArgumentParser()
    parser.add_argument("--backbone", type=Backbone)
    parsed = parser.parse_args(
        ["--backbone", "zsvss.backbones.auto.Auto", "--backbone.weights", folder, "--backbone.guidance", "1"]
    )
    backbone = parser.instantiate(parsed).backbone
    assert isinstance(backbone, StableDiffusion)
    assert backbone.guidance == 1


def test_auto_says_how_to_fetch_what_is_not_there(offline: Path) -> None:
    with pytest.raises(NotFetchedError, match=r"hf download owner/model model_index\.json\n"):
        Auto("owner/model")


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        (wan(), None),
        (wan(transformer_2=None), None),
        ({**wan(), "transformer/config.json": {**wan()["transformer/config.json"], "image_dim": 1280}}, "image_dim"),
        ({**wan(), "transformer/config.json": {**wan()["transformer/config.json"], "added_kv_proj_dim": 9}}, "added_"),
        ({**pixart("PixArtSigmaPipeline", 0.13025), "scheduler/scheduler_config.json": V}, "must be 'epsilon'"),
        (index("FluxKontextPipeline"), "is FLUX.1 Kontext"),
        (index("FluxPriorReduxPipeline"), "is FLUX.1 Redux"),
        (index("StableDiffusionXLImg2ImgPipeline", requires_aesthetics_score=True), "is the refiner of Stable Diff"),
    ],
)
def test_relatives_are_told_apart(
    layout: Layout, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WeightsSource, "check", lambda *_: None)
    folder = write(tmp_path, layout)
    if problem is None:
        Auto(folder).check()
    else:
        with pytest.raises(ValueError, match=problem):
            Auto(folder).check()


@pytest.mark.parametrize(("name", "found"), [("FLUX.1 dev", 16), ("Stable Diffusion 3 medium", 16)])
def test_channels_that_do_not_fit_are_named(
    name: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS[name][0]
    wrong = {**layout, "transformer/config.json": {**layout["transformer/config.json"], "in_channels": 33}}
    packed = ", in each of 4 cells that a token packs" if name.startswith("FLUX") else ""
    with pytest.raises(ValueError, match=f"in_channels = 33 must be .* has {found} latent channels{packed};"):
        Auto(write(tmp_path, wrong)).check()


STEPS_READ = re.findall(r"^\| `(\w+)` \| ([\d., ]+) \|", PAGE.read_text(), re.M)


@pytest.mark.parametrize(("kind", "timesteps"), STEPS_READ)
def test_the_page_says_at_which_timesteps_is_read(
    kind: str, timesteps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WeightsSource, "check", lambda *_: None)
    asks = {name: backbone_of(layout["model_index.json"]) for name, (layout, _) in LAYOUTS.items()}
    layout, _ = LAYOUTS[next(name for name, known in asks.items() if known and known[1] == kind)]
    backbone = class_of(kind)(write(tmp_path, {**layout, **_told(layout)}))
    backbone.check()
    told = [f"{timestep:.1f}" if timestep < 10 else str(round(timestep)) for timestep in backbone.timesteps]
    assert told[backbone.steps[0] :] == timesteps.split(", ")


def _told(layout: Layout) -> Layout:
    """The scheduler, which also tells what the network predicts."""
    scheduler = layout["scheduler/scheduler_config.json"]
    return {"scheduler/scheduler_config.json": {"prediction_type": "epsilon", **scheduler}}


def test_schnell_reads_at_the_timesteps_of_dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings that the configs name; without them it ends at 91, 61 and 30."""
    monkeypatch.setattr(WeightsSource, "check", lambda *_: None)
    folder = write(tmp_path, LAYOUTS["FLUX.1 schnell"][0])
    for settings, expected in (({}, [91, 61, 30]), ({"num_steps": 11, "first_step": 8}, [273, 182, 91])):
        backbone = Auto(folder, **settings)
        backbone.check()
        assert [round(timestep) for timestep in backbone.timesteps[-3:]] == expected


def test_every_backbone_that_a_pipeline_asks_for_is_there() -> None:
    from zsvss.backbones.checks import _PIPELINES

    asked = {name for _, name in _PIPELINES.values() if name}
    assert asked == set(zsvss.backbones.auto._MODULES)
    assert all(issubclass(class_of(name), Backbone) and class_of(name).pipeline == name for name in asked)
    assert backbone_of({"_class_name": "FluxPipeline"}) is not None
