"""Parity with the published code's own run: from stored inputs stage by stage, and end to end."""

import math

import pytest
import torch
from golden import ABSENT, GOLDEN, GoldenSet, by_label, golden_sets, stored_segmentation

from zsvss.segmenter import to_grid
from zsvss.stages.context import KNNSceneContext, Memory, name_clusters
from zsvss.stages.difference import blur, difference_map, quantize
from zsvss.stages.features import normalize
from zsvss.stages.kmeans import kmeans
from zsvss.stages.modulation import LargestDifference, resize_images
from zsvss.stages.refinement import CorrespondenceRefinement

SETS = golden_sets()
CLIPS = [(golden, clip) for golden in SETS for clip in golden.clips_with("labels")]
CLUSTERED = [(golden, clip) for golden, clip in CLIPS if "kmeans_inertia" in golden.clip(clip, "labels")]
SEGMENTED = [(golden, clip) for golden in SETS for clip in golden.clips_with("seg")]
MAPPED = [(golden, clip) for golden, clip in SEGMENTED if clip in golden.clips_with("difference_jpg_u8")]
UNWRAPPED = [(golden, clip) for golden, clip in SEGMENTED if clip in golden.clips_with("difference_crops")]
DECODED = [(golden, clip) for golden, clip in MAPPED if clip in golden.clips_with("decoded_crops_f16")]
PUBLISHED = CorrespondenceRefinement(skip_first_hop=True, one_sided_displacement=True, truncate_start_points=True)

pytestmark = pytest.mark.skipif(not SETS, reason=ABSENT)


def stored_features(golden: GoldenSet, clip: int):
    """Clustering features, normalised, and correspondence features; a reprocessed clip has those of its first run."""
    same = [
        k
        for k in golden.clips_with("features_step24")
        if k == clip or torch.equal(golden.clip_frames(k), golden.clip_frames(clip))
    ]
    if not same:
        pytest.skip(f"{golden} stores no features of clip {clip}")
    features = golden.clip(same[-1], "features_step24")
    return (
        normalize(features["agg_self_q_cond"], "maximum"),
        normalize(features["block7_self_q_cond"], "euclidean"),
    )


def stored_memory(golden: GoldenSet, clip: int) -> Memory:
    """What the KNN of a clip was fitted on."""
    if clip > 0:
        features, _ = stored_features(golden, clip - 1)
        before = golden.clip(clip - 1, "labels")
        return Memory(features.flatten(0, 1), before["corrected"].flatten(), before["unique_labels"])
    features, _ = stored_features(golden, 0)
    labels = golden.clip(0, "labels")
    first = labels["kmeans_labels"][0].long().flatten()
    if golden.first_labels_HW is not None:
        names = to_grid(golden.first_labels_HW, tuple(labels["corrected"].shape[1:])).flatten()
        clusters = kmeans(
            features.flatten(0, 1), len(labels["kmeans_centers"]), initial_centers_Kc=labels["kmeans_centers"]
        )
        first = name_clusters(first, names, clusters.centers_Kc)[first]
    return Memory(features[0], first, first.unique())


@pytest.mark.parametrize(("golden", "clip"), CLUSTERED, ids=str)
def test_kmeans_reaches_the_published_objective(golden, clip):
    labels = golden.clip(clip, "labels")
    features, _ = stored_features(golden, clip)
    result = kmeans(features.flatten(0, 1), len(labels["kmeans_centers"]), generator=torch.Generator().manual_seed(0))
    assert result.inertia <= float(labels["kmeans_inertia"]) * 1.001  # random restarts: 0.1 %


@pytest.mark.parametrize(("golden", "clip"), CLIPS, ids=str)
def test_labels_and_trajectories_are_the_published_ones(golden, clip):
    """Scene context, tracking, refinement and the hand-over from the clip before, all from stored features."""
    stored = golden.clip(clip, "labels")
    features, correspondence = stored_features(golden, clip)
    memory = stored_memory(golden, clip)
    coarse, _ = KNNSceneContext().resume(features, memory, torch.Generator())
    assert torch.equal(coarse, stored["knn_labels"].flatten(1))
    if "knn_fit_labels" in stored:
        assert torch.equal(memory.labels_N, stored["knn_fit_labels"])
    assert torch.equal(memory.label_set_L, stored["unique_labels"])

    grid = tuple(stored["corrected"].shape[1:])
    refined, trajectories = PUBLISHED(correspondence, coarse, grid)
    assert torch.equal(trajectories, stored["trj_h"].long() * grid[1] + stored["trj_w"].long())
    assert torch.equal(refined, stored["corrected"].flatten(1))


def elect(golden, clip, prior, maps_of, frames):
    """Segment stored difference maps: ``maps_of(index)`` are those of the listed frames."""
    labels = golden.clip(clip, "labels")
    label_set = golden.clip(clip, "seg")["labels"]
    size = tuple(golden.frames_THW3.shape[1:3])
    election = LargestDifference(labels["corrected"][frames], label_set, size, prior)
    for index in range(len(label_set)):
        election.add(torch.arange(len(frames)), torch.full((len(frames),), index), maps_of(index))
    return election.labels_THW


PRIORS = [(None, "unfiltered"), (0.7, "filtered_0p7")]


@pytest.mark.parametrize(("golden", "clip"), MAPPED, ids=str)
@pytest.mark.parametrize(("prior", "name"), PRIORS)
def test_published_maps_give_the_published_segmentation(golden, clip, prior, name):
    stored = golden.clip(clip, "seg")
    maps = golden.clip(clip, "difference_jpg_u8")
    frames = torch.arange(len(stored[name]))
    found = elect(golden, clip, prior, lambda index: by_label(maps, stored["labels"], index).float(), frames)
    assert (found == stored_segmentation(stored, name)).double().mean() >= 0.999


@pytest.mark.parametrize(("golden", "clip"), UNWRAPPED, ids=str)
@pytest.mark.parametrize(("prior", "name"), PRIORS)
def test_unwrapped_maps_give_the_correct_segmentation(golden, clip, prior, name):
    stored, maps = golden.clip(clip, "seg"), golden.clip(clip, "difference_crops")
    frames = sorted({int(key.split("_")[1][1:]) for key in maps if key.endswith("_correct")})

    if not frames or f"correct_{name}" not in stored:
        pytest.skip(f"{golden} stores no unwrapped maps of clip {clip} with their segmentation")

    def elected(draw):
        def maps_of(index):
            of_frames = [by_label(maps, stored["labels"], index, f"_f{frame}_correct") for frame in frames]
            return in_half_a_step(torch.stack(of_frames), draw)

        return elect(golden, clip, prior, maps_of, frames)

    found = elected(0)
    with_itself = (found == elected(1)).double().mean()  # the maps are stored in float16
    agreement = (found == stored_segmentation(stored, f"correct_{name}")[frames]).double().mean()
    assert agreement >= min(0.999, 1 - 2 * (1 - with_itself))


@pytest.mark.parametrize(("golden", "clip"), DECODED, ids=str)
def test_decoded_images_give_the_published_maps(golden, clip):
    """Quantisation, overflow, blur and JPEG, on the stored crop of the decoded images away from the crop's border."""
    stored, crops = golden.clip(clip, "difference_jpg_u8"), golden.clip(clip, "decoded_crops_f16")
    label_set = golden.clip(clip, "seg")["labels"]
    own = tuple(golden.frames_THW3.shape[1:3])
    decoded = golden.network_size
    height, width = crops["feature_pass"].shape[-2:]
    corner = crops["yx"].tolist() if "yx" in crops else [0, 0]
    # Where the frames have another size than what is decoded, the crop is seen through the resize.
    inner = (
        slice(None),
        *(
            slice(math.ceil(start * of / out_of) + 8, math.floor((start + length) * of / out_of) - 8)
            for start, length, of, out_of in zip(corner, (height, width), own, decoded, strict=True)
        ),
    )  # the blur and JPEG's 8x8 blocks see what was cropped away

    def on_the_frame(crop):
        canvas = torch.zeros(*crop.shape[:2], *decoded)
        canvas[..., corner[0] : corner[0] + height, corner[1] : corner[1] + width] = crop
        return resize_images(canvas, own)

    for index in range(len(label_set)):
        pair = [by_label(crops, label_set, index, sign) for sign in ("_p", "_m")]
        if any(crop is None for crop in pair):
            continue
        maps = [
            difference_map(*(on_the_frame(in_half_a_step(crop, draw)) for crop in pair), "published")[inner]
            for draw in range(2)
        ]
        expected = by_label(stored, label_set, index)[crops["frames"]].float()[inner]
        # The crops are stored in fp16, which moves some values over a quantisation step: a grey level, on average less.
        found, moved = maps
        assert (found - expected).abs().mean() < max(0.5, 2 * (found - moved).abs().mean())
        if found.std() > 0 and moved.std() > 0:  # else no difference reaches a grey level
            assert correlation(found, expected) > min(0.9, 1 - 2 * (1 - correlation(found, moved)) - 0.02)


def in_half_a_step(stored, draw):
    """Values stored in float16 as they are (draw 0), or as others that would be stored as the same."""
    values = stored.float()
    if draw == 0 or stored.dtype != torch.float16:
        return values
    return values * (1 + 2**-11 * (2 * torch.rand(values.shape, generator=torch.Generator().manual_seed(draw)) - 1))


def correlation(ours, theirs):
    return torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]


# Function-level cases


def unit(name):
    path = GOLDEN / "unit" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return GoldenSet(GOLDEN / "unit").arrays(name)


def test_unit_difference_maps():
    case = unit("compute_difference")
    plus, minus = (case[key].permute(0, 3, 1, 2).float() / 127.5 - 1 for key in "ab")
    assert torch.equal(quantize(plus + 1e-6), case["a"].permute(0, 3, 1, 2))  # the images below are these exactly
    correct = difference_map(plus + 1e-6, minus + 1e-6, "uint8")
    torch.testing.assert_close(correct.double(), case["correct"], atol=1e-4, rtol=0)
    assert torch.equal(difference_map(plus + 1e-6, minus + 1e-6, "published"), case["jpg"].float())


def test_unit_wrapped_maps_before_jpeg():
    case = unit("compute_difference")
    difference = case["a"] - case["b"]  # uint8: modulo 256
    found = blur((difference * difference).double().sum(-1).sqrt())
    torch.testing.assert_close(found, case["ref"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("prior", "name"), PRIORS)
def test_unit_segmentation(prior, name):
    case = unit("seg_map")
    size = tuple(case[name].shape[1:])
    masks = case["masks"] > 0
    labels_Thw = (masks * case["labels"][:, None, None, None]).amax(0)
    election = LargestDifference(labels_Thw, case["labels"], size, prior)
    frames = sorted({key.split("_")[2] for key in case if key.startswith("img_")})
    for index, label in enumerate(case["labels"].tolist()):
        plus, minus = (
            torch.stack([case[f"img_L{label}_{frame}_{sign}"] for frame in frames]).permute(0, 3, 1, 2) for sign in "pm"
        )
        plus, minus = ((images.float() + 1e-3) / 127.5 - 1 for images in (plus, minus))
        maps = difference_map(plus, minus, "published")
        election.add(torch.arange(len(frames)), torch.full((len(frames),), index), maps)
    assert torch.equal(election.labels_THW, case[name].long())


def test_unit_refinement():
    case = unit("cbr")
    labels = case["labels_in"]
    grid = tuple(labels.shape[1:])
    features = normalize(case["features_uncond_then_cond"][len(labels) :], "euclidean")
    refined, trajectories = PUBLISHED(features, labels.flatten(1), grid)
    assert torch.equal(trajectories, case["trj_h"] * grid[1] + case["trj_w"])
    assert torch.equal(refined, case["corrected"].flatten(1))


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_unit_naming_by_ground_truth(precision):
    case, features = unit("match_gt"), unit("cbr")["features_uncond_then_cond"]
    stored = case[f"{precision}_labels"]
    num_frames, *grid = stored.shape
    normalised = normalize(features[num_frames:].to(case[f"{precision}_feat_norm"].dtype), "maximum")
    assert torch.equal(normalised.flatten(0, 1), case[f"{precision}_feat_norm"])
    centers = case[f"{precision}_kmeans_centers"]
    clusters = kmeans(normalised.flatten(0, 1), len(centers), initial_centers_Kc=centers)
    assert torch.equal(clusters.labels_N, case[f"{precision}_kmeans_labels"].long().flatten())

    first = clusters.labels_N.view(num_frames, -1)[0]
    names = to_grid(case["gt_full"], tuple(grid)).flatten()
    named = name_clusters(first, names, clusters.centers_Kc)[first]
    context = KNNSceneContext()
    labels, memory = context.resume(normalised, Memory(normalised[0], named, named.unique()), torch.Generator())
    assert torch.equal(labels, stored.flatten(1))
    assert torch.equal(memory.label_set_L, case[f"{precision}_unique"])

    memory = context.update(normalised, labels, memory)
    handed_over, _ = context.resume(normalised.flip(0), memory, torch.Generator())
    assert torch.equal(handed_over, case[f"{precision}_handover_labels_frames_reversed"].flatten(1))
