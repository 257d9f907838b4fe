"""The video segmenter: the paper's figure 3 as code.

frames -> latents -> features -> coarse labels -> refined labels -> segmentation.

Shape legend: T frames of a clip, H W pixels, u v latent cells, h w token grid of n tokens, c channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey, Recording
from zsvss.backbones.batching import once
from zsvss.backbones.input_size import NetworkSize, as_images
from zsvss.stages.clip_buffer import AnyFrame, FindsCuts, in_clips
from zsvss.stages.context import Memory, SceneContext
from zsvss.stages.features import AttentionFeatures, FeaturePass, Features
from zsvss.stages.finiteness import FiniteCheck, check_feature_pass
from zsvss.stages.modulation import LabelledClip, Modulation, NearestUpsampling
from zsvss.stages.nearest_resizing import to_grid
from zsvss.stages.padding import margins_on, mirror
from zsvss.stages.per_frame import PerFrameClustering
from zsvss.stages.precision import full_precision
from zsvss.stages.refinement import Refinement, check_grids
from zsvss.stages.shots import ShotBank, ShotMatching
from zsvss.stages.soft_labels import imposed
from zsvss.stages.specks import merge_specks
from zsvss.stages.trace import SegmentedClip, Trace
from zsvss.stopwatch import Stopwatch, device_clock, measured


class VideoSegmenter(nn.Module):
    """Segments a video clip by clip, consistently; the state of the video lives here.

    Args:
        backbone: a loaded diffusion model.
        context: scene context model; ``None`` clusters every frame on its own (:class:`PerFrameClustering`).
        refinement: correspondence-based refinement; ``None`` keeps the coarse labels.
        modulation: masked modulation; ``None`` enlarges the token cells (:class:`NearestUpsampling`).
        features: what is clustered.
        input_size: height and width at which the backbone sees the frames, rounded down to its multiple; ``frames`` is
            the frames' own; ``None`` is about as many pixels as the backbone is made for (its ``native_size``), in the
            frames' shape, or their own size where it takes any. Labels always come back at the frames' own size.
        padding: pixels by which the backbone's input is mirrored beyond each border, a multiple of a feature cell's
            (16 or 32); the zero padding of convolutions otherwise leaves clusters of its own along the border.
        min_region: connected regions below this share of the frame's pixels, 0..1, take the labels of what surrounds
            them; where given labels are propagated, the largest region of a label stays. 0 merges nothing.
        shots: finds in a new shot what was there in earlier ones, where clips come with the number of their shot.

    Example:
        >>> segmenter = VideoSegmenter(backbone, KNNSceneContext())  # doctest: +SKIP
        >>> for clip in clips:  # doctest: +SKIP
        ...     labels_THW = segmenter(clip.frames_THW3).labels_THW
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
        input_size: tuple[int, int] | Literal["frames"] | None = None,
        padding: int = 0,
        min_region: float = 0.0,
        shots: ShotMatching | None = None,
    ) -> None:
        super().__init__()
        if padding < 0:
            raise ValueError(f"padding = {padding} must be 0 or more pixels.")
        if not 0 <= min_region < 1:
            raise ValueError(f"min_region = {min_region} must be a share of the frame: 0 or more, and below 1.")
        self.backbone = backbone
        self.context = context or PerFrameClustering()
        self.refinement = refinement
        self.modulation = modulation or NearestUpsampling()
        self.features = features or AttentionFeatures()
        self.input_size = input_size
        self.padding = padding
        self.min_region = min_region
        self.shots = shots or ShotMatching()
        self.restore((None, ShotBank()))

    def reset(self) -> None:
        """Forget the video; the next clip opens a new one."""
        self.restore((None, ShotBank()))

    def state(self) -> tuple[Memory | None, ShotBank]:
        """What the segmenter knows of the video so far."""
        return self.memory, self.bank

    def restore(self, state: tuple[Memory | None, ShotBank]) -> None:
        """Go on after the clip at which `state` was taken."""
        self.memory, self.bank = state

    def stream(
        self, frames: Iterable[AnyFrame], *, clip_length: int = 14, shots: FindsCuts | None = None
    ) -> Iterator[Tensor]:
        """Segment frames as they come, such as a camera's; opens a new video.

        Args:
            frames: uint8 RGB [H, W, 3].
            clip_length: frames that are gathered before they are segmented; fewer come sooner.
            shots: finds cuts, such as ``zsvss.data.shots.ShotDetector().start()``; ``None`` takes all for one shot.

        Yields:
            int64 labels [H, W] of each frame.
        """
        self.reset()
        for number, (frames_THW3, shot) in enumerate(in_clips(frames, clip_length, shots)):
            generator = torch.Generator().manual_seed(number)
            yield from self(frames_THW3, generator=generator, shot=shot).labels_THW

    @torch.inference_mode()
    def forward(
        self,
        frames_THW3: Tensor,
        *,
        resized_THW3: Tensor | None = None,
        generator: torch.Generator | None = None,
        first_labels_HW: Tensor | None = None,
        given_THW: Tensor | None = None,
        noise: ClipNoise | None = None,
        conditioning: Conditioning | None = None,
        num_wanted: int | None = None,
        shot: int | None = None,
        trace: Trace | None = None,
    ) -> SegmentedClip:
        """Segment the next clip of the video.

        Args:
            frames_THW3: uint8 RGB frames at their own size.
            resized_THW3: the same at `network_size`, if they were resized before; they are resized here if ``None``.
            generator: CPU generator of the clip's noise and clustering; a fixed seed if ``None``.
            first_labels_HW: classes of the first frame at any size, negative where void: clusters of the video then
                bear class ids. Read only at the first clip of a video.
            given_THW: int64 labels given for pixels of any of the frames, negative where there is none: they are the
                truth of their frames and are propagated to the others, by a context that takes given labels.
            noise: random numbers to use in place of the generator's.
            conditioning: in place of the backbone's own.
            num_wanted: return labels of the first so many frames only, for a clip whose other frames come again in
                the next one; they still shape the scene context, but the last stage leaves them out.
            shot: number of the clip's shot; where it differs from the last clip's, the scene context model opens anew,
                and what was there in an earlier shot takes its labels again. ``None`` follows no shots.
            trace: a new one is filled with every intermediate.

        Returns:
            labels of T (or ``num_wanted``) frames: cluster ids, class ids with ``first_labels_HW``, or given labels.

        Raises:
            ValueError: if the frames are not uint8 [T, H, W, 3] or too small for the backbone, or labels are given that
                the context does not take.
            NotFiniteError: if a stage gives infinite values or NaN.
        """
        generator = generator or torch.Generator().manual_seed(0)
        kept = Trace() if trace is None else trace
        self._cut(frames_THW3, shot)
        with Stopwatch(partial(device_clock, self.backbone.device)).running() as watch:
            images_T3HW, kept.noise = self._prepare(frames_THW3, resized_THW3, noise, generator)
            kept.recording = self._see(images_T3HW, kept.noise, conditioning, trace)
            kept.latents_Tcuv = kept.recording.encoded_Tchw
            seen = FeaturePass(self.backbone, kept.recording, images_T3HW, self.padding, num_wanted)
            kept.features_Tnc, kept.grid = self._read(seen)
            check_feature_pass(self.backbone, kept.recording, kept.features_Tnc)
            kept.coarse_Tn, memory = self._cluster(
                kept.features_Tnc, kept.grid, seen, generator, first_labels_HW, given_THW
            )
            kept.refined_Tn = self._refine(kept.coarse_Tn, kept.grid, seen, kept)
            self.memory = self._remember(kept.features_Tnc, kept.refined_Tn, memory, shot)
            refined_Thw = kept.refined_Tn.unflatten(1, kept.grid)
            labelled = LabelledClip(refined_Thw, memory.label_set_L, frames_THW3, kept.recording, kept.features_Tnc)
            if memory.propagated is not None and self.refinement is None:
                labelled = labelled._replace(shares=memory.propagated.shares)
            kept.labels_THW = self._modulate(labelled, images_T3HW, num_wanted, trace)
            if given_THW is not None:
                kept.labels_THW = imposed(kept.labels_THW, given_THW[:num_wanted])
        kept.label_set_L = memory.label_set_L
        return SegmentedClip.of(kept, watch.seconds, num_wanted, memory.clusters_2n)

    def _cut(self, frames_THW3: Tensor, shot: int | None) -> None:
        """Let the scene context model open anew where a clip is of another shot, unless it is too small for that."""
        if self.bank.ends_before(shot):
            with suppress(ValueError):
                self.check((frames_THW3.shape[1], frames_THW3.shape[2]), len(frames_THW3))
                self.memory = None

    # The stages, each timed by its name

    @measured("encode")
    def _prepare(
        self, frames_THW3: Tensor, resized_THW3: Tensor | None, noise: ClipNoise | None, generator: torch.Generator
    ) -> tuple[Tensor, ClipNoise]:
        """Frames -> images as the backbone sees them [T, 3, H', W'], and the clip's random numbers."""
        images_T3HW = mirror(self.to_images(frames_THW3, resized_THW3), (self.padding, self.padding))
        num_frames, _, height, width = images_T3HW.shape
        if self.memory is None:
            self.check((frames_THW3.shape[1], frames_THW3.shape[2]), num_frames)
        return images_T3HW, noise or self.backbone.sample_noise(num_frames, height, width, generator)

    @measured("encode")
    def _encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        """Images -> latents [T, c, u, v]."""
        return self.backbone.encode(images_T3HW, noise)

    def _see(
        self, images_T3HW: Tensor, noise: ClipNoise, conditioning: Conditioning | None, trace: Trace | None
    ) -> Recording:
        """Images -> what the stages read of the backbone; no network is run for colours alone."""
        readers: list[Features | SceneContext] = [self.features]
        if self.memory is None:
            readers.append(self.context)
        if self.refinement is not None:
            readers += self.refinement.reads(self.backbone)
        keys = self._keys(readers)
        for_denoising = self.modulation.denoises or trace is not None
        if keys or for_denoising:
            latents_Tcuv = self._encode(images_T3HW, noise)
            return self._record(latents_Tcuv, images_T3HW, noise, conditioning, keys, for_denoising)
        reads_latents = any(reader.reads_latents for reader in readers)
        return Recording.of_nothing(noise, self._encode(images_T3HW, noise) if reads_latents else None)

    def _keys(self, readers: Sequence[Features | SceneContext]) -> list[FeatureKey]:
        return [key for reader in readers for key in reader.keys(self.backbone)]

    @measured("record")
    def _record(
        self,
        latents_Tcuv: Tensor,
        images_T3HW: Tensor,
        noise: ClipNoise,
        conditioning: Conditioning | None,
        keys: list[FeatureKey],
        for_denoising: bool,
    ) -> Recording:
        """Latents -> what the feature pass records, of which a trace wants everything."""
        condition = partial(self.backbone.condition, images_T3HW, noise)
        conditioning = conditioning or once(condition, "clip's conditioning")
        noised_Tcuv = self.backbone.add_noise(latents_Tcuv, noise)
        recording = self.backbone.record(noised_Tcuv, conditioning, keys, for_denoising=for_denoising)
        recording.encoded_Tchw = latents_Tcuv
        return recording

    @measured("record")
    def _read(self, seen: FeaturePass) -> tuple[Tensor, tuple[int, int]]:
        """Recording -> features [T, n, c], and the height and width of their grid."""
        return seen.read(self.features)

    @measured("context")
    def _cluster(
        self,
        features_Tnc: Tensor,
        grid: tuple[int, int],
        seen: FeaturePass,
        generator: torch.Generator,
        first_labels_HW: Tensor | None,
        given_THW: Tensor | None,
    ) -> tuple[Tensor, Memory]:
        """Features -> coarse labels [T, n], and the memory that they come from."""
        with full_precision(features_Tnc.device):
            if self.memory is None:
                found, self.bank = self.shots.find_again(self.bank, features_Tnc)
                self.memory = None if found is None else self.context.reopened(found)
            if given_THW is not None:
                return self.context.propagate(features_Tnc, grid, given_THW, self.memory)
            if self.memory is not None:
                return self.shots.resume(self.context, self.bank, features_Tnc, self.memory, generator, seen)
            names_n = None if first_labels_HW is None else to_grid(first_labels_HW, grid).flatten()
            return self.shots.start(self.context, self.bank, features_Tnc, generator, names_n, grid, seen)

    @measured("refinement")
    def _refine(self, coarse_Tn: Tensor, grid: tuple[int, int], seen: FeaturePass, trace: Trace) -> Tensor:
        """Coarse labels -> refined labels [T, n]; how goes into the trace."""
        if self.refinement is None:
            return coarse_Tn
        check = FiniteCheck(self.backbone)
        with full_precision(coarse_Tn.device):
            compared, own_grid = self.refinement.compared(seen)
            trace.correspondence_Tnc = compared.features_Lnc
            check.add("features for the refinement", compared.features_Lnc)
            check.add("keys for the refinement", compared.keys_Lnc)
            check.ask()
            check_grids(own_grid, grid)
            refined_Tn, trace.trajectories_TP = self.refinement.refine(compared, coarse_Tn, grid)
        return refined_Tn

    @measured("context")
    def _remember(self, features_Tnc: Tensor, refined_Tn: Tensor, memory: Memory, shot: int | None) -> Memory:
        """Features and refined labels -> what the next clip's labels come from, and what a later shot's may."""
        with full_precision(features_Tnc.device):
            memory = self.context.update(features_Tnc, refined_Tn, memory)
            if shot is not None:
                self.bank = self.shots.remember(self.context, self.bank, shot, features_Tnc, refined_Tn, memory)
            return memory

    @measured("modulation")
    def _modulate(self, clip: LabelledClip, images_T3HW: Tensor, num_wanted: int | None, trace: Trace | None) -> Tensor:
        """Refined labels -> labels at the frames' own size [T, H, W]."""
        size = (images_T3HW.shape[-2], images_T3HW.shape[-1])
        margins = margins_on(self.features.grid(self.backbone, clip.recording), self.padding, size)
        used = slice(None if self.backbone.couples_frames else num_wanted)
        clip = clip.part(used)._replace(margins=margins)
        labels_THW = self.modulation(self.backbone, clip, trace)[:num_wanted]
        return merge_specks(labels_THW, self.min_region, keep_largest=self.context.takes_given_labels)

    @property
    def network_size(self) -> NetworkSize:
        """At which size the backbone sees frames; known when the backbone is loaded."""
        wanted = None if self.input_size == "frames" else self.input_size
        native = self.backbone.native_size if self.input_size is None else None
        return NetworkSize(wanted, self.backbone.size_multiple, self.padding, native)

    def to_images(self, frames_THW3: Tensor, resized_THW3: Tensor | None = None) -> Tensor:
        """Frames as the backbone takes them, but for the padding; see `as_images`."""
        return as_images(frames_THW3, resized_THW3, self.network_size, self.backbone.device)

    def check_places(self) -> None:
        """Refuse places that the backbone does not have; needs no weights.

        Raises:
            ValueError: naming the places that it has.
        """
        compared = [] if self.refinement is None else self.refinement.reads(self.backbone)
        self.backbone.checked(self._keys([self.features, self.context, *compared]))

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
        grid = self.features.grid_of(self.backbone, (height, width))
        self.context.check(num_frames, grid[0] * grid[1])
