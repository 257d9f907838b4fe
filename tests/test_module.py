from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import quiet_trainer
from torch import Tensor

from zsvss.backbones.base import Backbone
from zsvss.backbones.embedded import Embedded
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.callbacks.prediction_writer import PredictionWriter
from zsvss.callbacks.resume import ResultStore
from zsvss.data.clip import Clip
from zsvss.data.procedural import ProceduralVideos
from zsvss.data.taxonomy import Taxonomy
from zsvss.data.video import UnsegmentedVideoError
from zsvss.metrics import FirstFrameNaming, HungarianNaming, VideoResult
from zsvss.module import VideoSegmentation, clip_generator
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import AttentionFeatures, Features
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.newcomers import Newcomers
from zsvss.stages.refinement import CorrespondenceRefinement


def _data(**settings: Any) -> ProceduralVideos:
    defaults = {"num_videos": 2, "num_frames": 5, "height": 64, "width": 64, "clip_length": 3, "num_workers": 0}
    return ProceduralVideos(**(defaults | settings))


def _module(weights: Path, **settings: Any) -> VideoSegmentation:
    context = KNNSceneContext(num_clusters=4, num_restarts=1)
    # Without masked modulation: nothing here depends on it, and it is the slowest stage.
    defaults = {
        "refinement": CorrespondenceRefinement(),
        "modulation": None,
        "windows": (2,),
        "naming": HungarianNaming(),
    }
    return VideoSegmentation(StableDiffusion(str(weights)), context, **(defaults | settings))


def _results(weights: Path, folder: Path, module: dict[str, Any] | None = None, **data: Any) -> list[VideoResult]:
    segmentation = _module(weights, **(module or {}))
    quiet_trainer(folder).test(segmentation, datamodule=_data(**data), verbose=False)
    return segmentation.results


def _record(result: VideoResult) -> dict[str, Any]:
    return {**result.to_dict(), "seconds": None}


@pytest.mark.parametrize("cut", [{}, {"tail": "short"}, {"num_frames": 6, "repeat_last_clip": True}, {"num_frames": 2}])
def test_every_frame_is_scored_once(tiny_weights: Path, tmp_path: Path, cut: dict[str, Any]) -> None:
    data = _data(num_videos=1, **cut)
    raw = {}
    for clip in data.test_dataloader():
        for offset, labels_HW in enumerate(clip.labels_THW):
            raw[clip.start + offset] = labels_HW
    (result,) = _results(tiny_weights, tmp_path, num_videos=1, **cut)
    assert result.num_frames == result.num_labelled == data.num_frames
    labels = data.taxonomy.class_ids(torch.stack(list(raw.values())))
    assert result.confusion.sum(1).equal(torch.bincount(labels[labels >= 0], minlength=data.taxonomy.num_classes))


def test_a_video_does_not_depend_on_the_others(tiny_weights: Path, tmp_path: Path) -> None:
    both = _results(tiny_weights, tmp_path)
    (second,) = _results(tiny_weights, tmp_path, num_videos=1, first_video=1)
    assert [result.name for result in both] == sorted(result.name for result in both)
    assert _record(second) == _record(next(result for result in both if result.name == second.name))


def test_the_backbone_is_named_with_the_weights_that_do_not_ship_with_it() -> None:
    def name(backbone: Backbone) -> str:
        return VideoSegmentation(backbone, None, None, None).backbone_name

    assert name(StableDiffusion("owner/image")) == "StableDiffusion (owner/image)"
    assert name(StableDiffusion("owner/image", tiny_decoder="tiny")) == "StableDiffusion (owner/image, tiny)"
    assert name(Embedded()) == "Embedded"


def test_seed_matters(tiny_weights: Path, tmp_path: Path) -> None:
    first, second = (_results(tiny_weights, tmp_path, {"seed": seed}, num_videos=1)[0].confusion for seed in (0, 1))
    assert not first.equal(second)


def test_numbers_are_logged_in_full(tiny_weights: Path, tmp_path: Path) -> None:
    module = _module(tiny_weights)
    trainer = quiet_trainer(tmp_path)
    trainer.test(module, datamodule=_data(num_videos=1), verbose=False)
    assert trainer.callback_metrics.keys() == module.numbers.keys()
    assert module.numbers.keys() >= {"test/mIoU", "test/VC2", "test/num_videos"}
    assert module.results[0].naming == "hungarian"
    assert set(module.results[0].names) <= set(range(4))


def test_predict_gives_cluster_ids(tiny_weights: Path, tmp_path: Path) -> None:
    module = _module(tiny_weights)
    outputs = quiet_trainer(tmp_path).predict(module, datamodule=_data(num_videos=1))
    labels: list[Tensor] = [output["labels"] for output in outputs]
    assert [tuple(part.shape) for part in labels] == [(2, 64, 64), (3, 64, 64)]
    assert all(part.dtype == torch.int64 for part in labels)
    assert set(torch.cat(labels).unique().tolist()) <= set(range(4))


def test_first_frame_naming_needs_its_ground_truth(tiny_weights: Path) -> None:
    module = _module(tiny_weights, naming=FirstFrameNaming())
    frames_THW3 = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    labelled_T = torch.tensor([False, True])
    clip = Clip("pond", 0, 0, frames_THW3, torch.zeros(2, 64, 64), labelled_T, 2, 2, ("0", "1"))
    with pytest.raises(ValueError, match=r"pond: its first frame has no ground truth.*LabelledFrameNaming"):
        module._first_labels(clip)


def test_first_frame_naming_sees_classes_not_raw_values(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(tiny_weights, naming=FirstFrameNaming())
    taxonomy = Taxonomy("shifted", ("sky", "road"), ((0, 0, 1), (0, 1, 0)), {1: 0, 2: 1})
    monkeypatch.setattr(VideoSegmentation, "data", type("Data", (), {"taxonomy": taxonomy})())
    raw_THW = torch.tensor([[[0, 1, 2, 255]]], dtype=torch.uint8)
    clip = Clip("pond", 0, 0, torch.zeros(1, 1, 4, 3, dtype=torch.uint8), raw_THW, torch.tensor([True]), 1, 1, ("0",))
    first_HW = module._first_labels(clip)
    assert first_HW is not None
    assert first_HW.tolist() == [[-1, 0, 1, -1]]
    assert module._first_labels(clip._replace(index=1)) is None


def test_random_numbers_of_a_clip_are_its_own() -> None:
    keys = [(0, "vspw", "bear", 0), (1, "vspw", "bear", 0), (0, "camvid", "bear", 0), (0, "vspw", "bea", 0)]
    keys += [(0, "vspw", "bear", 1), (0, "vspw", "bear1", 0), (0, "vspwb", "ear", 0)]
    seeds = [clip_generator(*key).initial_seed() for key in keys]
    assert len(set(seeds)) == len(seeds)
    # The numbers are part of what is published: they must not change between versions.
    assert clip_generator(0, "vspw", "bear", 0).initial_seed() == 4946648920292847415


class _VoidAtFirst(ProceduralVideos):
    """Nothing that the first frame shows is a class."""

    @property
    def taxonomy(self) -> Taxonomy:
        names = ("nothing", "else")
        return Taxonomy("void", names, ((0, 0, 1), (0, 1, 0)), {100: 0, 101: 1}, void=frozenset(range(100)))


def test_a_first_frame_that_is_all_void_keeps_its_clusters_apart_and_is_told(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Merged into one label they would be perfectly consistent."""
    data = _VoidAtFirst(num_videos=1, num_frames=5, height=64, width=64, clip_length=3, num_workers=0)
    module = _module(tiny_weights, naming=FirstFrameNaming())
    quiet_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    (result,) = module.results
    assert any("its first frame is void" in note for note in result.notes)
    assert "its first frame is void" in caplog.text
    assert not any("one cluster" in note for note in result.notes)
    assert 0 < module.numbers["test/VC2"] < 1


@pytest.mark.parametrize(("spoiled_calls", "failed"), [({0}, 0), ({3}, 1)])
def test_what_is_not_finite_is_a_failure_of_that_video(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled_calls: set[int], failed: int
) -> None:
    """Two clips a video: the first video fails at its first clip, or the second one at its last."""
    module = _module(tiny_weights)
    encode, calls = module.backbone.encode, itertools.count()

    def spoiled(images_T3HW: Tensor, noise: Any) -> Tensor:
        latents = encode(images_T3HW, noise)
        if next(calls) in spoiled_calls:
            latents[0, 0, 0, 0] = torch.inf
        return latents

    monkeypatch.setattr(module.backbone, "encode", spoiled)
    data = _data(skip_unreadable=True)
    writer = PredictionWriter(in_test=True, video=False)
    quiet_trainer(tmp_path, [writer, ResultStore({"model": {}, "data": {}})]).test(
        module, datamodule=data, verbose=False
    )
    names = [video.name for video in data.videos()]
    assert list(module.failures) == [names[failed]]
    assert [result.name for result in module.results] == [names[1 - failed]]
    assert next(calls) == (3 if failed == 0 else 4)  # the rest of a failed video is not computed
    reason = module.failures[names[failed]]
    assert f"video '{names[failed]}'" in reason
    assert "cannot be segmented: latents after the encoder are not finite" in reason
    assert "trainer.precision 32-true" in reason
    assert json.loads((tmp_path / "records" / "test" / "failures.json").read_text()) == module.failures
    assert len(list((tmp_path / "records" / "test" / "videos").glob("*.json"))) == 1


def test_without_a_store_what_is_not_finite_ends_the_run(tiny_weights: Path, tmp_path: Path) -> None:
    module = _module(tiny_weights)
    module.backbone.load()
    next(module.backbone.unet.parameters()).data[0] = torch.nan
    for task in ("test", "predict"):
        with pytest.raises(UnsegmentedVideoError, match="latents after step 22 of the feature pass are not finite"):
            getattr(quiet_trainer(tmp_path), task)(module, datamodule=_data(num_videos=1))


@pytest.mark.parametrize(
    ("backbone", "parts", "unknown"),
    [
        (Embedded, [AttentionFeatures, LabFeatures, PositionFeatures], None),
        (Embedded, [LabFeatures, PositionFeatures], "LabFeatures and PositionFeatures of Embedded"),
        (StableDiffusion, [AttentionFeatures, LabFeatures, PositionFeatures], "PositionFeatures of StableDiffusion"),
        (StableDiffusion, [], "AttentionFeatures of StableDiffusion"),
    ],
)
def test_newcomers_with_features_that_they_were_not_trained_on_are_told(
    tiny_weights: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    backbone: type[Embedded] | type[StableDiffusion],
    parts: list[type[Features]],
    unknown: str | None,
) -> None:
    for novelty in (None, Newcomers()):
        caplog.clear()
        segmentation = VideoSegmentation(
            Embedded() if backbone is Embedded else StableDiffusion(str(tiny_weights)),
            *(KNNSceneContext(2, num_restarts=1, novelty=novelty), None, None),
            features=JointFeatures([part() for part in parts]) if parts else None,
            naming=HungarianNaming(),
        )
        quiet_trainer(tmp_path).predict(segmentation, datamodule=_data(num_videos=1, num_frames=1))
        if novelty is None or unknown is None:
            assert "Newcomers" not in caplog.text
        else:
            assert f"{unknown} it may open too many labels or none" in caplog.text
