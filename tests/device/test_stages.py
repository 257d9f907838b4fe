"""Every class of the stages on the pretend accelerator: the CPU's labels, no mixed operation, waits that do not grow.

What a clip costs in waits is written out here: a stage that asks the device once more fails.
"""

import pytest
import torch
from every_class import SLOTS, made, segmenter_with
from pretend_device import DEVICE, running
from stalls import compared
from toy_backbone import striped_video

from zsvss.stages.attention_merging import AttentionMerging
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.features import ColorPositionFeatures
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.initialization import Initialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, LatentFeatures, PositionFeatures
from zsvss.stages.kmeans import cumulative_sums, kmeans
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.newcomers import Newcomers
from zsvss.stages.novelty import Novelty
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.refinement import CorrespondenceRefinement
from zsvss.stages.upsampling import ProbabilityUpsampling, SoftUpsampling

# K-means copies its random numbers, asks whether it has ended, and reads what it has found.
KMEANS = {"kmeans": 2 + 2 + 1}
# Features that are read without a pass of the network.
NO_NETWORK = (ColorPositionFeatures, LabFeatures, LatentFeatures, PositionFeatures)


def waits_of(slot, kind):
    """Waits by stage of the first clip and of a later one."""
    # The frames go to the host to be resized, and back; the clip's noise goes to the device, which is asked whether
    # what was recorded is finite.
    later = {"encode": 2, "record": 2, "knn": 0, "context": 0, "refinement": 0, "modulation": 0}
    later["record"] += kind in (JointFeatures, LabFeatures)  # the matrix of the colour space
    later["record"] -= kind in NO_NETWORK  # no noise goes to the device
    if kind is PerFrameClustering:
        del later["knn"]
        later |= KMEANS
        later["context"] = 2  # the distances to the host, the assignment back
    if issubclass(kind, ProbabilityUpsampling):
        later["modulation"] = 2  # which labels each frame has
    elif kind is MaskedModulation:
        later["modulation"] = 3  # and whether what was decoded is finite
    if kind is CorrespondenceRefinement:
        later["refinement"] = 1  # whether its features are finite
    # Where the nearest cells lie in both directions, of which a size is told once.
    nearest = 0 if issubclass(kind, ProbabilityUpsampling) else 2
    if kind is GivenLabels:  # nothing is given, so that nothing is clustered and no label is known
        del later["knn"]
        later["context"] = 1
        return later | {"modulation": nearest}, later
    first = later | KMEANS | {"context": later["context"] + 1}  # which labels the video has
    first["modulation"] += nearest
    if issubclass(kind, Initialization):
        del first["kmeans"]
        first["context"] = 9 if kind is AttentionMerging else 5
    return first, later


@pytest.mark.parametrize(("slot", "kind"), SLOTS)
def test_a_stage_gives_the_cpus_labels_and_its_waits_grow_with_nothing(slot, kind):
    for num_frames, num_clusters in ((2, 3), (4, 6)):
        frames, _ = striped_video(num_frames=2 * num_frames, height=70, width=101)
        waits = compared(lambda k=num_clusters: segmenter_with(slot, kind, k), list(frames.split(num_frames)))
        assert tuple(waits) == waits_of(slot, kind)


@pytest.mark.parametrize("novelty", [Novelty, Newcomers])
def test_all_that_is_off_by_default_on_a_padded_video(novelty):
    context = KNNSceneContext(4, initialization=made(AttentionMerging), novelty=novelty())
    frames, bands = striped_video(num_frames=4, height=70, width=101)
    names = torch.tensor([200, 7, 7, 31])[bands[0]]
    modulation = MaskedModulation(difference="published", mask_prior=0.7)
    parts = {"features": made(JointFeatures), "modulation": modulation}

    def make():
        segmenter = segmenter_with("context", KNNSceneContext, padding=16)
        segmenter.context = context
        for name, part in parts.items():
            setattr(segmenter, name, part)
        return segmenter

    compared(make, list(frames.split(2)), first_labels_HW=names)


@pytest.mark.parametrize(("num_frames", "num_clusters"), [(2, 3), (4, 6)])
def test_the_published_difference_and_the_mask_prior_wait_a_few_times_a_pass(num_frames, num_clusters):
    """Pillow compresses the maps and enlarges the masks: they go to the host, and back."""
    frames, _ = striped_video(num_frames=2 * num_frames, height=70, width=101)
    passes = []

    def make():
        segmenter = segmenter_with("modulation", MaskedModulation, num_clusters)
        segmenter.modulation = MaskedModulation(difference="published", mask_prior=0.7)
        plain = segmenter.backbone.decode
        passes.clear()
        segmenter.backbone.decode = lambda *given: passes.append(None) or plain(*given)
        return segmenter

    waits = compared(make, list(frames.split(num_frames)))
    assert (len(passes) > len(waits)) == (num_clusters > 3), "a pass has eight pairs of a frame and a label"
    # Once a clip which labels there are and whether all is finite, once a video where the nearest cells lie.
    assert sum(clip["modulation"] for clip in waits) == 2 * 3 + 2 + 4 * len(passes)


def test_given_labels_are_propagated_without_a_wait_a_frame():
    frames, bands = striped_video(num_frames=8, height=64, width=96)

    def make():
        segmenter = segmenter_with("context", GivenLabels)
        segmenter.modulation = SoftUpsampling()
        return segmenter

    waits = compared(make, list(frames.split([2, 2, 4])), first_labels_HW=bands[0])
    assert waits[1] == waits[2]
    assert waits[2]["context"] == 1
    assert waits[2]["modulation"] == 4, "which labels each frame shows, and which it has a share of"


@pytest.mark.parametrize("num_points", [3, 256, 1000])
def test_sums_in_a_fixed_order_are_the_sums(num_points):
    values = torch.rand(2, num_points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with running():
        found = cumulative_sums(values.to(DEVICE)).cpu()
    torch.testing.assert_close(found, values.cumsum(1), rtol=1e-14, atol=0)


def test_kmeans_runs_in_deterministic_mode():
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    expected = kmeans(points, 5, generator=torch.Generator().manual_seed(1))
    torch.use_deterministic_algorithms(True)
    try:
        with running():
            found = kmeans(points.to(DEVICE), 5, generator=torch.Generator().manual_seed(1))
            assert torch.equal(found.labels_N.cpu(), expected.labels_N)
    finally:
        torch.use_deterministic_algorithms(False)


def test_kmeans_of_many_iterations_asks_every_sixteenth():
    points = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    with running() as device:
        moved = points.to(DEVICE)
        before = device.num_stalls
        found = kmeans(moved, 8, generator=torch.Generator().manual_seed(1), num_restarts=2)
        assert found.num_iterations > 20
        assert device.num_stalls - before <= 2 + 300 // 16 + 1 + 1
        assert device.num_stalls - before < found.num_iterations


def test_an_empty_cluster_moves_to_the_farthest_point_without_a_wait():
    points = torch.tensor([[0.0], [1.0], [2.0], [9.0], [30.0]])
    start = torch.tensor([[0.0], [100.0], [101.0], [1.0]])  # two clusters have no point
    expected = kmeans(points, 4, initial_centers_Kc=start)
    with running() as device:
        moved, centers = points.to(DEVICE), start.to(DEVICE)
        before = device.num_stalls
        found = kmeans(moved, 4, initial_centers_Kc=centers)
        assert device.num_stalls - before == 3
        assert torch.equal(found.labels_N.cpu(), expected.labels_N)
    assert expected.inertia < 2, "both have found points of their own"
