"""Upsampling of token labels to pixels without another network pass: alternatives to masked modulation.

Shape legend: T frames of a clip, H W pixels, u v subsampled pixels, h w token cells, n tokens, c channels, L labels.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from zsvss.backbones.base import Backbone
from zsvss.stages.modulation import LabelledClip, Modulation
from zsvss.stages.neighbors import knn_votes
from zsvss.stages.precision import full_precision
from zsvss.stages.resampling import bilinear, window_mean
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
        """Prepare a frame; returns what gives the score [H, W] of the label of an index, until it is asked again."""

    @override
    def __call__(self, backbone: Backbone, clip: LabelledClip, trace: Trace | None = None) -> Tensor:
        size = (clip.frames_THW3.shape[1], clip.frames_THW3.shape[2])
        device = clip.labels_Thw.device
        labels_THW = torch.empty(len(clip.labels_Thw), *size, dtype=torch.int64, device=device)
        frames_THW3 = clip.frames_THW3.to(device)
        with full_precision(device):
            for t, (shown_L, shared_l) in enumerate(self._labels(clip)):
                probabilities_Luv, present_L = self._probabilities(clip, t, shown_L, shared_l)
                score = self.upsampler(probabilities_Luv, frames_THW3[t])
                best_HW = score(0).clone()
                index_HW = torch.zeros(size, dtype=torch.int16, device=device)
                is_larger_HW = torch.empty(size, dtype=torch.bool, device=device)
                for index in range(1, len(present_L)):  # one map at a time: there are many labels and pixels
                    score_HW = score(index)
                    index_HW.masked_fill_(torch.gt(score_HW, best_HW, out=is_larger_HW), index)
                    torch.maximum(score_HW, best_HW, out=best_HW)
                labels_THW[t] = present_L[index_HW.int()]
        return labels_THW

    def _labels(self, clip: LabelledClip) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each frame the labels of its tokens, and which of the propagated ones it has a share of, if there are."""
        shown = labels_of_frames(clip.labels_Thw, clip.label_set_L)
        if clip.shares is None:
            return zip(shown, itertools.repeat(None))
        index_L = torch.arange(len(clip.shares.labels_L), device=clip.labels_Thw.device)
        return zip(shown, where_present(clip.shares.shares_TLuv.flatten(2).any(2), index_L), strict=True)

    def _probabilities(
        self, clip: LabelledClip, frame: int, shown_L: Tensor, shared_l: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Probability of each label of the frame [L, u, v], and these labels [L]."""
        labels_hw = clip.labels_Thw[frame]
        if clip.shares is not None and shared_l is not None and len(shared_l):
            return clip.shares.shares_TLuv[frame][shared_l], clip.shares.labels_L[shared_l]
        if clip.features_Tnc is None or self.num_neighbors == 1:
            return (labels_hw == shown_L[:, None, None]).float(), shown_L
        tokens_nc = clip.features_Tnc[frame]
        votes_nL = knn_votes(tokens_nc, tokens_nc, labels_hw.flatten(), shown_L, self.num_neighbors)
        shares_Ln = votes_nL.T.float() / votes_nL.sum(1)
        return shares_Ln.view(-1, *labels_hw.shape), shown_L


def labels_of_frames(labels_Thw: Tensor, label_set_L: Tensor) -> Sequence[Tensor]:
    """The labels that each frame shows, sorted; a device is asked once for all frames.

    Example:
        >>> labels_of_frames(torch.tensor([[[4, 4]], [[9, 7]]]), torch.tensor([4, 7, 9]))
        (tensor([4]), tensor([7, 9]))
    """
    return where_present((labels_Thw[..., None] == label_set_L).flatten(1, 2).any(1), label_set_L)


def where_present(present_TL: Tensor, values_L: Tensor) -> Sequence[Tensor]:
    """The values that are present in each frame; a device is asked once for all frames."""
    values: Sequence[Tensor] = values_L[present_TL.nonzero()[:, 1]].split(present_TL.sum(1).tolist())
    return values


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
        guide_3HW = frame_HW3.permute(2, 0, 1).contiguous().float().div_(255)
        size = (guide_3HW.shape[1], guide_3HW.shape[2])
        small = (-(-size[0] // self.subsampling), -(-size[1] // self.subsampling))
        guide_3uv = functional.adaptive_avg_pool2d(guide_3HW, small)
        radius = max(1, round(self.radius / self.subsampling))
        slopes_L3uv, offsets_Luv = guided_models(bilinear(probabilities_Luv, small), guide_3uv, radius, self.eps)
        score_1HW, slope_1HW = guide_3HW.new_empty(1, *size), guide_3HW.new_empty(1, *size)

        def score(index: int) -> Tensor:
            bilinear(offsets_Luv[index, None], size, score_1HW)
            for slope_uv, guide_HW in zip(slopes_L3uv[index], guide_3HW, strict=True):
                score_1HW.addcmul_(bilinear(slope_uv[None], size, slope_1HW), guide_HW)
            return score_1HW[0]

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
    covariance_33uv = products_33uv - mean_3uv[:, None] * mean_3uv
    products_L3uv = window_mean((inputs_Luv[:, None] * guide_3uv).flatten(0, 1), radius).unflatten(0, (-1, 3))
    cross_L3uv = products_L3uv - mean_Luv[:, None] * mean_3uv
    ridge_33 = eps * torch.eye(3, device=guide_3uv.device, dtype=guide_3uv.dtype)
    inverse_33uv = inverses(covariance_33uv + ridge_33[..., None, None])
    slopes_L3uv = (cross_L3uv[:, :, None] * inverse_33uv).sum(1)
    offsets_Luv = mean_Luv - (slopes_L3uv * mean_3uv).sum(1)
    smooth_L3uv = window_mean(slopes_L3uv.flatten(0, 1), radius).unflatten(0, (-1, 3))
    return smooth_L3uv, window_mean(offsets_Luv, radius)


def inverses(matrices_33uv: Tensor) -> Tensor:
    """Inverse of the symmetric 3x3 matrix of every pixel, by its cofactors in double precision."""
    (a, b, c), (_, d, e), (_, _, f) = matrices_33uv.double()
    upper = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
    determinant_uv = a * upper[0] + b * upper[1] + c * upper[2]
    # Stacked, not indexed by a list, which a device would wait for.
    cofactors_9uv = torch.stack([upper[k] for k in (0, 1, 2, 1, 3, 4, 2, 4, 5)])
    inverse_33uv: Tensor = (cofactors_9uv / determinant_uv).unflatten(0, (3, 3))
    return inverse_33uv.to(matrices_33uv)
