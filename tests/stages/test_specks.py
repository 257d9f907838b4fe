"""Merging of small regions, against a flood fill written plainly."""

from __future__ import annotations

import numpy as np
import torch

from zsvss.stages.specks import merge_specks


def regions(labels_HW: np.ndarray) -> list[set[tuple[int, int]]]:
    """Pixels of each 4-connected region of one label."""
    left = {(int(y), int(x)) for y, x in np.ndindex(labels_HW.shape)}
    found = []
    while left:
        queue = [left.pop()]
        region = set(queue)
        while queue:
            y, x = queue.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and labels_HW[near] == labels_HW[y, x]:
                    left.remove(near)
                    region.add(near)
                    queue.append(near)
        found.append(region)
    return found


def noisy_frame(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    labels_HW = np.repeat(np.repeat(random.integers(0, 4, (3, 4)), 9, 0), 8, 1)
    is_noise_HW = random.random(labels_HW.shape) < 0.1
    return np.where(is_noise_HW, random.integers(0, 7, labels_HW.shape), labels_HW)


def test_large_regions_keep_their_label_and_small_ones_take_the_nearest_of_them():
    labels_HW = noisy_frame(0)
    merged_HW = merge_specks(torch.from_numpy(labels_HW)[None], 12 / labels_HW.size)[0].numpy()
    large = set().union(*(region for region in regions(labels_HW) if len(region) >= 12))
    places_N2 = np.array(sorted(large))
    for y, x in np.ndindex(labels_HW.shape):
        if (y, x) in large:
            assert merged_HW[y, x] == labels_HW[y, x]
            continue
        distance_N = np.hypot(*(places_N2 - (y, x)).T)
        # OpenCV's distances are approximate: a pixel may take any large region that is about as near.
        nearest = places_N2[distance_N <= distance_N.min() + 0.1]
        assert merged_HW[y, x] in {labels_HW[tuple(place)] for place in nearest}
    assert len(regions(merged_HW)) < len(regions(labels_HW)) / 3


def test_what_has_no_surroundings_stays():
    checkerboard_HW = torch.from_numpy(np.indices((8, 8)).sum(0) % 2)
    assert torch.equal(merge_specks(checkerboard_HW[None], 0.5)[0], checkerboard_HW)
    one_label_HW = torch.full((5, 5), 3)
    assert torch.equal(merge_specks(one_label_HW[None], 0.5)[0], one_label_HW)


def test_a_share_of_zero_changes_nothing():
    labels_HW = torch.from_numpy(noisy_frame(1))
    assert torch.equal(merge_specks(labels_HW[None], 0.0)[0], labels_HW)


def test_frames_are_merged_alone_and_the_input_is_left_alone():
    labels_THW = torch.from_numpy(np.stack([noisy_frame(seed) for seed in (2, 3)]))
    before_THW = labels_THW.clone()
    merged_THW = merge_specks(labels_THW, 0.01)
    assert torch.equal(labels_THW, before_THW)
    for t in range(2):
        assert torch.equal(merged_THW[t], merge_specks(labels_THW[t : t + 1], 0.01)[0])


def test_the_largest_region_of_a_label_may_stay():
    labels_HW = torch.zeros(10, 10, dtype=torch.int64)
    labels_HW[2:4, 2:4], labels_HW[6, 6], labels_HW[8, 1] = 5, 5, 7
    assert merge_specks(labels_HW[None], 0.1)[0].unique().tolist() == [0]
    kept_HW = merge_specks(labels_HW[None], 0.1, keep_largest=True)[0]
    expected_HW = labels_HW.clone()
    expected_HW[6, 6] = 0
    assert torch.equal(kept_HW, expected_HW)


def test_no_frame_is_wanted():
    assert merge_specks(torch.zeros(0, 4, 5, dtype=torch.int64), 0.1).shape == (0, 4, 5)
