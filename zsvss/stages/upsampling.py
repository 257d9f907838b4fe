"""Ways from token labels to pixels that need no second pass of the network, in masked modulation's slot.

Shape legend: T frames of a clip, H W pixels, u v subsampled pixels, h w token cells, n tokens, c channels, L labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.stages.clustering import knn_votes
from zsvss.stages.modulation import LabelledClip, Modulation
from zsvss.stages.precision import full_precision
from zsvss.stages.trace import Trace


class ProbabilityUpsampling(Modulation):
    """Upsamples each label's probability and takes the largest; ties go to the smallest label.

    A token's probabilities are the votes of its nearest neighbours among the refined labels of its own frame, itself
    included, so that a frame's result depends on no other frame. Where given labels are propagated, they are the
    propagated shares of the token's sub-cells.

    Args:
        num_neighbors: neighbours that vote; 1 takes the refined labels as they are.
    """

    def __init__(self, num_neighbors: int = 4) -> None:
        if num_neighbors < 1:
            raise ValueError(f"modulation.num_neighbors = {num_neighbors} must be at least 1.")
        self.num_neighbors = num_neighbors

    @abstractmethod
    def upsampler(self, probabilities_Luv: Tensor, frame_HW3: Tensor) -> Callable[[int], Tensor]:
        """Prepare a frame; returns what gives the score [H, W] of the label of an index."""

    @override
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        size = (clip.frames_THW3.shape[1], clip.frames_THW3.shape[2])
        device = clip.labels_Thw.device
        labels_THW = torch.empty(len(clip.labels_Thw), *size, dtype=torch.int64, device=device)
        with full_precision(device):
            for t in range(len(clip.labels_Thw)):
                probabilities_Luv, present_L = self._probabilities(clip, t)
                score = self.upsampler(probabilities_Luv, clip.frames_THW3[t].to(device))
                best_HW = score(0)
                labels_THW[t] = present_L[0]
                for index in range(1, len(present_L)):  # one map at a time: there are many labels and pixels
                    score_HW = score(index)
                    larger_HW = score_HW > best_HW
                    best_HW = torch.where(larger_HW, score_HW, best_HW)
                    labels_THW[t].masked_fill_(larger_HW, int(present_L[index]))
        return labels_THW

    def _probabilities(self, clip: LabelledClip, frame: int) -> tuple[Tensor, Tensor]:
        """Probability of each label of the frame [L, u, v], and these labels [L]."""
        labels_hw = clip.labels_Thw[frame]
        if clip.shares is not None and bool(clip.shares.shares_TLuv[frame].any()):
            shares_Luv = clip.shares.shares_TLuv[frame]
            is_present_L = shares_Luv.flatten(1).any(1)
            return shares_Luv[is_present_L], clip.shares.labels_L[is_present_L]
        present_L = labels_hw.unique()
        if clip.features_Tnc is None or self.num_neighbors == 1:
            return (labels_hw == present_L[:, None, None]).float(), present_L
        tokens_nc = clip.features_Tnc[frame]
        votes_nL = knn_votes(tokens_nc, tokens_nc, labels_hw.flatten(), present_L, self.num_neighbors)
        shares_Ln = votes_nL.T.float() / votes_nL.sum(1)
        return shares_Ln.view(-1, *labels_hw.shape), present_L


class SoftUpsampling(ProbabilityUpsampling):
    """Bilinear interpolation of the votes: smooth borders between tokens, finer than their cells.

    Args:
        num_neighbors: neighbours that vote; 1 takes the refined labels as they are.
    """

    @override
    def upsampler(self, probabilities_Luv: Tensor, frame_HW3: Tensor) -> Callable[[int], Tensor]:
        size = (frame_HW3.shape[0], frame_HW3.shape[1])
        return lambda index: bilinear(probabilities_Luv[index : index + 1], size)[0]


class GuidedUpsampling(ProbabilityUpsampling):
    """Fast guided filter of the votes, guided by the frame: borders between labels move to borders in colour.

    Args:
        radius: of the filter's windows, in pixels of the frame.
        eps: what a window's colour variance (of values in 0..1) is weighed against; more smooths more.
        subsampling: the filter's linear models are fitted at the frame's size divided by this.
        num_neighbors: neighbours that vote; 1 takes the refined labels as they are.

    Source: He and Sun, "Fast Guided Filter" (arXiv 1505.00996), with a colour guide.
    """

    def __init__(self, radius: int = 12, eps: float = 1e-4, subsampling: int = 4, num_neighbors: int = 4) -> None:
        super().__init__(num_neighbors)
        if radius < 1 or subsampling < 1 or eps <= 0:
            raise ValueError(
                f"modulation.radius = {radius} and subsampling = {subsampling} must be at least 1, eps = {eps} above 0."
            )
        self.radius = radius
        self.eps = eps
        self.subsampling = subsampling

    @override
    def upsampler(self, probabilities_Luv: Tensor, frame_HW3: Tensor) -> Callable[[int], Tensor]:
        guide_3HW = frame_HW3.permute(2, 0, 1).float() / 255
        size = (guide_3HW.shape[1], guide_3HW.shape[2])
        small = (-(-size[0] // self.subsampling), -(-size[1] // self.subsampling))
        guide_3uv = functional.adaptive_avg_pool2d(guide_3HW, small)
        radius = max(1, round(self.radius / self.subsampling))
        slopes_L3uv, offsets_Luv = guided_models(bilinear(probabilities_Luv, small), guide_3uv, radius, self.eps)

        def score(index: int) -> Tensor:
            return (bilinear(slopes_L3uv[index], size) * guide_3HW).sum(0) + bilinear(offsets_Luv[index, None], size)[0]

        return score


def guided_models(inputs_Luv: Tensor, guide_3uv: Tensor, radius: int, eps: float) -> tuple[Tensor, Tensor]:
    """Fit the guided filter's linear models and average those of all windows over each pixel.

    In each window, an input is fitted by ``slopes . guide + offset`` with ``eps |slopes|^2`` added to the mean squared
    error. Windows are cut off at the border.

    Args:
        inputs_Luv: images to filter.
        guide_3uv: colours in 0..1.
        radius: windows are ``2 radius + 1`` wide.
        eps: regularisation.

    Returns:
        Slopes [L, 3, u, v] and offsets [L, u, v]; ``(slopes * guide).sum + offset`` is the filtered image.
    """
    mean_3uv = window_mean(guide_3uv, radius)
    mean_Luv = window_mean(inputs_Luv, radius)
    products_33uv = window_mean((guide_3uv[:, None] * guide_3uv).flatten(0, 1), radius).unflatten(0, (3, 3))
    covariance_uv33 = (products_33uv - mean_3uv[:, None] * mean_3uv).permute(2, 3, 0, 1)
    products_L3uv = window_mean((inputs_Luv[:, None] * guide_3uv).flatten(0, 1), radius).unflatten(0, (-1, 3))
    cross_L3uv = products_L3uv - mean_Luv[:, None] * mean_3uv
    ridge_33 = eps * torch.eye(3, device=guide_3uv.device, dtype=guide_3uv.dtype)
    slopes_uv3L = torch.linalg.solve(covariance_uv33 + ridge_33, cross_L3uv.permute(2, 3, 1, 0))
    slopes_L3uv = slopes_uv3L.permute(3, 2, 0, 1)
    offsets_Luv = mean_Luv - (slopes_L3uv * mean_3uv).sum(1)
    smooth_L3uv = window_mean(slopes_L3uv.flatten(0, 1), radius).unflatten(0, (-1, 3))
    return smooth_L3uv, window_mean(offsets_Luv, radius)


def window_mean(maps_Luv: Tensor, radius: int) -> Tensor:
    """Mean over square windows, cut off at the border."""
    for height, width in ((1, 0), (0, 1)):
        kernel, padding = (2 * radius * height + 1, 2 * radius * width + 1), (radius * height, radius * width)
        maps_Luv = functional.avg_pool2d(maps_Luv, kernel, stride=1, padding=padding, count_include_pad=False)
    return maps_Luv


def bilinear(maps_Lhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps bilinearly; pixels beyond the outer cells' centres take those cells' values."""
    return functional.interpolate(maps_Lhw[None], size, mode="bilinear", align_corners=False)[0]
