"""The segmenter as a library: no Lightning, no files."""

import itertools

import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.backbones.input_size import resize_frames
from zsvss.segmenter import VideoSegmenter, to_grid
from zsvss.stages.clip_buffer import in_clips
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import ColorPositionFeatures
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.joint_features import JointFeatures, LabFeatures, LatentFeatures, PositionFeatures
from zsvss.stages.modulation import MaskedModulation, NearestUpsampling
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.specks import merge_specks
from zsvss.stages.trace import Trace
from zsvss.stages.upsampling import GuidedUpsampling


def full_method(**settings):
    return VideoSegmenter(ToyBackbone(), KNNSceneContext(4), CorrespondenceRefinement(), MaskedModulation(), **settings)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def purity(labels, kinds):
    """Share of pixels whose label's majority kind is their own."""
    right = sum(int(torch.bincount(kinds[labels == label]).max()) for label in labels.unique())
    return right / labels.numel()


def test_a_video_of_coloured_bands_is_segmented_consistently_over_clips():
    frames, bands = striped_video(num_frames=10)
    segmenter = full_method()
    labels = torch.cat([segmenter(clip, generator=generator(i)).labels_THW for i, clip in enumerate(frames.split(5))])
    assert labels.shape == bands.shape
    assert labels.dtype == torch.int64
    assert purity(labels, bands) > 0.85  # cells of 16 pixels straddle the bands' borders


def test_memory_lasts_until_reset():
    frames, _ = striped_video()
    segmenter = full_method()
    first = segmenter(frames, generator=generator()).labels_THW
    carried = segmenter.memory
    segmenter(frames, generator=generator())
    assert segmenter.memory.label_set_L is carried.label_set_L
    segmenter.reset()
    assert segmenter.memory is None
    assert torch.equal(segmenter(frames, generator=generator()).labels_THW, first)


def test_first_labels_make_labels_classes():
    frames, bands = striped_video(height=256)
    names = torch.tensor([200, 7, 7, 31])
    labels = full_method()(frames, generator=generator(), first_labels_HW=names[bands[0]]).labels_THW
    assert set(labels.unique().tolist()) <= {7, 31, 200}
    assert (labels == names[bands]).float().mean() > 0.85


@pytest.mark.parametrize("num_wanted", [0, 2, 5])
@pytest.mark.parametrize("couples_frames", [False, True])
def test_unwanted_frames_shape_the_context_but_are_not_modulated(num_wanted, couples_frames):
    frames, _ = striped_video()
    everything, some = full_method(), full_method()
    some.backbone.couples_frames = everything.backbone.couples_frames = couples_frames
    all_of_them = everything(frames, generator=generator())
    wanted = some(frames, generator=generator(), num_wanted=num_wanted)
    for ours, whole in zip(wanted[:3], all_of_them[:3], strict=True):
        assert torch.equal(ours, whole[:num_wanted])
    assert torch.equal(some.memory.labels_N, everything.memory.labels_N)
    if not couples_frames:
        assert {frame for rows in some.backbone.rows for frame in rows} == set(range(num_wanted))


def test_null_stages_are_the_identity():
    frames, _ = striped_video()
    segmenter = VideoSegmenter(ToyBackbone(), KNNSceneContext(4))
    trace = Trace()
    labels = segmenter(frames, generator=generator(), trace=trace).labels_THW
    assert torch.equal(trace.refined_Tn, trace.coarse_Tn)
    assert trace.trajectories_TP is None
    assert trace.difference_maps == []
    cells = trace.refined_Tn.unflatten(1, trace.grid).repeat_interleave(16, 1).repeat_interleave(16, 2)
    assert torch.equal(labels, cells)
    assert isinstance(segmenter.modulation, NearestUpsampling)
    assert isinstance(VideoSegmenter(ToyBackbone()).context, PerFrameClustering)


def test_trace_holds_every_intermediate_and_changes_nothing():
    frames, _ = striped_video()
    trace = Trace()
    segmented = full_method()(frames, generator=generator(), trace=trace)
    plain = full_method()(frames, generator=generator())
    assert all(torch.equal(*pair) for pair in zip(segmented[:3], plain[:3], strict=True))
    assert torch.equal(segmented.labels_THW, trace.labels_THW)
    assert torch.equal(segmented.coarse_Thw.flatten(1), trace.coarse_Tn)
    assert torch.equal(segmented.refined_Thw, trace.refined_Tn.unflatten(1, trace.grid))
    missing = [name for name, value in vars(trace).items() if value is None or value in ([], {})]
    assert missing == []


@pytest.mark.parametrize("num_frames", [1, 2])
def test_short_videos_work(num_frames):
    frames, _ = striped_video(num_frames)
    assert full_method()(frames, generator=generator()).labels_THW.shape == frames.shape[:3]


def test_frames_of_any_size_come_back_at_their_own():
    frames, _ = striped_video(height=101, width=83)  # portrait, and no multiple of anything
    before = frames.clone()
    trace = Trace()
    labels = full_method()(frames, generator=generator(), trace=trace).labels_THW
    assert labels.shape == (5, 101, 83)
    assert trace.latents_Tcuv.shape[-2:] == (96 // 8, 64 // 8)
    assert torch.equal(frames, before)


def test_input_size_decides_what_the_backbone_sees():
    frames, _ = striped_video()
    trace = Trace()
    labels = full_method(input_size=(130, 200))(frames, generator=generator(), trace=trace).labels_THW
    assert trace.latents_Tcuv.shape[-2:] == (128 // 8, 192 // 8)
    assert labels.shape == frames.shape[:3]


def test_frames_may_be_resized_before():
    frames, _ = striped_video()
    segmenter = full_method(input_size=(130, 200))
    resized = resize_frames(frames, segmenter.network_size.of(*frames.shape[1:3]))
    plain = full_method(input_size=(130, 200))(frames, generator=generator()).labels_THW
    assert torch.equal(segmenter(frames, resized_THW3=resized, generator=generator()).labels_THW, plain)
    with pytest.raises(ValueError, match=r"resized frames are \[64, 64\]; this backbone wants \[128, 192\]"):
        segmenter(frames, resized_THW3=resize_frames(frames, (64, 64)))


def test_results_do_not_depend_on_global_randomness():
    frames, _ = striped_video()
    torch.manual_seed(1)
    first = full_method()(frames, generator=generator(3)).labels_THW
    torch.manual_seed(2)
    assert torch.equal(full_method()(frames, generator=generator(3)).labels_THW, first)


def test_autocast_does_not_change_distances():
    frames, _ = striped_video()
    plain = full_method()(frames, generator=generator()).labels_THW
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(full_method()(frames, generator=generator()).labels_THW, plain)


def test_a_half_precision_default_does_not_change_distances():
    """Lightning's `16-true` and `bf16-true` set the default dtype during steps."""
    frames, _ = striped_video(height=320)
    plain = full_method()(frames, generator=generator()).labels_THW
    segmenter = full_method()
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(segmenter(frames, generator=generator()).labels_THW, plain)
    finally:
        torch.set_default_dtype(torch.float32)


def test_seconds_of_every_stage_are_reported(monkeypatch):
    """By a clock that ticks once a look: stages are measured one after another, without a gap and none twice."""
    ticks = itertools.count()
    monkeypatch.setattr("zsvss.segmenter.device_clock", lambda _: float(next(ticks)))
    seconds = full_method()(striped_video()[0], generator=generator()).seconds
    # Each of the stages' eight functions takes a tick, and so does the look for what is not finite; one of K-means and
    # two of neighbours lie within.
    assert seconds == {
        "encode": 2.0,
        "record": 3.0,
        "kmeans": 1.0,
        "knn": 1.0,
        "context": 4.0,
        "refinement": 1.0,
        "modulation": 1.0,
    }


def test_frames_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]; found torch.float32"):
        full_method()(torch.zeros(2, 64, 64, 3))
    with pytest.raises(ValueError, match=r"frames of 16x64 pixels are too small.*32x32.*input_size"):
        full_method()(torch.zeros(2, 16, 64, 3, dtype=torch.uint8))


def test_labels_are_sampled_at_the_centre_of_each_cell():
    labels = torch.arange(12).view(2, 6)
    assert to_grid(labels, (1, 3)).tolist() == [[7, 9, 11]]  # the centres lie on corners: below and right of them


def no_network(*_args, **_options):
    raise AssertionError("the network was run")


@pytest.mark.parametrize(
    ("features", "encodes"),
    [
        (ColorPositionFeatures(), False),
        (JointFeatures([LabFeatures(), PositionFeatures()], [1, 0.5]), False),
        (JointFeatures([LabFeatures(), LatentFeatures()]), True),
    ],
)
def test_features_that_need_no_recording_skip_the_network(monkeypatch, features, encodes):
    frames, bands = striped_video(height=256)
    with_network = VideoSegmenter(ToyBackbone(), KNNSceneContext(4), features=features)
    expected = with_network(frames, generator=generator(), trace=Trace()).labels_THW  # a trace wants everything
    monkeypatch.setattr(ToyBackbone, "record", no_network)
    monkeypatch.setattr(ToyBackbone, "condition", no_network)
    if not encodes:
        monkeypatch.setattr(ToyBackbone, "encode", no_network)
    labels = VideoSegmenter(ToyBackbone(), KNNSceneContext(4), features=features)(frames, generator=generator())
    assert torch.equal(labels.labels_THW, expected)
    assert purity(expected, bands) > 0.8


def test_small_regions_are_merged_but_not_what_is_given():
    frames, _ = striped_video()
    given = torch.full((5, 64, 96), -1)
    given[0] = 1
    given[0, :, 48:] = 2
    given[0, 10, 10] = 7  # an object of one pixel
    given[1, 20:22, 20:22] = 8
    settings = {"features": ColorPositionFeatures(), "min_region": 0.05}
    segmenter = VideoSegmenter(ToyBackbone(), GivenLabels(), **settings)
    labels = segmenter(frames, generator=generator(), given_THW=given).labels_THW
    assert torch.equal(labels[0], given[0])
    assert (labels[1, 20:22, 20:22] == 8).all()


def test_small_regions_of_clusters_are_merged():
    frames, _ = striped_video()
    frames[:, 30:34, 40:44] = 255
    segmenter = VideoSegmenter(ToyBackbone(), KNNSceneContext(6), modulation=GuidedUpsampling(radius=4))
    plain = segmenter(frames, generator=generator()).labels_THW
    segmenter.reset()
    segmenter.min_region = 0.02
    merged = segmenter(frames, generator=generator()).labels_THW
    assert not torch.equal(plain, merged)
    assert torch.equal(merged, merge_specks(plain, 0.02))
    with pytest.raises(ValueError, match=r"min_region = 1.5 must be a share"):
        VideoSegmenter(ToyBackbone(), min_region=1.5)


def test_frames_of_a_stream_are_labelled_as_those_of_clips():
    frames, _ = striped_video(num_frames=10)
    segmenter = full_method()
    labels = torch.stack(list(segmenter.stream(iter(frames), clip_length=4)))
    segmenter.reset()
    clips = [segmenter(clip, generator=generator(number)).labels_THW for number, clip in enumerate(frames.split(4))]
    assert torch.equal(labels, torch.cat(clips))
    assert torch.equal(labels[:4], torch.stack(list(segmenter.stream(frame.numpy() for frame in frames[:4]))))


class EveryFive:
    """Says that a shot begins with every fifth frame, one frame late."""

    def __init__(self):
        self.num_seen = 0

    @property
    def settled(self):
        return max(0, self.num_seen - 1)

    def feed(self, frame_HW3):
        self.num_seen += 1
        return [self.settled - 1] if self.num_seen > 6 and (self.settled - 1) % 5 == 0 else []

    def finish(self):
        return []


def test_clips_of_a_stream_end_with_their_shots():
    frames = torch.arange(13, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 1, 3)
    clips = [(clip[:, 0, 0, 0].tolist(), shot) for clip, shot in in_clips(frames, 3, EveryFive())]
    assert clips == [([0, 1, 2], 0), ([3, 4], 0), ([5, 6, 7], 1), ([8, 9], 1), ([10, 11, 12], 2)]
    assert [clip.shape[0] for clip, _ in in_clips(frames, 20)] == [13]
    with pytest.raises(ValueError, match=r"stream\.clip_length = 0 must be at least 1"):
        list(in_clips(frames, 0))
