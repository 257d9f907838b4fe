"""A backbone without a network: fast, and simple enough to know what every stage must return.

Latents are 8x8 mean colours plus a grey channel, features are 16x16 mean colours with their neighbourhood's, and
modulation adds its offset to the latents, so that a label's image changes exactly inside its mask.
"""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning, FeatureKey, Recording
from zsvss.backbones.batching import BatchLimit
from zsvss.backbones.feature_places import ALL_PROJECTIONS
from zsvss.backbones.unet_layout import UNetLayout

_UP_BLOCKS = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]


class ToyBackbone(Backbone):
    couples_frames = False
    steps = range(22, 25)
    blended_steps = range(22, 24)
    latent_stride = 8
    size_multiple = 32
    modulation_block = 7
    places = UNetLayout({"up_block_types": _UP_BLOCKS}).places(dict.fromkeys(("self", "cross"), ALL_PROJECTIONS))

    def __init__(self, pairs: int = 8, couples_frames: bool = False) -> None:
        super().__init__()
        self.pairs = BatchLimit(pairs)
        self.couples_frames = couples_frames
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.rows = []

    def check(self) -> None: ...

    def load(self) -> None: ...

    def sample_noise(self, num_frames: int, height: int, width: int, generator: torch.Generator) -> ClipNoise:
        shape = num_frames, 4, height // 8, width // 8
        return ClipNoise(*(torch.randn(shape, generator=generator) for _ in range(2)))

    def encode(self, images_T3HW: Tensor, noise: ClipNoise) -> Tensor:
        color = functional.avg_pool2d(images_T3HW, 8)
        return torch.cat([color, color.mean(1, keepdim=True)], 1)

    def condition(self, images_T3HW: Tensor, noise: ClipNoise) -> Conditioning:
        return Conditioning(torch.zeros(2, 1, 1, device=images_T3HW.device))

    def add_noise(self, latents_Tchw: Tensor, noise: ClipNoise) -> Tensor:
        return latents_Tchw + 1e-3 * noise.diffusion_Tchw.to(latents_Tchw)

    def record(
        self, noised_Tchw: Tensor, conditioning: Conditioning, keys: Collection[FeatureKey], **_options
    ) -> Recording:
        recording = Recording(noised_Tchw, conditioning, latents=dict.fromkeys(self.steps, noised_Tchw))
        pooled = functional.avg_pool2d(noised_Tchw, 2)
        features = torch.cat([pooled, 0.3 * functional.avg_pool2d(pooled, 3, 1, 1)], 1).flatten(2).transpose(1, 2)
        for key in keys:
            recording.tensors[key] = torch.stack([torch.zeros_like(features), features])
            recording.grids[key.block] = (pooled.shape[-2], pooled.shape[-1])
        return recording

    def denoise(self, x_Bchw, step, recording, frames_B, offset_Bn=None, **_options) -> Tensor:
        assert len(x_Bchw) <= 2 * self.pairs.size or self.couples_frames
        if frames_B.device.type == "cpu":  # a device would have to be asked
            self.rows.append(frames_B.tolist())
        if offset_Bn is None:
            return x_Bchw
        offset_Bhw = offset_Bn.unflatten(1, (x_Bchw.shape[-2] // 2, -1))
        return x_Bchw + 1e-2 * functional.interpolate(offset_Bhw[:, None], scale_factor=2)

    def decode(self, latents_Bchw: Tensor, num_frames: int | None = None) -> Tensor:
        return functional.interpolate(latents_Bchw[:, :3], scale_factor=8)


def striped_video(num_frames=5, height=64, width=96, seed=0):
    """uint8 frames of four coloured bands that slide down a pixel a frame, and which band each pixel is in."""
    bands = (torch.arange(height)[None, :] + torch.arange(num_frames)[:, None]) * 4 // (height + num_frames)
    bands_THW = bands[..., None].expand(num_frames, height, width).contiguous()
    colors = torch.tensor([[220, 30, 30], [30, 200, 40], [40, 60, 230], [230, 220, 60]])
    noise = torch.randint(-8, 9, (num_frames, height, width, 3), generator=torch.Generator().manual_seed(seed))
    return (colors[bands_THW] + noise).clamp(0, 255).to(torch.uint8), bands_THW
