"""Initial clustering by merging self-attention maps, which chooses the number of segments itself.

Shape legend: n tokens of a frame, m of them anchors, P proposals, h w token grid, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone, FeatureKey
from zsvss.stages.features import AttentionFeatures, FeaturePass
from zsvss.stages.initialization import Initialization, by_first_token


class AttentionMerging(Initialization):
    """Merges the self-attention maps of the first frame by their Kullback-Leibler divergence.

    Every token's map says where the network looks from there; maps of one object agree. A grid of anchors is averaged
    with all maps near them, and the averages are merged until few are left; a token belongs to the one that is largest
    there.

    Args:
        threshold: symmetric divergence below which maps are merged; less gives more segments.
        num_anchors: anchors along either side of the token grid.
        num_iterations: rounds of merging, the first from the anchors included.
        blocks: output blocks whose maps are averaged, weighted by their resolution.
        step: sampling step; negative ones count from the end.
        head_channels: channels of an attention head, 64 in Stable Diffusion 2 and Stable Video Diffusion.

    Source: DiffSeg (arXiv 2308.12469), Sec. 3.

    Differs from the paper: maps of the up blocks only, which are what the feature pass records, at the steps that it
    runs; labels stay on the token grid, as the last stage takes them to pixels.
    """

    def __init__(
        self,
        threshold: float = 0.9,
        num_anchors: int = 16,
        num_iterations: int = 3,
        blocks: Sequence[int] = (6, 7, 8),
        step: int = -1,
        head_channels: int = 64,
    ) -> None:
        self.threshold = threshold
        self.num_anchors = num_anchors
        self.num_iterations = num_iterations
        self.blocks = tuple(blocks)
        self.step = step
        self.head_channels = head_channels

    @override
    def keys(self, backbone: Backbone) -> list[FeatureKey]:
        queries = AttentionFeatures(self.blocks, "self", "query", (self.step,)).keys(backbone)
        return queries + [key._replace(projection="key") for key in queries]

    @override
    def __call__(
        self, features_nc: Tensor, grid: tuple[int, int], num_clusters: int, seen: FeaturePass | None = None
    ) -> Tensor:
        if seen is None:
            raise ValueError("AttentionMerging needs the feature pass, whose attention it merges.")
        maps_nn = self._attention(seen, grid)
        return by_first_token(self._merged(maps_nn, grid).argmax(0))

    def _attention(self, seen: FeaturePass, grid: tuple[int, int]) -> Tensor:
        """Maps of the first frame [n, n]: row i is where token i looks, summing to 1."""
        keys = self.keys(seen.backbone)
        weighted = []
        for query_key, key_key in zip(keys[: len(self.blocks)], keys[len(self.blocks) :], strict=True):
            block_grid = seen.recording.grids[query_key.block]
            tensors = (seen.recording.half(key)[:1].float() for key in (query_key, key_key))
            (query_1nc, inner_grid), (key_1nc, _) = (seen.inside(tensor, block_grid) for tensor in tensors)
            map_nn = mean_attention(query_1nc[0], key_1nc[0], self.head_channels)
            weighted.append(inner_grid[0] * resized(map_nn, inner_grid, grid))
        total_nn = torch.stack(weighted).sum(0)
        return total_nn / total_nn.sum(1, keepdim=True)

    def _merged(self, maps_nn: Tensor, grid: tuple[int, int]) -> Tensor:
        """Proposals [P, n]."""
        anchors_m = anchor_tokens(grid, self.num_anchors).to(maps_nn.device)
        near_mn = divergence(maps_nn[anchors_m], maps_nn) < self.threshold
        near_mn[torch.arange(len(anchors_m)), anchors_m] = True
        proposals = (near_mn.float() @ maps_nn) / near_mn.sum(1, keepdim=True)
        for _ in range(self.num_iterations - 1):
            near_PP = divergence(proposals, proposals) < self.threshold
            groups = merged_groups(near_PP.tolist())
            members = torch.tensor([p for group in groups for p in group], device=proposals.device)
            proposals = torch.stack([proposals[p_g].mean(0) for p_g in members.split([len(g) for g in groups])])
        return proposals


def merged_groups(near: Sequence[Sequence[bool]]) -> list[list[int]]:
    """Put each proposal, in order, into one group with all that are near and in no group yet.

    Example:
        >>> merged_groups([[True, False, True], [False, True, True], [True, True, True]])
        [[0, 2], [1]]
    """
    left, groups = [True] * len(near), []
    for p, near_p in enumerate(near):
        if left[p]:
            group = [q for q, is_near in enumerate(near_p) if (is_near and left[q]) or q == p]
            groups.append(group)
            for q in group:
                left[q] = False
    return groups


def mean_attention(query_nc: Tensor, key_nc: Tensor, head_channels: int) -> Tensor:
    """Scaled-dot-product attention [n, n], averaged over heads.

    Raises:
        ValueError: if the channels are no whole number of heads.
    """
    channels = query_nc.shape[1]
    if channels % head_channels:
        raise ValueError(
            f"initialization.head_channels = {head_channels} does not divide {channels}, the channels of this "
            "network's attention; see attention_head_dim in its config."
        )
    heads = zip(query_nc.split(head_channels, 1), key_nc.split(head_channels, 1), strict=True)
    total_nn = query_nc.new_zeros(len(query_nc), len(key_nc))
    for query, key in heads:  # one at a time: maps of a large grid are large
        total_nn += (query @ key.T / head_channels**0.5).softmax(1)
    return total_nn / (channels // head_channels)


def resized(map_nn: Tensor, from_grid: tuple[int, int], to_grid: tuple[int, int]) -> Tensor:
    """Resize a map of tokens by tokens to another grid on both sides, bilinearly."""
    if from_grid == to_grid:
        return map_nn
    for _ in range(2):
        map_nhw = functional.interpolate(map_nn.unflatten(1, from_grid)[None], to_grid, mode="bilinear")[0]
        map_nn = map_nhw.flatten(1).T
    return map_nn


def anchor_tokens(grid: tuple[int, int], num_anchors: int) -> Tensor:
    """Token numbers of a regular grid of at most ``num_anchors`` anchors a side.

    Example:
        >>> anchor_tokens((2, 4), 2)
        tensor([0, 3, 4, 7])
    """
    y, x = (torch.linspace(0, side - 1, min(num_anchors, side), dtype=torch.float64).round().long() for side in grid)
    return (y[:, None] * grid[1] + x).flatten()


def divergence(maps_Pn: Tensor, others_Qn: Tensor) -> Tensor:
    """Symmetric Kullback-Leibler divergence [P, Q], the mean of both directions."""
    tiny = torch.finfo(torch.float32).tiny
    log_Pn, log_Qn = maps_Pn.clamp(min=tiny).log(), others_Qn.clamp(min=tiny).log()
    own_P, own_Q = (maps_Pn * log_Pn).sum(1), (others_Qn * log_Qn).sum(1)
    return (own_P[:, None] + own_Q - maps_Pn @ log_Qn.T - log_Pn @ others_Qn.T) / 2
