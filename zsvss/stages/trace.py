"""Every intermediate of one clip by name: what parity tests, figures and debugging read.

Shape legend: T frames of a clip, B rows (one label in one frame), S = 2 signs, H W pixels, u v latent cells,
n tokens, c channels, L labels, P trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from zsvss.backbones.base import ClipNoise, Recording


@dataclass
class Trace:
    """Intermediates of one clip; a field stays ``None`` where its stage is switched off.

    Attributes:
        noise: random numbers of the clip.
        latents_Tcuv: encoded frames.
        recording: the feature pass: noised latents, x after each step, recorded attention.
        features_Tnc: normalised clustering features.
        correspondence_Tnc: unit-length correspondence features, or the queries; of the latent frames alone where frames
            share them.
        grid: height and width of the token grid.
        coarse_Tn: labels of the scene context model.
        trajectories_TP: token numbers of every trajectory, dropped ones included.
        refined_Tn: refined labels.
        label_set_L: labels of the video.
        modulated_steps: step -> latents after it, before blending, as chunks of rows [B, S, c, u, v].
        rows_B2: frame and label index of each row, in the order of the chunks.
        modulated_latents: chunks of final latents [B, S, c, u, v].
        difference_maps: chunks of blurred difference maps [B, H, W], grey levels, not normalised.
        labels_THW: the segmentation.
    """

    noise: ClipNoise | None = None
    latents_Tcuv: Tensor | None = None
    recording: Recording | None = None
    features_Tnc: Tensor | None = None
    correspondence_Tnc: Tensor | None = None
    grid: tuple[int, int] | None = None
    coarse_Tn: Tensor | None = None
    trajectories_TP: Tensor | None = None
    refined_Tn: Tensor | None = None
    label_set_L: Tensor | None = None
    modulated_steps: dict[int, list[Tensor]] = field(default_factory=dict)
    rows_B2: list[Tensor] = field(default_factory=list)
    modulated_latents: list[Tensor] = field(default_factory=list)
    difference_maps: list[Tensor] = field(default_factory=list)
    labels_THW: Tensor | None = None

    def add_rows(
        self, frames_B: Tensor, label_index_B: Tensor, *, modulated_latents: Tensor, difference_maps: Tensor
    ) -> None:
        """Append a chunk of modulated rows."""
        self.rows_B2.append(torch.stack([frames_B, label_index_B], 1))
        self.modulated_latents.append(modulated_latents)
        self.difference_maps.append(difference_maps)

    def rows_of_label(self, label_index: int) -> tuple[Tensor, Tensor]:
        """Frames [B] that were modulated for a label, and which rows they are [B]."""
        rows_B2 = torch.cat(self.rows_B2)
        rows_B = (rows_B2[:, 1] == label_index).nonzero().flatten()
        return rows_B2[rows_B, 0], rows_B


class SegmentedClip(NamedTuple):
    """A clip's segmentation; all labels are int64, on the backbone's device.

    Attributes:
        labels_THW: at the frames' own size.
        coarse_Thw: of the scene context model, on the token grid.
        refined_Thw: after the correspondence-based refinement, on the token grid.
        seconds: by stage; their sum is the time spent in all.
        clusters_2hw: cluster and class of each token of the video's first frame, with the clip that clusters take
            classes in; otherwise ``None``.
    """

    labels_THW: Tensor
    coarse_Thw: Tensor
    refined_Thw: Tensor
    seconds: dict[str, float]
    clusters_2hw: Tensor | None = None

    @classmethod
    def of(
        cls, trace: Trace, seconds: dict[str, float], num_wanted: int | None, clusters_2n: Tensor | None
    ) -> SegmentedClip:
        """What a trace says of the first ``num_wanted`` frames."""
        assert trace.labels_THW is not None
        assert trace.coarse_Tn is not None
        assert trace.refined_Tn is not None
        assert trace.grid is not None
        coarse_Thw, refined_Thw = (
            labels_Tn[:num_wanted].unflatten(1, trace.grid) for labels_Tn in (trace.coarse_Tn, trace.refined_Tn)
        )
        clusters_2hw = None if clusters_2n is None else clusters_2n.unflatten(1, trace.grid)
        return cls(trace.labels_THW, coarse_Thw, refined_Thw, seconds, clusters_2hw)
