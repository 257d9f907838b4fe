"""Vectors recorded from the published code, as tests read them.

``ZSVSS_GOLDEN`` names the folder (default ``../shared/golden`` beside the repository); each of its subfolders with
``weights/unet`` is one set, whose kind is told by the U-Net's config. Files named ``batchK_*`` belong to clip K; a set
may leave any of them out.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from zsvss.backbones.base import Backbone, ClipNoise, Conditioning

Arrays = dict[str, Tensor]

GOLDEN = Path(os.environ.get("ZSVSS_GOLDEN") or Path(__file__).parents[1] / "../shared/golden").resolve()
ABSENT = f"no golden vectors in {GOLDEN}; set ZSVSS_GOLDEN to their folder"

_VIDEO = "UNetSpatioTemporalConditionModel"


class GoldenSet:
    """One set: a video, small random weights, and every intermediate of the published code on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return self.folder.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Frames a clip (``num_frames``), K (``num_masks``), lambda (``lam``), ``use_gt``, ``seed``, ``uc``."""
        settings: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())["settings"]
        return settings

    @cached_property
    def is_video(self) -> bool:
        """Whether the weights are a video model's."""
        config = json.loads((self.folder / "weights/unet/config.json").read_text())
        return bool(config["_class_name"] == _VIDEO)

    @cached_property
    def frames_THW3(self) -> Tensor:
        """The whole video, uint8 RGB at its own size."""
        return self._read("frames.npz")["frames"]

    @cached_property
    def network_size(self) -> tuple[int, int]:
        """Height and width at which the network sees the frames."""
        blocks = json.loads((self.folder / "weights/vae/config.json").read_text())["block_out_channels"]
        multiple = 1 << (len(blocks) - 1 + 3)  # the autoencoder's stride, and three halvings in the U-Net
        height, width = (side // multiple * multiple for side in self.frames_THW3.shape[1:3])
        return height, width

    @cached_property
    def first_labels_HW(self) -> Tensor | None:
        """Ground truth of the first frame, where the set was made with it."""
        return self._read("frames.npz").get("gt_mask_frame0")

    @cached_property
    def clips(self) -> list[int]:
        """Numbers of the clips, in order."""
        names = [path.name for path in self.folder.glob("batch*_*.npz")]
        return sorted({int(name.removeprefix("batch").split("_")[0]) for name in names})

    def clips_with(self, kind: str) -> list[int]:
        """Clips that have a file ``batchK_<kind>.npz``."""
        return [clip for clip in self.clips if (self.folder / f"batch{clip}_{kind}.npz").is_file()]

    @property
    def is_whole(self) -> bool:
        """Whether the first clip is stored from its features to its segmentation."""
        return 0 in self.clips_with("seg") and 0 in self.clips_with("features_step24")

    def clip_frames(self, clip: int) -> Tensor:
        """Frames of a clip: consecutive ones, the last clip moved back so that it is full."""
        length = self.settings["num_frames"]
        start = max(0, min(clip * length, len(self.frames_THW3) - length))
        return self.frames_THW3[start : start + length]

    def clip(self, clip: int, kind: str) -> Arrays:
        """Arrays of ``batchK_<kind>.npz`` as tensors; empty if the set has none."""
        return self._read(f"batch{clip}_{kind}.npz")

    def arrays(self, name: str) -> Arrays:
        """Arrays of ``<name>.npz``, such as ``schedule`` or ``qk_crops``; empty if the set has none."""
        return self._read(f"{name}.npz")

    def noise(self, clip: int) -> ClipNoise:
        """The random numbers that the published code drew for a clip."""
        latents = self.clip(clip, "latents")
        return ClipNoise(latents["posterior_eps"], latents["add_noise_eps"], latents.get("cond_aug_eps"))

    def conditioning(self, clip: int) -> Conditioning:
        """What the published code conditioned a clip on."""
        if not self.is_video:
            context = self.arrays("context")
            return Conditioning(torch.cat([context["uc"], context["c"]]))
        cond = self.clip(clip, "cond")
        numbers = [[_embedded_number(part) for part in cond[f"{half}_vector"][0].split(256)] for half in ("uc", "c")]
        return Conditioning(
            torch.cat([cond["uc_crossattn"], cond["c_crossattn"]]),
            torch.tensor(numbers, dtype=torch.float32),
            torch.cat([cond["uc_concat"], cond["c_concat"]]),
        )

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="zsvss_golden_")

    @cached_property
    def weights(self) -> Path:
        """The weights with the set's context in place of a text or image encoder: a folder that a backbone can load."""
        folder = Path(self._scratch.name)
        for part in (self.folder / "weights").iterdir():
            (folder / part.name).symlink_to(part)
        context_Gmc = self.conditioning(self.clips[0]).context_Gmc
        save_file({"uncond": context_Gmc[:1].clone(), "cond": context_Gmc[1:].clone()}, folder / "context.safetensors")
        return folder

    def backbone(self, **settings: Any) -> Backbone:
        """The set's network, loaded."""
        if self.is_video:
            from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion

            return StableVideoDiffusion.from_pretrained(str(self.weights), **settings)
        from zsvss.backbones.stable_diffusion import StableDiffusion

        # The published code knows its network; a folder without a scheduler does not say.
        return StableDiffusion.from_pretrained(str(self.weights), **{"prediction_type": "epsilon", **settings})

    def _read(self, name: str) -> Arrays:
        path = self.folder / name
        if not path.is_file():
            return {}
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files if arrays[key].dtype.kind in "fiub"}


def golden_sets(*, video: bool | None = None) -> list[GoldenSet]:
    """Every set, or only those of video models or of image models; empty where the folder is absent."""
    folders = sorted(path.parent.parent.parent for path in GOLDEN.glob("*/weights/unet/config.json"))
    sets = [GoldenSet(folder) for folder in folders]
    return [golden for golden in sets if video is None or golden.is_video == video]


def label_name(arrays: Arrays, label_set: Tensor, index: int) -> str:
    """How names of the label of a number begin.

    Sets store them either under the labels themselves or under their numbers 0, 1, ...; which is told by all keys.
    """
    labels = label_set.tolist()
    numbers = {int(match[1]) for key in arrays if (match := re.match(r"L(\d+)(?:_|$)", key))}
    return f"L{labels[index] if numbers <= set(labels) else index}"


def by_label(arrays: Arrays, label_set: Tensor, index: int, suffix: str = "") -> Tensor | None:
    """Array of the label of a number, ``None`` if the set has none."""
    return arrays.get(label_name(arrays, label_set, index) + suffix)


def stored_segmentation(stored: Arrays, name: str) -> Tensor:
    """A stored segmentation as labels; some sets hold their numbers 0, 1, ..."""
    values = stored[name].long()
    return values if bool(torch.isin(values, stored["labels"]).all()) else stored["labels"][values]


def _embedded_number(embedding_c: Tensor) -> float:
    """The number after its sinusoidal embedding (cosines, then sines), from the slowest wave to the fastest."""
    cosines, sines = embedding_c.double().chunk(2)
    frequencies = 10000.0 ** -(torch.arange(len(cosines), dtype=torch.float64) / len(cosines))
    angles = torch.atan2(sines, cosines)
    number = angles[-1] / frequencies[-1]
    for frequency, angle in zip(frequencies.flip(0), angles.flip(0), strict=True):
        turns = ((frequency * number - angle) / (2 * torch.pi)).round()
        number = (angle + 2 * torch.pi * turns) / frequency
    return float(number)
