"""Masks that are given: to `test` by the protocol of DAVIS, to `predict` by the user."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import quiet_trainer
from toy_backbone import ToyBackbone, striped_video

from zsvss.data.davis import Davis
from zsvss.data.folder import VideoFolder
from zsvss.metrics import FirstFrameNaming, GivenFirstFrameNaming
from zsvss.metrics.objects import frame_counts, object_scores
from zsvss.module import VideoSegmentation
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import ColorPositionFeatures
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.refinement import CorrespondenceRefinement


@pytest.fixture
def video(tmp_path):
    """Seven frames of four bands, of which the third one is the object, in the layout of DAVIS."""
    frames, bands = striped_video(num_frames=7)
    for folder, arrays in (("frames", frames), ("masks", (bands == 2) * 255)):
        (tmp_path / folder / "bands").mkdir(parents=True)
        for number, array in enumerate(arrays.numpy().astype(np.uint8)):
            Image.fromarray(array).save(tmp_path / folder / "bands" / f"{number:05d}.png")
    return tmp_path, bands


def module(context=None, naming=None, refinement=None):
    return VideoSegmentation(
        *(ToyBackbone(), context or GivenLabels(), refinement, None),
        features=ColorPositionFeatures(),
        naming=naming or GivenFirstFrameNaming(),
        windows=(2,),
    )


def davis(root):
    return Davis(root, year="2016", split="all", clip_length=3, tail="short", num_workers=0)


def test_davis_is_scored_by_j_and_f_of_what_the_first_frame_gives(video, tmp_path):
    root, bands = video
    segmentation = module()
    quiet_trainer(tmp_path / "run").test(segmentation, datamodule=davis(root), verbose=False)
    predicted = quiet_trainer(tmp_path / "run").predict(module(), datamodule=davis(root))
    labels = torch.cat([output["labels"] for output in predicted])
    counts = [frame_counts(pred == 1, truth == 2) for pred, truth in zip(labels, bands, strict=True)]
    expected = object_scores([counts], "semi_supervised")
    assert {name: segmentation.numbers[f"test/{name}"] for name in expected} == expected
    assert expected["J"] > 0.75
    assert torch.equal(labels[0], (bands[0] == 2).long())
    assert segmentation.results[0].naming == "given_first_frame"


def test_no_mask_but_the_first_reaches_the_method(video, tmp_path):
    root, _ = video
    before = torch.cat([o["labels"] for o in quiet_trainer(tmp_path).predict(module(), datamodule=davis(root))])
    for path in sorted((root / "masks/bands").iterdir())[1:]:
        Image.new("L", (96, 64), 255).save(path)
    segmentation = module()
    data = davis(root)
    trainer = quiet_trainer(tmp_path)
    trainer.test(segmentation, datamodule=data, verbose=False)
    after = torch.cat([o["labels"] for o in quiet_trainer(tmp_path).predict(module(), datamodule=davis(root))])
    assert torch.equal(before, after)
    # Now every pixel is the object: what is predicted elsewhere is all that intersects.
    assert [c.intersection for c in segmentation.results[0].objects[1][1:]] == before[1:].flatten(1).sum(1).tolist()


@pytest.mark.parametrize(
    ("context", "naming", "message"),
    [
        (GivenLabels(), FirstFrameNaming(), "GivenLabels is given the first frame's.*--model.naming GivenFirstFrame"),
        (
            KNNSceneContext(2),
            GivenFirstFrameNaming(),
            "KNNSceneContext does not take: choose --model.context GivenLabels",
        ),
    ],
)
def test_a_protocol_that_does_not_say_what_happens_is_refused(video, tmp_path, context, naming, message):
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path).test(module(context, naming), datamodule=davis(video[0]), verbose=False)


def test_predict_propagates_the_masks_of_some_frames(video, tmp_path, caplog):
    root, bands = video
    masks = root / "some"
    masks.mkdir()
    given = {number: bands[number] * 40 + 7 for number in (1, 5)}
    given[1][:5] = 255  # left open
    for number, values in given.items():
        Image.fromarray(values.numpy().astype(np.uint8)).save(masks / f"{number:05d}.png")
    segmentation = module(KNNSceneContext(2), refinement=CorrespondenceRefinement())
    data = VideoFolder(root / "frames/bands", masks, clip_length=3, tail="short", num_workers=0)
    with caplog.at_level(logging.INFO, "zsvss"):
        outputs = quiet_trainer(tmp_path / "run").predict(segmentation, datamodule=data)
    labels = torch.cat([output["labels"] for output in outputs])
    assert "GivenLabels propagates them, in place of KNNSceneContext and of refinement" in caplog.text
    assert "bands: frames before the first one with a mask get no label" in caplog.text
    assert labels[0].unique().tolist() == [-1]
    assert torch.equal(labels[1, 5:], given[1][5:])
    assert torch.equal(labels[5], given[5])
    assert set(labels[1:].unique().tolist()) == {7, 47, 87, 127}
    assert ((labels == bands * 40 + 7)[1:].float().mean((1, 2)) > 0.7).all()


@pytest.mark.parametrize("ignored", [255, None])
def test_an_object_of_the_value_that_leaves_pixels_open_is_told(video, tmp_path, ignored):
    """Masks of 0 and 255, as DAVIS 2016 has them: by default 255 is no label, and nothing would come out."""
    (tmp_path / "some").mkdir()
    (video[0] / "masks/bands/00000.png").rename(tmp_path / "some/00000.png")
    data = VideoFolder(video[0] / "frames/bands", tmp_path / "some", ignore_value=ignored, num_workers=0)
    if ignored is None:
        outputs = quiet_trainer(tmp_path).predict(module(), datamodule=data)
        assert set(torch.cat([output["labels"] for output in outputs]).unique().tolist()) == {0, 255}
    else:
        with pytest.raises(ValueError, match=r"no label but 0 \(data.ignore_value, 255.*--data.ignore_value null"):
            quiet_trainer(tmp_path).predict(module(), datamodule=data)


def test_masks_of_no_frame_are_refused(video, tmp_path):
    (tmp_path / "some").mkdir()
    Image.new("L", (96, 64)).save(tmp_path / "some/00099.png")
    data = VideoFolder(video[0] / "frames/bands", tmp_path / "some", num_workers=0)
    with pytest.raises(ValueError, match=r"00099\.png belongs to no frame; name .* 00000 .. 00006"):
        quiet_trainer(tmp_path).predict(module(), datamodule=data)
