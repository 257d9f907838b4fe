"""The parity tests cope with a set of every kind that the format allows, made here in a second."""

import pytest
import test_parity
import test_parity_end_to_end
import torch
from backbones import test_golden
from golden import GoldenSet, by_label, stored_segmentation
from synthetic_golden import CLASSES, CLIP_LENGTH, NUM_CLUSTERS, NUM_FRAMES, SIZE, STRENGTH, make


@pytest.fixture(scope="module")
def golden(tmp_path_factory, tiny_weights):
    return GoldenSet(make(tmp_path_factory.mktemp("golden") / "odd", tiny_weights))


def test_the_set_is_what_the_shipped_ones_are_not(golden):
    assert golden.network_size == (64, 128) != SIZE == tuple(golden.frames_THW3.shape[1:3])
    assert golden.first_labels_HW is not None
    assert golden.clip(0, "labels")["unique_labels"].tolist() == list(CLASSES)
    assert len(CLASSES) < NUM_CLUSTERS == golden.settings["num_masks"]
    assert golden.settings["lam"] == STRENGTH != 50
    assert golden.clips == [0, 1]
    assert torch.equal(golden.clip_frames(1)[: 2 * CLIP_LENGTH - NUM_FRAMES], golden.clip_frames(0)[-4:])
    assert golden.clips_with("decoded_crops_f16") == golden.clips_with("difference_crops") == [0]
    crops = golden.arrays("qk_crops")
    assert (len(crops["ob7_cross_attn_q_t24"]), len(crops["ob7_cross_attn_k_t24"])) == (4, 2)


@pytest.mark.parametrize("clip", [0, 1])
def test_stages(golden, clip):
    test_golden.test_denoising_follows_the_published_code(golden, clip)
    test_parity.test_labels_and_trajectories_are_the_published_ones(golden, clip)
    for prior, name in test_parity.PRIORS:
        test_parity.test_published_maps_give_the_published_segmentation(golden, clip, prior, name)


def test_first_clip(golden):
    test_golden.test_schedule_is_the_published_one(golden)
    test_parity.test_kmeans_reaches_the_published_objective(golden, 0)
    test_parity.test_decoded_images_give_the_published_maps(golden, 0)
    for prior, name in test_parity.PRIORS:
        test_parity.test_unwrapped_maps_give_the_correct_segmentation(golden, 0, prior, name)


def test_end_to_end(golden):
    test_parity_end_to_end.test_end_to_end_from_the_frames(golden)


def test_where_labels_are_numbers_and_where_they_are_not():
    label_set, arrays = torch.tensor([1, 2, 255]), {f"L{number}_p": torch.tensor(number) for number in range(3)}
    assert [int(by_label(arrays, label_set, index, "_p")) for index in range(3)] == [0, 1, 2]
    arrays = {f"L{label}": torch.tensor(label) for label in (1, 2, 255)}
    assert [int(by_label(arrays, label_set, index)) for index in range(3)] == [1, 2, 255]
    assert by_label({}, label_set, 0) is None
    stored = {"labels": label_set, "numbers": torch.tensor([0, 2]), "values": torch.tensor([1, 255])}
    assert stored_segmentation(stored, "numbers").tolist() == stored_segmentation(stored, "values").tolist()
