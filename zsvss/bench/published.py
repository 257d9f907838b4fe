"""The published schedule, plainly: what `zsvss.run bench` compares with, and nothing else.

Every label in both signs, full passes of the network with the recorded q and k put in, a decode of the feature pass and
of every modulated pass, clustering in scikit-learn. With a folder, attention and images go through it as in the
published code: written once, read again for every label and sign.

Shape legend: T frames of a clip, H W pixels, h w token cells, u v latent cells, n tokens, c channels, L labels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from zsvss.backbones.base import ClipNoise, Recording
from zsvss.backbones.fused_upsampling import MergedUpsampling
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.difference import difference_map
from zsvss.stages.features import AttentionFeatures
from zsvss.stages.modulation import LargestDifference, blend_latents
from zsvss.stages.nearest_resizing import nearest
from zsvss.stages.refinement import Refinement
from zsvss.stages.trace import SegmentedClip
from zsvss.stopwatch import Stopwatch, device_clock


class PublishedSchedule:
    """One clip by the published schedule.

    Args:
        backbone: loaded, with ``reuse_recorded: false``; its networks are put back to diffusers' plain layers.
        num_clusters: of K-means.
        refinement: the second stage, which the published code computes as plainly as ours does.
        folder: where attention and images go through; ``None`` keeps them in memory.
        strength: lambda.
    """

    def __init__(
        self,
        backbone: StableDiffusion,
        num_clusters: int,
        refinement: Refinement,
        folder: Path | None = None,
        strength: float = 50.0,
    ) -> None:
        if backbone.reuse_recorded:
            raise ValueError("the published schedule reuses nothing: construct the backbone with reuse_recorded=False.")
        for network in (backbone.unet, backbone.vae):
            put_back_plain_layers(network)
        self.backbone, self.num_clusters, self.refinement = backbone, num_clusters, refinement
        self.folder, self.strength = folder, strength

    @torch.inference_mode()
    def __call__(self, frames_THW3: Tensor, noise: ClipNoise, labels_Thw: Tensor, label_set_L: Tensor) -> SegmentedClip:
        """Segment a clip.

        Args:
            frames_THW3: uint8 frames at the network's size.
            noise: the clip's random numbers.
            labels_Thw: token labels that the third stage gets, so that results can be compared: the clustering of its
                own, which is computed as well, starts from other random centres.
            label_set_L: sorted labels of the video.

        Returns:
            labels, with the token labels that were given as the refined ones.
        """
        backbone, watch = self.backbone, Stopwatch(partial(device_clock, self.backbone.device))
        with watch.measure("encode"):
            images_T3HW = VideoSegmenter(backbone, input_size="frames").to_images(frames_THW3)
            latents_Tcuv = backbone.encode(images_T3HW, noise)
        with watch.measure("record"):
            features, correspondence = AttentionFeatures(), AttentionFeatures((7,), normalization="euclidean")
            keys = features.keys(backbone) + correspondence.keys(backbone)
            noised_Tcuv = backbone.add_noise(latents_Tcuv, noise)
            recording = backbone.record(noised_Tcuv, backbone.condition(images_T3HW, noise), keys)
            self._write_images("recorded", backbone.decode(recording.latents[backbone.steps[-1]]))
            features_Tnc = features(backbone, recording, images_T3HW)
            correspondence_Tnc = correspondence(backbone, recording, images_T3HW)
            self._write_attention(recording)
        with watch.measure("context"):
            coarse_Tn = self._cluster(features_Tnc)
        with watch.measure("refinement"):
            self.refinement(correspondence_Tnc, coarse_Tn.to(features_Tnc.device), features.grid(backbone, recording))
        with watch.measure("modulation"):
            size = (frames_THW3.shape[1], frames_THW3.shape[2])
            election = LargestDifference(labels_Thw, label_set_L, size, None)
            frames_T = torch.arange(len(frames_THW3), device=backbone.device)
            for index, label in enumerate(label_set_L):
                masks_Thw = (labels_Thw == label).float()
                plus, minus = (self._modulated(recording, sign * masks_Thw, f"{index}_{sign}") for sign in (1, -1))
                election.add(range(len(frames_THW3)), torch.full_like(frames_T, index), difference_map(plus, minus))
        coarse_Thw = coarse_Tn.view(labels_Thw.shape)
        return SegmentedClip(election.labels_THW, coarse_Thw, labels_Thw, watch.seconds)

    def _cluster(self, features_Tnc: Tensor) -> Tensor:
        """K-means over the clip, then the vote of the first frame's four nearest neighbours; int64 [T, n]."""
        tokens_Nc = features_Tnc.flatten(0, 1).float().cpu().numpy()
        num_tokens = features_Tnc.shape[1]
        clusters_N = KMeans(self.num_clusters, n_init=10, random_state=0).fit(tokens_Nc).labels_
        neighbors = KNeighborsClassifier(4).fit(tokens_Nc[:num_tokens], clusters_N[:num_tokens])
        return torch.from_numpy(neighbors.predict(tokens_Nc).astype(np.int64)).view(-1, num_tokens)

    def _modulated(self, recording: Recording, signed_masks_Thw: Tensor, name: str) -> Tensor:
        """Denoise all frames with one label's mask added; returns images [T, 3, H, W]."""
        backbone = self.backbone
        recording = self._read_attention(recording)
        x_Tcuv = recording.noised_Tchw
        frames_T = torch.arange(len(x_Tcuv), device=x_Tcuv.device)
        mask_T1uv = nearest(signed_masks_Thw.abs()[:, None], (x_Tcuv.shape[-2], x_Tcuv.shape[-1]))
        for step in backbone.steps:
            offset_Tn = self.strength * signed_masks_Thw.flatten(1) if step == backbone.steps[0] else None
            x_Tcuv = backbone.denoise(x_Tcuv, step, recording, frames_T, offset_Tn)
            if step in backbone.blended_steps:
                x_Tcuv = blend_latents(x_Tcuv, recording.latents[step], mask_T1uv)
        return self._through_images(name, backbone.decode(x_Tcuv))

    # The disk

    def _write_attention(self, recording: Recording) -> None:
        if self.folder is not None:
            for number, key in enumerate(sorted(recording.tensors)):
                torch.save(recording.tensors[key].cpu(), self.folder / f"attention_{number}.pt")

    def _read_attention(self, recording: Recording) -> Recording:
        if self.folder is None:
            return recording
        device = recording.noised_Tchw.device
        tensors = {
            key: torch.load(self.folder / f"attention_{number}.pt").to(device)
            for number, key in enumerate(sorted(recording.tensors))
        }
        return Recording(recording.noised_Tchw, recording.conditioning, recording.latents, tensors, recording.grids)

    def _write_images(self, name: str, images_T3HW: Tensor) -> None:
        if self.folder is not None:
            bytes_THW3 = (((images_T3HW + 1) / 2).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
            for t, image_HW3 in enumerate(bytes_THW3):
                Image.fromarray(image_HW3).save(self.folder / f"{name}_{t}.png")

    def _through_images(self, name: str, images_T3HW: Tensor) -> Tensor:
        """What is read back of the written images, in [-1, 1]."""
        if self.folder is None:
            return images_T3HW
        self._write_images(name, images_T3HW)
        read = [np.asarray(Image.open(self.folder / f"{name}_{t}.png")) for t in range(len(images_T3HW))]
        return torch.from_numpy(np.stack(read)).to(images_T3HW).permute(0, 3, 1, 2) / 127.5 - 1


def put_back_plain_layers(network: nn.Module) -> None:
    """Undo `merge_upsampling`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, MergedUpsampling):
                setattr(module, name, child.plain)
