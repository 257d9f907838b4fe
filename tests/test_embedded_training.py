"""Training of the embedded backbone: what it distils, what its queries are asked, and how they are made to say it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).parents[1] / "experiments" / "embedded_backbone"
NAMES = ("targets", "networks", "readout", "teacher", "material")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The experiment's modules, which import each other by name; forgotten afterwards."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: __import__(name) for name in NAMES}
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def test_projection_keeps_distances_and_evens_variances(modules: dict[str, ModuleType]) -> None:
    """Of latents that lie in eight dimensions, eight channels keep every distance, up to one factor."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(32, 8)) * np.linspace(0.2, 3, 8)
    latents = np.einsum("bchw,tc->bthw", rng.normal(size=(6, 8, 9, 7)), mixing) + 2.0
    projection = modules["teacher"].fit_projection(latents, 8)
    targets = projection(latents)
    assert projection.kept == pytest.approx(1)
    np.testing.assert_allclose(targets.var((0, 2, 3)), 1, rtol=0.01)
    np.testing.assert_allclose(targets.mean((0, 2, 3)), 0, atol=1e-5)
    pairs = [array.transpose(0, 2, 3, 1).reshape(-1, array.shape[1]) for array in (latents, targets)]
    far, near = (np.linalg.norm(tokens[::5] - tokens[3], axis=1) for tokens in pairs)
    np.testing.assert_allclose(near * projection.scale, far, rtol=1e-4, atol=1e-4)


def test_the_teacher_is_named_where_it_is_missing(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such file.*madebyollin/taesd"):
        modules["teacher"].load_teacher(tmp_path / "absent.pth")


def test_targets_of_a_plain_picture(modules: dict[str, ModuleType]) -> None:
    """Of two halves: cells tell their half, texture is at the edge alone, places run from 0 to 1."""
    module = modules["targets"]
    latents = torch.zeros(1, module.NUM_LATENTS, 16, 16)
    latents[..., 8:] = 3.0
    described = module.describe(latents, torch.full((1, 3, 8, 8), 0.25))
    assert {name: tuple(part.shape) for name, part in described.items()} == {
        name: (1, 64, width) for name, width in module.WIDTHS.items()
    }
    cell = described["cell"].unflatten(1, (8, 8))
    assert (cell[..., :4, :] == 0).all()
    assert (cell[..., 4:, :] == 3).all()
    texture = described["texture"].unflatten(1, (8, 8)).mean(-1)
    assert texture[0, 4, 3:5].min() > 0.8
    assert texture[0, 4, [0, 7]].max() < 1e-3
    around = described["around"].unflatten(1, (8, 8)).mean((0, 1, 3))
    assert (around.diff() >= 0).all()
    assert 0 < around[3] < 3
    place = described["place"].unflatten(1, (8, 8))
    assert place[0, 7, 0].tolist() == [1, 0]
    assert place[0, 0, 7].tolist() == [0, 1]


def test_smoothing_keeps_edges(modules: dict[str, ModuleType]) -> None:
    generator = torch.Generator().manual_seed(0)
    side = torch.arange(40) >= 20
    features = torch.where(side, 5.0, 0.0)[None, :, None] + 0.1 * torch.randn(1, 40, 2, generator=generator)
    smooth = modules["targets"].smoothed(features)
    for half in (side, ~side):
        assert smooth[:, half].var(1).max() < 0.02 * features[:, half].var(1).max()
        torch.testing.assert_close(smooth[:, half].mean(1), features[:, half].mean(1), rtol=0, atol=0.02)


def test_queries_speak_and_the_network_stays(modules: dict[str, ModuleType]) -> None:
    """Distances between queries become the targets' that they can tell; the output stays, in half precision too."""
    torch.manual_seed(0)
    denoiser = modules["networks"].Denoiser().eval()
    latents = torch.randn(6, 16, 16, 16)
    latents = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(latents, (2, 2, 2, 2)), 5, 1) * 4
    colours = latents[:, :3, ::2, ::2] * 0.1 + 0.4
    scales = modules["targets"].fit_scales(latents, colours)
    reading = modules["readout"].Reading({"cell": 1.0, "place": 0.5}, constant=6.0)
    spoken = copy.deepcopy(denoiser)
    modules["readout"].speak(spoken, latents, colours, scales, reading)
    timesteps, keep = torch.full((6,), reading.timestep), torch.ones(6)
    with torch.inference_mode():
        before, untold = denoiser(latents, timesteps, keep)
        after, queries = spoken(latents, timesteps, keep)
        halved, _ = copy.deepcopy(spoken).half().float()(latents, timesteps, keep)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    torch.testing.assert_close(halved, before, rtol=0, atol=5e-3)
    mean = queries.mean(0)
    torch.testing.assert_close(mean[..., 0], torch.full((6, 64), 6.0), rtol=0, atol=1e-4)
    assert mean[..., 1:].abs().max() < 6
    wanted = modules["targets"].targets(latents, colours, scales)
    parts = modules["targets"].parts()
    wanted = torch.cat([wanted[..., parts["cell"]], 0.5 * wanted[..., parts["place"]]], -1)
    spread = torch.stack([torch.cdist(part, part).flatten() for part in (wanted, mean, untold.mean(0))])
    _, told, silent = torch.corrcoef(spread)[0]
    assert told > silent + 0.1


def test_sharp_cuts_are_as_near_as_is_said(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    """The width of stripes tells the scale: 1.2 to 2.4 for frames, 1 to what shows single pixels for wallpapers."""
    module = modules["material"]
    for name, height, width, count in (("videos", 384, 512, 3), ("wallpapers", 768, 1024, 1)):
        (tmp_path / name / "one").mkdir(parents=True)
        stripes = np.where(np.arange(width) // 16 % 2, 255, 0).astype(np.uint8)
        for number in range(count):
            picture = Image.fromarray(np.broadcast_to(stripes[None, :, None], (height, width, 3)).copy())
            picture.save(tmp_path / name / "one" / f"{number}.png")
    sources = module.Sources(None, tmp_path / "videos", tmp_path / "wallpapers", 0)
    cuts = np.stack(list(module.sharp_pictures(sources, np.random.default_rng(0))))
    assert cuts.shape == (3 * 3 + 40, *module.SIZES["sharp"], 3)
    assert cuts.dtype == np.uint8
    edges = (np.diff((cuts[:, 0, :, 0] > 127).astype(int), axis=1) != 0).sum(1)
    frames, wallpapers = 512 / 16 / edges[:9], 1024 / 16 / edges[9:]  # whole, the pictures have as many stripes
    assert 1.15 < frames.min() < frames.max() < 2.5
    assert 0.95 < wallpapers.min() < 1.4
    assert 2.9 < wallpapers.max() < 4.3  # four times the size that covers is this picture's own


def test_sets_take_turns(modules: dict[str, ModuleType]) -> None:
    """Each batch is of the set whose turn it is; latents are those of its rows, and of the windows of large ones."""
    module = modules["material"]
    names = ("small", "large", "sharp")
    pictures = {name: np.zeros((6, *module.SIZES[name], 3), np.uint8) for name in names}
    latents = {}
    for index, name in enumerate(names):
        height, width = (side // 8 for side in module.SIZES[name])
        marks = (40 * index + np.arange(6)[:, None, None] + np.arange(width)).repeat(height, 1)
        pictures[name][:] = marks.repeat(8, 1).repeat(8, 2)[..., None]
        latents[name] = lambda rows, marks=marks: marks[rows, None]
    turns = ("small", "sharp", "large", "sharp")
    examples = module.Examples(pictures, latents, turns, ((24, 32),), 4, 0)
    for name, (latents_Bchw, colours_B3hw, images_B3HW) in zip(turns * 2, examples, strict=False):
        assert len(latents_Bchw) == (2 if name == "large" else 4)
        assert latents_Bchw.shape[2:] == (24, 32)
        assert colours_B3hw.shape[2:] == (12, 16)
        shown = (images_B3HW[:, :1, ::8, ::8] + 1) * 127.5
        torch.testing.assert_close(shown, latents_Bchw, rtol=0, atol=1e-3)
        first = latents_Bchw[..., 0].min()
        assert 40 * names.index(name) <= first < 40 * names.index(name) + 6 + (24 if name == "large" else 0)


def test_encoder_error_counts_a_tokens_mean_twice(modules: dict[str, ModuleType]) -> None:
    """An error of 0.5 everywhere costs 0.25 + 2 * 0.25; one of alternating sign has no mean and costs 0.25."""
    module = modules["networks"]
    training = module.EncoderTraining(module.build_autoencoder(), 10)
    logged = {}
    training.log = lambda name, value: logged.update({name: float(value)})
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        given = training.network.encode(images).latent_dist.mean
        signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 3)
        for error, expected in ((torch.tensor(0.5), 0.75), (0.5 * signs, 0.25)):
            loss = training.training_step((given + error, torch.empty(0), images), 0)
            assert float(loss) == pytest.approx(expected, rel=1e-4)
            assert logged["squared_error"] == pytest.approx(0.25, rel=1e-4)
