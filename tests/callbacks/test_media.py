"""Media of whole runs, with a network too small to be any good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import quiet_trainer

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.callbacks.media import MediaStore
from zsvss.callbacks.prediction_writer import PredictionWriter
from zsvss.callbacks.resume import ResultStore
from zsvss.data.procedural import PROCEDURAL, ProceduralVideos
from zsvss.data.taxonomy import Taxonomy
from zsvss.metrics import FirstFrameNaming, HungarianNaming, confusion_matrix, total_confusion
from zsvss.module import VideoSegmentation
from zsvss.results.media import VideoMedia, read_media
from zsvss.results.predictions import Predictions
from zsvss.stages.context import KNNSceneContext, SceneContext
from zsvss.stages.nearest_resizing import nearest
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement

SETTINGS: dict[str, Any] = {"model": {}, "data": {}}


def start(
    weights: Path,
    folder: Path,
    store: MediaStore,
    naming: Any = None,
    task: str = "test",
    num_videos: int = 3,
    writers: Sequence[PredictionWriter] = (),
    dataset: type[ProceduralVideos] = ProceduralVideos,
    context: SceneContext | None = None,
) -> VideoSegmentation:
    data = dataset(num_videos=num_videos, num_frames=5, height=64, width=128, clip_length=3, num_workers=0)
    context = context or KNNSceneContext(num_clusters=4, num_restarts=1)
    module = VideoSegmentation(
        StableDiffusion(str(weights)), context, CorrespondenceRefinement(), None, naming=naming, windows=(2,)
    )
    trainer = quiet_trainer(folder, [*writers, store, ResultStore(SETTINGS)])
    getattr(trainer, task)(module, datamodule=data)
    return module


def confusion(media: VideoMedia) -> torch.Tensor:
    pairs = [(media.labels("final", t), media.ground_truth(t)) for t in range(media.num_frames)]
    maps = [confusion_matrix(torch.from_numpy(ours), torch.from_numpy(truth), 10) for ours, truth in pairs]
    return torch.stack(maps).sum(0)


@pytest.mark.parametrize("naming", [FirstFrameNaming(), HungarianNaming()], ids=lambda naming: naming.name)
def test_media_are_what_was_scored(tiny_weights: Path, tmp_path: Path, naming: Any) -> None:
    writer = PredictionWriter(in_test=True, video=False)
    module = start(tiny_weights, tmp_path, MediaStore(), naming, writers=[writer])
    media = read_media(tmp_path)
    assert [video.video for video in media] == [result.name for result in module.results]
    assert [video.num_frames for video in media] == [5, 5, 5], "frames of overlapping clips are kept once"
    assert torch.equal(sum(map(confusion, media)), total_confusion(module.results))
    assert media[0].labels("coarse", 4).shape == media[0].labels("refined", 4).shape == (4, 8)
    for video in media:
        predictions = Predictions.read(tmp_path / "predictions" / video.video)
        assert predictions.labels_are_classes == (naming.name == "first_frame")
        assert [entry.name for entry in predictions.classes] == list(PROCEDURAL.classes)
        for segment in predictions.segments:
            label = segment.id - 1
            class_id = label if predictions.labels_are_classes else video.names.get(label)
            assert segment.class_id == class_id
            if class_id is not None:
                assert segment.name == PROCEDURAL.classes[class_id]
        np.testing.assert_array_equal(predictions.mask(4) - 1, video.labels("final", 4, named=False))
    cells_hw = media[0].labels("refined", 4)
    # Without modulation every pixel takes the label of its cell.
    np.testing.assert_array_equal(cells_hw.repeat(16, 0).repeat(16, 1), media[0].labels("final", 4))


@pytest.mark.parametrize("context", [KNNSceneContext, PerFrameClustering])
def test_clusters_of_the_first_frame_are_kept(tiny_weights: Path, tmp_path: Path, context: type[SceneContext]) -> None:
    """Each bears the class that most of its tokens have in the first frame's ground truth."""
    start(tiny_weights, tmp_path, MediaStore(), num_videos=1, context=context(num_clusters=4, num_restarts=1))
    (media,) = read_media(tmp_path)
    clusters_hw = media.clusters(0)
    assert clusters_hw is not None
    assert clusters_hw.shape == media.labels("coarse", 0).shape
    truth_hw = nearest(torch.from_numpy(media.ground_truth(0)), clusters_hw.shape).numpy()
    assert sorted(media.cluster_names) == np.unique(clusters_hw).tolist() != [0]
    for cluster, class_id in media.cluster_names.items():
        votes = np.bincount(truth_hw[(clusters_hw == cluster) & (truth_hw >= 0)])
        assert class_id == votes.argmax()
    assert media.clusters(1) is None, "classes are what is carried on"


def test_clusters_that_were_named_after_the_run(tiny_weights: Path, tmp_path: Path) -> None:
    start(tiny_weights, tmp_path, MediaStore(), HungarianNaming(), num_videos=1)
    (media,) = read_media(tmp_path)
    assert media.cluster_names == media.names != {}
    np.testing.assert_array_equal(media.clusters(4), media.labels("final", 4, named=False))
    assert not (media.folder / "clusters").exists()


class WithoutLandscape(ProceduralVideos):
    """Its sky, hills, road and grass are void, as large a part of every frame as any class."""

    @property
    def taxonomy(self) -> Taxonomy:
        return replace(PROCEDURAL, class_of_raw={raw: raw for raw in range(4, 10)}, void=frozenset(range(4)))


def test_void_as_a_label_has_its_own_colour(tiny_weights: Path, tmp_path: Path) -> None:
    writer = PredictionWriter(in_test=True, video=False)
    naming = FirstFrameNaming(void_as_label=True)
    start(tiny_weights, tmp_path, MediaStore(), naming, num_videos=1, writers=[writer], dataset=WithoutLandscape)
    (media,) = read_media(tmp_path)
    void = len(PROCEDURAL.classes)
    labels_HW = media.labels("final", 0)
    assert void in labels_HW
    assert media.colors[[0, void]].tolist() == [list(PROCEDURAL.palette[0]), [0, 0, 0]]
    (segments,) = (tmp_path / "predictions").rglob("segments.json")
    colors = {segment["id"]: segment["color"] for segment in json.loads(segments.read_text())["segments"]}
    assert colors[void + 1] == [0, 0, 0]
    assert all(colors[number] == list(PROCEDURAL.palette[number - 1]) for number in colors if number <= void)
    for mask, shift in ((segments.parent / "masks" / "00000.png", 1), (media.path("final", 0), 0)):
        with Image.open(mask) as image:
            assert (np.asarray(image) == labels_HW + shift).all()
            assert (np.asarray(image.convert("RGB"))[labels_HW == void] == 0).all()


def test_few_videos_few_frames(tiny_weights: Path, tmp_path: Path) -> None:
    module = start(tiny_weights, tmp_path, MediaStore(videos=2, num_frames=4))
    media = read_media(tmp_path)
    assert [video.video for video in media] == [module.results[0].name, module.results[2].name]
    assert [video.frame_names for video in media] == [("00000", "00001", "00002", "00003")] * 2
    assert {video.video_length for video in media} == {5}


def test_missing_media_are_made_by_the_next_start(tiny_weights: Path, tmp_path: Path) -> None:
    first = start(tiny_weights, tmp_path, MediaStore(0), num_videos=2)
    assert not (tmp_path / "media").exists()
    again = start(tiny_weights, tmp_path, MediaStore(), num_videos=2)
    assert len(read_media(tmp_path)) == 2
    assert again.numbers == first.numbers
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "media").rglob("*.png")}
    third = start(tiny_weights, tmp_path, MediaStore(), num_videos=2)
    assert third.numbers == first.numbers
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "media").rglob("*.png")} == written


def test_predict_keeps_media_if_asked(tiny_weights: Path, tmp_path: Path) -> None:
    start(tiny_weights, tmp_path, MediaStore(), task="predict", num_videos=1)
    assert not (tmp_path / "media").exists()
    start(tiny_weights, tmp_path, MediaStore(in_predict=True), task="predict", num_videos=1)
    (media,) = read_media(tmp_path, "predict")
    assert not media.labels_are_classes
    assert media.num_frames == 5


def test_a_video_that_is_cut_short_leaves_nothing(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, calls = VideoSegmentation.test_step, []

    def failing(self: VideoSegmentation, clip: Any, batch_idx: int) -> Any:
        calls.append(clip)
        if len(calls) == 4:
            raise RuntimeError("stopped in the second video")
        return step(self, clip, batch_idx)

    monkeypatch.setattr(VideoSegmentation, "test_step", failing)
    with pytest.raises(RuntimeError, match="second video"):
        start(tiny_weights, tmp_path, MediaStore(), num_videos=2)
    assert [path.name for path in (tmp_path / "media" / "test").iterdir()] == [calls[0].video]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"videos": -1}, "media.videos is -1"),
        ({"num_frames": 0}, "media.num_frames is 0"),
        ({"max_side": 3}, "max_side 3"),
    ],
)
def test_mistakes(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MediaStore(**settings)


def test_unknown_video(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"media\.videos: there is no video bear; there are 2000000_normal"):
        start(tiny_weights, tmp_path, MediaStore(["bear"]))
