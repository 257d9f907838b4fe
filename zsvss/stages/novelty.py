"""Objects that enter a video after its first clip: tokens that nothing seen so far resembles open new labels.

Shape legend: T frames of a clip, n tokens of a frame, N points of the memory, c channels, L labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from zsvss.stages.neighbors import MEMORY_BOUND, squared_distances

FIRST_UNNAMED_LABEL = 256
"""Where labels are class ids, which fit 8 bits, new labels begin here: no ground truth can name them."""


class NoveltyState(NamedTuple):
    """What the first clip of a video taught.

    Attributes:
        threshold: distance to the memory beyond which a token is new.
        grid: height and width of the token grid.
        named: whether the video's labels are class ids.
    """

    threshold: float
    grid: tuple[int, int]
    named: bool


class Novelty:
    """Opens a label for each connected region of tokens that are far from everything in the memory.

    In the first clip, the tokens of later frames are at some distance from the nearest token of the first frame, by
    motion and noise alone. ``margin`` times the ``quantile`` of that distance is the threshold for the rest of the
    video. A first clip of one frame teaches nothing, and no label is opened.

    Args:
        margin: more opens fewer labels.
        quantile: 0..1.
        min_tokens: tokens, over all frames of the clip, that a region needs.
    """

    def __init__(self, margin: float = 1.5, quantile: float = 0.99, min_tokens: int = 8) -> None:
        if not 0 <= quantile <= 1:
            raise ValueError(f"novelty.quantile = {quantile} must be between 0 and 1.")
        self.margin = margin
        self.quantile = quantile
        self.min_tokens = min_tokens

    def calibrate(self, features_Tnc: Tensor, grid: tuple[int, int], named: bool) -> NoveltyState:
        """Learn the threshold from the first clip of a video; ``named`` where labels are class ids."""
        if len(features_Tnc) == 1:
            return NoveltyState(float("inf"), grid, named)
        distances = nearest_distances(features_Tnc[1:].flatten(0, 1), features_Tnc[0])
        return NoveltyState(self.margin * float(distances.quantile(self.quantile)), grid, named)

    def find(self, features_Tnc: Tensor, points_Nc: Tensor, label_set_L: Tensor, state: NoveltyState) -> Tensor:
        """Number the new regions of a clip.

        Args:
            features_Tnc: features of the clip.
            points_Nc: points of the memory.
            label_set_L: labels so far, sorted.
            state: of :meth:`calibrate`.

        Returns:
            int64 [T, n]: a label that is not in the set for every token of a new region, -1 elsewhere. Tokens that
            touch in the grid or in time, corners included, are one region.
        """
        num_frames, num_tokens, _ = features_Tnc.shape
        is_far = nearest_distances(features_Tnc.flatten(0, 1), points_Nc) > state.threshold
        far_Thw = is_far.view(num_frames, *state.grid).cpu().numpy()
        regions_Thw, num_regions = ndimage.label(far_Thw, np.ones((3, 3, 3)))
        sizes = np.bincount(regions_Thw.ravel(), minlength=num_regions + 1)
        sizes[0] = 0  # what is not far
        next_label = int(label_set_L[-1]) + 1
        if state.named:
            next_label = max(next_label, FIRST_UNNAMED_LABEL)
        label_of_region = np.full(num_regions + 1, -1, dtype=np.int64)
        large = sizes >= max(1, self.min_tokens)
        label_of_region[large] = next_label + np.arange(large.sum())
        labels_Tn = torch.from_numpy(label_of_region[regions_Thw]).view(num_frames, num_tokens)
        return labels_Tn.to(features_Tnc.device)


def nearest_distances(queries_Mc: Tensor, points_Nc: Tensor) -> Tensor:
    """Euclidean distance [M] of each query to its nearest point; of points that float32 cannot tell apart to any."""
    points_Nc = points_Nc.to(torch.promote_types(points_Nc.dtype, torch.float32))
    offset_c = points_Nc.mean(0)
    centered_Nc = points_Nc - offset_c
    found = []
    for chunk_Mc in queries_Mc.split(max(1, MEMORY_BOUND // (len(points_Nc) * points_Nc.element_size()))):
        nearest_M = squared_distances(chunk_Mc - offset_c, centered_Nc).argmin(1)
        found.append((chunk_Mc - points_Nc[nearest_M]).square().sum(1).sqrt())
    return torch.cat(found)
