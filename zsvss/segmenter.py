"""The video segmenter: the paper's figure 3 as code.

frames -> latents -> features -> coarse labels -> refined labels -> segmentation.

Shape legend: T frames of a clip, H W pixels at the frame's own size, n feature tokens, c channels.
"""

from __future__ import annotations

import time
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey
from zsvss.backbones.batching import with_smaller_batches
from zsvss.backbones.input_size import NetworkSize, resize_frames
from zsvss.backbones.layout import token_grid
from zsvss.stages.context import Memory, PerFrameClustering, SceneContext
from zsvss.stages.features import AttentionFeatures, FeaturePass, Features
from zsvss.stages.modulation import LabelledClip, Modulation, NearestUpsampling
from zsvss.stages.padding import margins_on, mirror
from zsvss.stages.precision import full_precision
from zsvss.stages.refinement import Refinement
from zsvss.stages.trace import Trace
from zsvss.stopwatch import Stopwatch


class VideoSegmenter(nn.Module):
    """Segments a video clip by clip, consistently; the state of the video lives here.

    Args:
        backbone: a loaded diffusion model.
        context: scene context model; ``None`` clusters every frame on its own (:class:`PerFrameClustering`).
        refinement: correspondence-based refinement; ``None`` keeps the coarse labels.
        modulation: masked modulation; ``None`` enlarges the token cells (:class:`NearestUpsampling`).
        features: what is clustered.
        input_size: height and width at which the backbone sees the frames, rounded down to its multiple; ``None``
            takes the frames' own. Labels always come back at the frames' own size.
        padding: pixels by which the backbone's input is mirrored beyond each border, a multiple of a feature cell's
            (16 or 32); the zero padding of convolutions otherwise leaves clusters of its own along the border.

    Example:
        >>> segmenter = VideoSegmenter(backbone, KNNSceneContext())  # doctest: +SKIP
        >>> for clip in clips:  # doctest: +SKIP
        ...     labels_THW = segmenter(clip.frames_THW3)
        >>> segmenter.reset()  # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: Backbone,
        context: SceneContext | None = None,
        refinement: Refinement | None = None,
        modulation: Modulation | None = None,
        *,
        features: Features | None = None,
        input_size: tuple[int, int] | None = None,
        padding: int = 0,
    ) -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding = {padding} must be 0 or more pixels.")
        self.backbone = backbone
        self.context = context or PerFrameClustering()
        self.refinement = refinement
        self.modulation = modulation or NearestUpsampling()
        self.features = features or AttentionFeatures()
        self.input_size = input_size
        self.padding = padding
        self.memory: Memory | None = None
        self.timings: dict[str, float] = {}
        # Of the last clip, [T, h, w] on the token grid: small, so that they are kept without a trace too.
        self.token_labels: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forget the video; the next clip opens a new one."""
        self.memory = None

    @overload
    def forward(
        self,
        frames_THW3: Tensor,
        *,
        resized_THW3: Tensor | None = ...,
        generator: torch.Generator | None = ...,
        first_labels_HW: Tensor | None = ...,
        noise: ClipNoise | None = ...,
        conditioning: Conditioning | None = ...,
        num_wanted: int | None = ...,
        trace: Literal[False] = ...,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        frames_THW3: Tensor,
        *,
        resized_THW3: Tensor | None = ...,
        generator: torch.Generator | None = ...,
        first_labels_HW: Tensor | None = ...,
        noise: ClipNoise | None = ...,
        conditioning: Conditioning | None = ...,
        num_wanted: int | None = ...,
        trace: Literal[True],
    ) -> tuple[Tensor, Trace]: ...

    @torch.inference_mode()
    def forward(
        self,
        frames_THW3: Tensor,
        *,
        resized_THW3: Tensor | None = None,
        generator: torch.Generator | None = None,
        first_labels_HW: Tensor | None = None,
        noise: ClipNoise | None = None,
        conditioning: Conditioning | None = None,
        num_wanted: int | None = None,
        trace: bool = False,
    ) -> Tensor | tuple[Tensor, Trace]:
        """Segment the next clip of the video.

        Args:
            frames_THW3: uint8 RGB frames at their own size.
            resized_THW3: the same at `network_size`, if they were resized before; they are resized here if ``None``.
            generator: CPU generator of the clip's noise and clustering; a fixed seed if ``None``.
            first_labels_HW: classes of the first frame at any size, negative where void: clusters of the video then
                bear class ids. Read only at the first clip of a video.
            noise: random numbers to use in place of the generator's.
            conditioning: in place of the backbone's own.
            num_wanted: return labels of the first so many frames only, for a clip whose other frames come again in
                the next one; they still shape the scene context, but the last stage leaves them out.
            trace: also return every intermediate.

        Returns:
            int64 labels [T (or num_wanted), H, W] on the backbone's device: cluster ids, or class ids with
            ``first_labels_HW``; with ``trace`` also the :class:`Trace`.

        Raises:
            ValueError: if the frames are not uint8 [T, H, W, 3] or too small for the backbone.
        """
        generator = generator or torch.Generator().manual_seed(0)
        kept = Trace()
        watch = Stopwatch(self._clock)
        self.timings = watch.seconds
        with watch.measure("encode"):
            images_T3HW = mirror(self.to_images(frames_THW3, resized_THW3), (self.padding, self.padding))
            num_frames, _, height, width = images_T3HW.shape
            if self.memory is None:
                self.check((frames_THW3.shape[1], frames_THW3.shape[2]), num_frames)
            kept.noise = noise or self.backbone.sample_noise(num_frames, height, width, generator)
            clip_noise = kept.noise
            kept.latents_Tcuv = with_smaller_batches(
                self.backbone, lambda: self.backbone.encode(images_T3HW, clip_noise)
            )
        with watch.measure("record"):
            condition = conditioning or self.backbone.condition(images_T3HW, clip_noise)
            noised_Tcuv = self.backbone.add_noise(kept.latents_Tcuv, clip_noise)
            keys, for_denoising = self._feature_keys(), self.modulation.denoises or trace
            kept.recording = with_smaller_batches(
                self.backbone,
                lambda: self.backbone.record(noised_Tcuv, condition, keys, for_denoising=for_denoising),
            )
            seen = FeaturePass(self.backbone, kept.recording, images_T3HW, self.padding)
            kept.features_Tnc, kept.grid = seen.read(self.features)
        with watch.measure("context"), full_precision(images_T3HW.device):
            kept.coarse_Tn, memory = self._coarse_labels(kept.features_Tnc, kept.grid, generator, first_labels_HW, seen)
            kept.label_set_L = memory.label_set_L
        with watch.measure("refinement"), full_precision(images_T3HW.device):
            kept.refined_Tn = kept.coarse_Tn
            if self.refinement is not None:
                kept.correspondence_Tnc, grid = seen.read(self.refinement.features)
                check_grids(grid, kept.grid)
                kept.refined_Tn, kept.trajectories_TP = self.refinement(
                    kept.correspondence_Tnc, kept.coarse_Tn, kept.grid
                )
            self.memory = self.context.update(kept.features_Tnc, kept.refined_Tn, memory)
        tokens = {"coarse": kept.coarse_Tn, "refined": kept.refined_Tn}
        self.token_labels = {stage: labels_Tn.unflatten(1, kept.grid) for stage, labels_Tn in tokens.items()}
        with watch.measure("modulation"):
            labels_Thw = kept.refined_Tn.unflatten(1, kept.grid)
            used = slice(None if self.backbone.couples_frames else num_wanted)
            labelled = LabelledClip(
                labels_Thw[used],
                memory.label_set_L,
                frames_THW3[used],
                kept.recording,
                kept.features_Tnc[used],
                margins_on(self.features.grid(kept.recording), self.padding, (height, width)),
            )
            kept.labels_THW = self.modulation(self.backbone, labelled, kept if trace else None)[:num_wanted]
        return (kept.labels_THW, kept) if trace else kept.labels_THW

    @property
    def network_size(self) -> NetworkSize:
        """At which size the backbone sees frames; known when the backbone is loaded."""
        return NetworkSize(self.input_size, self.backbone.size_multiple, self.padding)

    def to_images(self, frames_THW3: Tensor, resized_THW3: Tensor | None = None) -> Tensor:
        """Resize frames to the backbone's input (PIL bicubic, if the size differs) and scale them to [-1, 1].

        Args:
            frames_THW3: uint8 frames at their own size.
            resized_THW3: the same at `network_size`, if they were resized before.

        Returns:
            float32 [T, 3, H', W'], contiguous, on the backbone's device; without the padding, which makes the size up
            to a multiple of the backbone's.
        """
        if frames_THW3.ndim != 4 or frames_THW3.shape[-1] != 3 or frames_THW3.dtype != torch.uint8:
            raise ValueError(f"frames must be uint8 [T, H, W, 3]; found {frames_THW3.dtype} {list(frames_THW3.shape)}.")
        own = (frames_THW3.shape[1], frames_THW3.shape[2])
        size = self.network_size.of(*own)
        if resized_THW3 is not None and resized_THW3.shape[1:3] != size:
            raise ValueError(f"resized frames are {list(resized_THW3.shape[1:3])}; this backbone wants {list(size)}.")
        if size != own:
            frames_THW3 = resize_frames(frames_THW3.cpu(), size) if resized_THW3 is None else resized_THW3
        # Contiguous: torch's CPU group norm loses four digits on channels-last input.
        images_T3HW = frames_THW3.to(self.backbone.device).permute(0, 3, 1, 2).contiguous()
        return images_T3HW.to(torch.float32) / 255 * 2 - 1

    def check(self, own: tuple[int, int], num_frames: int) -> None:
        """Refuse settings that cannot work on a first clip of such frames; needs no weights.

        Args:
            own: the frames' height and width.
            num_frames: of the clip.

        Raises:
            ValueError: if the frames are too small for the backbone or for the number of clusters.
        """
        stride = self.backbone.latent_stride
        height, width = (side // stride for side in self.network_size.of(*own))
        grid = token_grid(self.features.grid_block, (height, width))
        self.context.check(num_frames, grid[0] * grid[1])

    def _feature_keys(self) -> list[FeatureKey]:
        keys = self.features.keys(self.backbone)
        if self.memory is None:
            keys = keys + self.context.keys(self.backbone)
        if self.refinement is not None:
            keys = keys + self.refinement.features.keys(self.backbone)
        return keys

    def _coarse_labels(
        self,
        features_Tnc: Tensor,
        grid: tuple[int, int],
        generator: torch.Generator,
        first_labels_HW: Tensor | None,
        seen: FeaturePass,
    ) -> tuple[Tensor, Memory]:
        if self.memory is not None:
            return self.context.resume(features_Tnc, self.memory, generator)
        names_n = None if first_labels_HW is None else to_grid(first_labels_HW, grid).flatten()
        return self.context.start(features_Tnc, generator, names_n, grid, seen)

    def _clock(self) -> float:
        """Seconds; on a GPU, of finished work."""
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        return time.perf_counter()


def check_grids(correspondence: tuple[int, int], features: tuple[int, int]) -> None:
    """Refuse a refinement that compares frames on another grid than the one that bears labels."""
    if correspondence != features:
        raise ValueError(
            f"refinement.features lie on a grid of {correspondence[0]}x{correspondence[1]} tokens, features on one of "
            f"{features[0]}x{features[1]}: give both blocks of one resolution (3..5, 6..8 or 9..11)."
        )


def to_grid(labels_HW: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a label map to the token grid by nearest neighbour; int64."""
    return functional.interpolate(labels_HW[None, None].double(), grid, mode="nearest")[0, 0].long()
