"""The embedded backbone's video sibling: its image U-Net with temporal layers, in Stable Video Diffusion's layout.

Shape legend: b samples of one pass of the network, c channels, h w latent cells, H W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones import embedded
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.backbones.unet_layout import check_layout
from zsvss.backbones.weights import WeightsSource

ADDED_WEIGHTS = "temporal.safetensors"
_TIME_WIDTH = 32


class EmbeddedVideo(StableVideoDiffusion):
    """A tiny video diffusion model that runs on a laptop's CPU; its results say nothing about Stable Video Diffusion's.

    Its spatial layers and its autoencoder are those of :class:`~zsvss.backbones.embedded.Embedded`; the tensors that a
    video adds to them lie in one file.

    Args:
        weights: folder that holds ``temporal.safetensors``.
        image_weights: folder of the image model; ``None`` takes the one that ships with the package.
        settings: of :class:`StableVideoDiffusion`.
    """

    vae_class = "AutoencoderKL"

    def __init__(self, weights: str, *, image_weights: str | None = None, **settings: Any) -> None:
        super().__init__(image_weights or str(Path(embedded.__file__).parent), **settings)
        self.native_size = embedded.Embedded(image_weights).native_size
        self.added_source = WeightsSource(weights)

    @override
    def check(self) -> None:
        check_layout(
            self.source.config("unet"), "UNet2DConditionModel", f"{self.source.name}/unet", only_the_papers=True
        )
        for part in ("unet", "vae"):
            self.source.check(part)
        self._added()

    @override
    def load_networks(self) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel

        self.unet = inflated(self.source.load(UNet2DConditionModel, "unet"))
        self.vae = self.source.load(AutoencoderKL, "vae")
        added, wanted = self._added(), added_tensors(self.unet)
        if {name: tensor.shape for name, tensor in added.items()} != {n: t.shape for n, t in wanted.items()}:
            differing = sorted(n for n in {*added, *wanted} if n not in added or n not in wanted)
            raise ValueError(
                f"{self.added_source.name}/{ADDED_WEIGHTS} does not belong to {self.source.name}/unet: tensors differ, "
                f"such as {(differing or sorted(wanted))[0]!r}."
            )
        self.unet.load_state_dict(added, strict=False)

    @override
    def load_conditioner(self) -> None:
        self.image_encoder = None
        self.register_buffer("context_1mc", self.source.tensors("context.safetensors")["cond"], persistent=False)

    @property
    @override
    def weights_names(self) -> tuple[str, ...]:
        return (self.added_source.name, *super().weights_names)

    @override
    def fingerprint(self) -> str:
        image = self.source.fingerprint(("unet", "vae"))
        digest = hashlib.sha256(image.encode())
        for name, tensor in sorted(self._added().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    @override
    def decode_images(self, latents_bchw: Tensor) -> Tensor:
        images: Tensor = self.vae.decode(latents_bchw).sample
        return images

    def _added(self) -> dict[str, Tensor]:
        added = self.added_source.tensors(ADDED_WEIGHTS)
        if not added:
            raise FileNotFoundError(
                f"backbone.weights = {self.added_source.name!r} has no {ADDED_WEIGHTS}; train it by "
                "experiments/embedded_backbone/train_video.py."
            )
        return added


def inflated(image_unet: Any) -> Any:
    """A video network that does to every frame what the image network does to it, whatever its other frames are.

    Layers over time start with an output of zero, and so does what the conditioning latent adds to the input. The time
    embedding is copied although a video network is told ``0.25 log(sigma)`` and not the timestep: training changes it.

    Args:
        image_unet: a :class:`diffusers.UNet2DConditionModel` in Stable Diffusion's layout.

    Returns:
        A :class:`diffusers.UNetSpatioTemporalConditionModel` in float32.

    Raises:
        ValueError: if the image network lacks a layer that the video network has.
    """
    from diffusers import UNetSpatioTemporalConditionModel

    config = image_unet.config
    unet = UNetSpatioTemporalConditionModel(
        sample_size=None,
        in_channels=2 * config.in_channels,
        out_channels=config.out_channels,
        down_block_types=[kind.replace("2D", "SpatioTemporal") for kind in config.down_block_types],
        up_block_types=[kind.replace("2D", "SpatioTemporal") for kind in config.up_block_types],
        block_out_channels=config.block_out_channels,
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=3 * _TIME_WIDTH,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        num_attention_heads=config.attention_head_dim,  # diffusers' name for the number of heads
    )
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = config.norm_num_groups  # diffusers' video network knows only 32
            module.eps = config.norm_eps if ".resnets." in name else module.eps
    image = image_unet.state_dict()
    state = {}
    for name, tensor in unet.state_dict().items():
        source = image.get(name.replace(".spatial_res_block", ""))
        if name == "conv_in.weight":
            state[name] = torch.cat([image[name], torch.zeros_like(image[name])], 1)
        elif source is not None:
            state[name] = source.view(tensor.shape)  # some image networks have 1x1 convolutions for linear layers
        elif _is_added(name):
            state[name] = torch.zeros_like(tensor) if _ends_a_branch(name) else tensor
        else:
            raise ValueError(f"the image network has no {name!r}, which a video network of its config needs.")
    unet.load_state_dict(state)
    return unet


def added_tensors(unet: Any) -> Mapping[str, Tensor]:
    """Tensors of a video network that are not the image network's: layers over time and the time embeddings."""
    return {name: tensor for name, tensor in unet.state_dict().items() if _is_added(name)}


def _is_added(name: str) -> bool:
    parts = ("temporal", "time_pos_embed", "time_mixer", "time_embedding", "add_embedding", "conv_in.")
    return any(part in name for part in parts)


def _ends_a_branch(name: str) -> bool:
    """Whether a layer over time is the last one before a sum."""
    ends = (".conv2.", ".to_out.0.", ".net.2.", "pos_embed.linear_2.", "add_embedding.linear_2.")
    return any(end in name for end in ends)
