"""Zero-shot video semantic segmentation with frozen diffusion models.

>>> import torch
>>> from zsvss import CorrespondenceRefinement, Embedded, KNNSceneContext, MaskedModulation, VideoSegmenter
>>> backbone = Embedded()  # or StableDiffusion("folder or hub id")
>>> backbone.load()
>>> segmenter = VideoSegmenter(
...     backbone,
...     context=KNNSceneContext(num_clusters=2),
...     refinement=CorrespondenceRefinement(),
...     modulation=MaskedModulation(),
... )
>>> frames_THW3 = torch.zeros(2, 32, 64, 3, dtype=torch.uint8)
>>> segmenter(frames_THW3).labels_THW.shape
torch.Size([2, 32, 64])
>>> segmenter.reset()  # next video
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Idle threads of torch's pool sleep instead of spinning: with another process on the same cores (decoding, a second
# run), spinning makes small operations more than ten times slower. Works if torch is not imported yet.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from zsvss.backbones.cogvideox import CogVideoX
    from zsvss.backbones.embedded import Embedded
    from zsvss.backbones.flux import Flux
    from zsvss.backbones.pixart import PixArt
    from zsvss.backbones.stable_diffusion import StableDiffusion
    from zsvss.backbones.stable_diffusion_3 import StableDiffusion3
    from zsvss.backbones.stable_diffusion_xl import StableDiffusionXL
    from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
    from zsvss.backbones.wan import Wan
    from zsvss.segmenter import VideoSegmenter
    from zsvss.stages.context import KNNSceneContext
    from zsvss.stages.modulation import MaskedModulation, NearestUpsampling
    from zsvss.stages.per_frame import PerFrameClustering
    from zsvss.stages.refinement import CorrespondenceRefinement

__version__ = "0.1.0"
__all__ = [
    "CogVideoX",
    "CorrespondenceRefinement",
    "Embedded",
    "Flux",
    "KNNSceneContext",
    "MaskedModulation",
    "NearestUpsampling",
    "PerFrameClustering",
    "PixArt",
    "StableDiffusion",
    "StableDiffusion3",
    "StableDiffusionXL",
    "StableVideoDiffusion",
    "VideoSegmenter",
    "Wan",
]

_MODULES = {
    "CogVideoX": "backbones.cogvideox",
    "CorrespondenceRefinement": "stages.refinement",
    "Embedded": "backbones.embedded",
    "Flux": "backbones.flux",
    "KNNSceneContext": "stages.context",
    "MaskedModulation": "stages.modulation",
    "NearestUpsampling": "stages.modulation",
    "PerFrameClustering": "stages.per_frame",
    "PixArt": "backbones.pixart",
    "StableDiffusion": "backbones.stable_diffusion",
    "StableDiffusion3": "backbones.stable_diffusion_3",
    "StableDiffusionXL": "backbones.stable_diffusion_xl",
    "StableVideoDiffusion": "backbones.stable_video_diffusion",
    "VideoSegmenter": "segmenter",
    "Wan": "backbones.wan",
}


def __getattr__(name: str) -> Any:
    """Import a public class when it is first asked for: torch alone takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
