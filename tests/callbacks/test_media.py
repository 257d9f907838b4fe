"""Media of whole runs, with a network too small to be any good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.callbacks.media import MediaStore
from zsvss.callbacks.store import ResultStore
from zsvss.data.procedural import ProceduralVideos
from zsvss.metrics import FirstFrameNaming, HungarianNaming, confusion_matrix, total_confusion
from zsvss.module import VideoSegmentation
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.viz.media import VideoMedia, read_media

SETTINGS: dict[str, Any] = {"model": {}, "data": {}}


def start(
    weights: Path, folder: Path, store: MediaStore, naming: Any = None, task: str = "test", num_videos: int = 3
) -> VideoSegmentation:
    data = ProceduralVideos(num_videos=num_videos, num_frames=5, height=64, width=128, clip_length=3, num_workers=0)
    context = KNNSceneContext(num_clusters=4, num_restarts=1)
    module = VideoSegmentation(
        StableDiffusion(str(weights)), context, CorrespondenceRefinement(), None, naming=naming, windows=(2,)
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=[store, ResultStore(SETTINGS)],
    )
    getattr(trainer, task)(module, datamodule=data)
    return module


def confusion(media: VideoMedia) -> torch.Tensor:
    pairs = [(media.labels("final", t), media.ground_truth(t)) for t in range(media.num_frames)]
    maps = [confusion_matrix(torch.from_numpy(ours), torch.from_numpy(truth), 10) for ours, truth in pairs]
    return torch.stack(maps).sum(0)


@pytest.mark.parametrize("naming", [FirstFrameNaming(), HungarianNaming()], ids=lambda naming: naming.name)
def test_media_are_what_was_scored(tiny_weights: Path, tmp_path: Path, naming: Any) -> None:
    module = start(tiny_weights, tmp_path, MediaStore(), naming)
    media = read_media(tmp_path)
    assert [video.video for video in media] == [result.name for result in module.results]
    assert [video.num_frames for video in media] == [5, 5, 5], "frames of overlapping clips are kept once"
    assert torch.equal(sum(map(confusion, media)), total_confusion(module.results))
    assert media[0].labels("coarse", 4).shape == media[0].labels("refined", 4).shape == (4, 8)
    cells_hw = media[0].labels("refined", 4)
    # Without modulation every pixel takes the label of its cell.
    np.testing.assert_array_equal(cells_hw.repeat(16, 0).repeat(16, 1), media[0].labels("final", 4))


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
