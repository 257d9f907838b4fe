"""What every stage promises, over every class found in the package."""

import hashlib
from collections import Counter

import pytest
import torch
from every_class import SLOTS, concrete_subclasses, made, segmenter_with
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.attention_merging import AttentionMerging
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.initialization import Initialization
from zsvss.stages.joint_features import JointFeatures
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.newcomers import Newcomers
from zsvss.stages.novelty import Novelty
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("padding", [0, 16])
@pytest.mark.parametrize(("slot", "kind"), SLOTS)
class TestEveryStage:
    def test_two_clips_of_any_size_are_segmented_and_inputs_stay(self, slot, kind, padding):
        frames, _ = striped_video(num_frames=5, height=70, width=101)
        before = frames.clone()
        segmenter = segmenter_with(slot, kind, padding=padding)
        labels = [segmenter(clip, generator=generator(i)).labels_THW for i, clip in enumerate(frames.split(3))]
        assert [tuple(part.shape) for part in labels] == [(3, 70, 101), (2, 70, 101)]
        assert all(part.dtype == torch.int64 for part in labels)
        assert torch.equal(frames, before)
        known = set(segmenter.memory.label_set_L.tolist())
        assert all(set(part.unique().tolist()) <= known for part in labels)

    def test_a_stage_holds_no_state(self, slot, kind, padding):
        frames, _ = striped_video(num_frames=3)
        segmenter = segmenter_with(slot, kind, padding=padding)
        first = segmenter(frames, generator=generator()).labels_THW
        segmenter.reset()
        segmenter(frames.flip(1), generator=generator())
        segmenter.reset()
        assert torch.equal(segmenter(frames, generator=generator()).labels_THW, first)

    def test_one_frame_is_a_video(self, slot, kind, padding):
        frames, _ = striped_video(num_frames=1)
        assert segmenter_with(slot, kind, padding=padding)(frames, generator=generator()).labels_THW.shape == (
            1,
            64,
            96,
        )

    def test_unwanted_frames_change_nothing(self, slot, kind, padding):
        frames, _ = striped_video(num_frames=4)
        everything = segmenter_with(slot, kind, padding=padding)(frames, generator=generator())
        some = segmenter_with(slot, kind, padding=padding)(frames, generator=generator(), num_wanted=2)
        assert torch.equal(some.labels_THW, everything.labels_THW[:2])


def test_classes_of_every_slot_were_found():
    found = Counter(param.values[0] for param in SLOTS)
    at_least = Counter(context=2, initialization=3, features=6, refinement=1, modulation=4)
    assert found >= at_least


@pytest.mark.parametrize("kind", concrete_subclasses(Initialization), ids=lambda kind: kind.__name__)
def test_an_initialization_numbers_its_clusters_by_their_first_tokens(kind):
    frames, _ = striped_video(num_frames=2)
    segmenter = segmenter_with("initialization", kind)
    segmenter(frames)
    first = segmenter.memory.label_set_L
    assert first.tolist() == list(range(len(first)))


@pytest.mark.parametrize("kind", concrete_subclasses(Initialization), ids=lambda kind: kind.__name__)
def test_an_initialization_takes_the_names_of_ground_truth(kind):
    frames, bands = striped_video(num_frames=2)
    names = torch.tensor([200, 7, 7, 31])
    labels = segmenter_with("initialization", kind)(frames, first_labels_HW=names[bands[0]]).labels_THW
    assert set(labels.unique().tolist()) <= {7, 31, 200}


@pytest.mark.parametrize("novelty", [Novelty, Newcomers])
def test_everything_together_on_two_clips(novelty):
    frames, _ = striped_video(num_frames=5, height=70, width=101)
    context = KNNSceneContext(4, initialization=made(AttentionMerging), novelty=novelty())
    segmenter = VideoSegmenter(ToyBackbone(), context, features=made(JointFeatures), padding=16)
    assert [segmenter(clip).labels_THW.shape for clip in frames.split(3)] == [(3, 70, 101), (2, 70, 101)]


@pytest.mark.parametrize(("slot", "kind"), SLOTS)
def test_a_half_precision_default_changes_nothing(slot, kind):
    frames, _ = striped_video(num_frames=3)
    plain = segmenter_with(slot, kind)(frames, generator=generator()).labels_THW
    segmenter = segmenter_with(slot, kind)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(segmenter(frames, generator=generator()).labels_THW, plain)
    finally:
        torch.set_default_dtype(torch.float32)


DEFAULT_PATH = {
    "paper": "2b84fbb4fcd52603",
    "null": "d7ee4ffd892c7ba5",
    "first frame": "5d856704b68a7bbe",
}


@pytest.mark.parametrize("name", DEFAULT_PATH)
def test_what_is_off_by_default_changes_no_bit_of_the_paper_s_path(name):
    """Hashes of the labels from before there was anything to switch on."""
    stages = {
        "paper": (KNNSceneContext(4), CorrespondenceRefinement(), MaskedModulation()),
        "null": (PerFrameClustering(5), None, None),
        "first frame": (KNNSceneContext(6, fit_frames="first"), CorrespondenceRefinement(), None),
    }[name]
    segmenter = VideoSegmenter(ToyBackbone(), *stages)
    frames, _ = striped_video(num_frames=10, height=101, width=150)
    labels = torch.cat([segmenter(clip, generator=generator(i)).labels_THW for i, clip in enumerate(frames.split(5))])
    assert hashlib.sha256(labels.numpy().tobytes()).hexdigest()[:16] == DEFAULT_PATH[name]
