"""The network behind the studio: loaded once, when it is first needed, in a thread of its own.

Features are computed in clips that always begin at the same frames, so that they do not depend on what was asked for
before; the last ones are kept.

Shapes: T frames of a clip, H W pixels, h w token grid of n tokens, c channels, K clusters; 3 is RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.base import Conditioning, Recording
from zsvss.results.predictions import Ids
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import Memory
from zsvss.stages.given_labels import GivenLabels
from zsvss.stages.kmeans import kmeans
from zsvss.stages.modulation import LabelledClip, Modulation
from zsvss.stages.precision import full_precision
from zsvss.stages.soft_labels import LabelShares, area_shares
from zsvss.stages.specks import merge_specks
from zsvss.stages.upsampling import GuidedUpsampling, ProbabilityUpsampling
from zsvss.studio.frames import Frames, Kept

CLIP = 4
"""Frames of a clip, where the backbone does not couple them."""
MOST_GIVEN = 8
"""Frames whose labels are given that count at once."""
_FEATURE_BYTES = 512 << 20
_SHARE_INSIDE = 0.5  # of a token's cell that a segment must cover for the token to be one of its own


class ModelError(ValueError):
    """Something that the network cannot do here; says why."""


class Seen(NamedTuple):
    """Features of a clip.

    Attributes:
        features_Tnc: normalised features.
        grid: height and width of the token grid.
    """

    features_Tnc: Tensor
    grid: tuple[int, int]

    def of(self, index: int) -> Seen:
        """Those of one frame, as a clip."""
        return Seen(self.features_Tnc[index : index + 1], self.grid)


class _Looking(GivenLabels):
    """Keeps the features that it is given; as no frame is given labels, it labels nothing."""

    seen: Seen | None = None

    @override
    def propagate(
        self, features_Tnc: Tensor, grid: tuple[int, int], given_THW: Tensor | None, memory: Memory | None = None
    ) -> tuple[Tensor, Memory]:
        self.seen = Seen(features_Tnc, grid)
        return super().propagate(features_Tnc, grid, given_THW, memory)


class _Parts(NamedTuple):
    """The segmenter that looks, and the last stage."""

    segmenter: VideoSegmenter
    upsampling: Modulation
    min_region: float


class Model:
    """Propagates corrections and splits segments, by a run's own backbone and features.

    Everything runs in one thread: what is asked for waits for what was asked for before.

    Args:
        build: gives the segmenter, its backbone loaded.
    """

    def __init__(self, build: Callable[[], VideoSegmenter]) -> None:
        self._build = build
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._parts: _Parts | None = None
        self._context = _Looking()
        self._kept: Kept[Seen] = Kept(_FEATURE_BYTES)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Let the thread do something; the methods below are to be called there."""
        return self._thread.submit(function, *arguments)

    def close(self) -> None:
        """End the thread when it has done what it is doing."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ready(self) -> _Parts:
        """The network and what turns its tokens into pixels; built by the first call."""
        if self._parts is None:
            given = self._build()
            fits = isinstance(given.modulation, ProbabilityUpsampling)
            upsampling = given.modulation if fits else GuidedUpsampling()
            settings: dict[str, Any] = {"input_size": given.input_size, "padding": given.padding}
            looking = VideoSegmenter(given.backbone, self._context, None, None, features=given.features, **settings)
            self._parts = _Parts(looking, upsampling, given.min_region)
        return self._parts

    @torch.inference_mode()
    def see(self, frames: Frames, number: int, num_frames: int) -> Seen:
        """Features of a frame, as a clip.

        Args:
            frames: of the video.
            number: of the frame.
            num_frames: of the video.
        """
        segmenter = self.ready().segmenter
        length = 14 if segmenter.backbone.couples_frames else CLIP
        start = number // length * length
        key = (ref(frames), start)  # an id would be given to other frames once these are gone
        seen = self._kept.get(key)
        if seen is None:
            numbers = range(start, min(start + length, num_frames))
            segmenter.reset()
            segmenter(clip_of(frames, numbers), generator=torch.Generator().manual_seed(start))
            seen = self._context.seen
            assert seen is not None
            self._kept.put(key, seen, seen.features_Tnc.numel() * seen.features_Tnc.element_size())
        return seen.of(number - start)

    def look_ahead(self, frames: Frames, number: int, num_frames: int) -> None:
        """Look at a frame and those after it when there is time, as they may be wanted soon; returns at once.

        Args:
            frames: of the video.
            number: of the frame.
            num_frames: of the video.
        """
        for wanted in (number, number + CLIP):
            if self._parts is not None and wanted < num_frames:
                self.submit(self.see, frames, wanted, num_frames)

    @torch.inference_mode()
    def propagate(
        self, frames: Frames, num_frames: int, given: Mapping[int, Ids], numbers: Sequence[int]
    ) -> Iterator[tuple[int, Ids]]:
        """Label frames by those whose labels are given.

        Args:
            frames: of the video.
            num_frames: of the video.
            given: masks of frames, the one that the propagation begins at last; the last `MOST_GIVEN` of them count.
            numbers: frames to label, in the order in which to go.

        Yields:
            number and mask of each.
        """
        chosen = dict(list(given.items())[-MOST_GIVEN:])
        context = GivenLabels(num_given=max(1, len(chosen)))
        memory: Memory | None = None
        for number, ids_HW in chosen.items():
            seen = self.see(frames, number, num_frames)
            truth_1HW = torch.from_numpy(ids_HW.astype(np.int64))[None].to(seen.features_Tnc.device)
            with full_precision(seen.features_Tnc.device):
                _, memory = context.propagate(seen.features_Tnc, seen.grid, truth_1HW, memory)
        for number in numbers:
            seen = self.see(frames, number, num_frames)
            with full_precision(seen.features_Tnc.device):
                labels_1n, memory = context.propagate(seen.features_Tnc, seen.grid, None, memory)
            assert memory.propagated is not None
            labels_HW = self._upsampled(frames.read(number), labels_1n, seen, memory.propagated.shares)
            yield number, labels_HW

    @torch.inference_mode()
    def centers(
        self, frames: Frames, num_frames: int, number: int, inside_HW: npt.NDArray[np.bool_], num: int
    ) -> Tensor:
        """Centres of the clusters of a segment's tokens in a frame [K, c].

        Args:
            frames: of the video.
            num_frames: of the video.
            number: of the frame.
            inside_HW: the segment's pixels.
            num: K.

        Raises:
            ModelError: the segment covers fewer tokens than clusters are wanted.
        """
        seen = self.see(frames, number, num_frames)
        truth_HW = torch.from_numpy(inside_HW.astype(np.int64))
        share_n = area_shares(truth_HW, torch.tensor([1]), seen.grid)[:, 0, 0].to(seen.features_Tnc.device)
        tokens_Nc = seen.features_Tnc[0][share_n >= _SHARE_INSIDE]
        if len(tokens_Nc) < num:
            raise ModelError(
                f"the segment covers {len(tokens_Nc)} cells of the network's grid in this frame, too few for {num} "
                "parts; split it by the brush"
            )
        with full_precision(tokens_Nc.device):
            return kmeans(tokens_Nc, num, generator=torch.Generator().manual_seed(0)).centers_Kc

    @torch.inference_mode()
    def parts(self, frames: Frames, num_frames: int, number: int, centers_Kc: Tensor) -> Ids:
        """Which centre each pixel of a frame is nearest to, int32 ``[H, W]``."""
        seen = self.see(frames, number, num_frames)
        with full_precision(centers_Kc.device):
            labels_1n = torch.cdist(seen.features_Tnc[0], centers_Kc).argmin(1)[None]
        return self._upsampled(frames.read(number), labels_1n, seen, None)

    def _upsampled(
        self, frame_HW3: npt.NDArray[np.uint8], labels_1n: Tensor, seen: Seen, shares: LabelShares | None
    ) -> Ids:
        """Labels of a frame's pixels from those of its tokens, int32 ``[H, W]``."""
        nothing = torch.empty(0)
        clip = LabelledClip(
            labels_1n.unflatten(1, seen.grid),
            labels_1n.unique() if shares is None else shares.labels_L,
            torch.from_numpy(np.ascontiguousarray(frame_HW3))[None],
            Recording(nothing, Conditioning(nothing)),
            seen.features_Tnc,
            shares=shares,
        )
        ready = self.ready()
        labels_1HW = ready.upsampling(ready.segmenter.backbone, clip)
        labels_1HW = merge_specks(labels_1HW, ready.min_region, keep_largest=True)
        ids_HW: Ids = labels_1HW[0].cpu().numpy().astype(np.int32)
        return ids_HW


def clip_of(frames: Frames, numbers: Sequence[int]) -> Tensor:
    """Frames as the segmenter takes them, uint8 [T, H, W, 3]."""
    return torch.from_numpy(np.stack([frames.read(number) for number in numbers]))
