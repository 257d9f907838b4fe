"""Which published models work: the table of ``docs/models.md``, each row on the configs of such a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from published_layouts import LAYOUTS, Layout, index
from tiny_models import write_json

import zsvss.backbones.auto
from zsvss.backbones.auto import Auto
from zsvss.backbones.base import Backbone
from zsvss.backbones.checks import backbone_of
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
        backbone = Auto(folder)
        assert type(backbone).__name__ == kind.strip("`")
        type(backbone)(folder, **settings).check()
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


def test_every_backbone_that_a_pipeline_asks_for_is_there() -> None:
    from zsvss.backbones.checks import _PIPELINES

    asked = {name for _, name in _PIPELINES.values() if name}
    assert asked == set(zsvss.backbones.auto._MODULES)
    assert all(issubclass(class_of(name), Backbone) and class_of(name).pipeline == name for name in asked)
    assert backbone_of({"_class_name": "FluxPipeline"}) is not None
