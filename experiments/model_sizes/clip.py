"""Memory that a clip takes on a device beside the weights, by stage, counted without a device.

    python -m experiments.model_sizes.clip

The networks are built on the meta device, which holds no numbers, and run through the backbone's own methods; every
tensor that an operation makes is counted from then on until it is freed, as PyTorch's ``max_memory_allocated`` counts.
Attention is taken to keep no map, as its fused kernels do. Left out are what the allocator rounds up to and loses in
between, cuDNN's and cuBLAS's workspaces, and the context of CUDA: some 1 to 2 GiB.
"""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import diffusers
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.model_sizes.make import _KL, AUTOENCODERS, NETWORKS
from zsvss.backbones import base, partial_pass, recording, video_transformer
from zsvss.backbones.base import ClipNoise
from zsvss.backbones.cogvideox import CogVideoX
from zsvss.backbones.latent_diffusion import LatentDiffusion
from zsvss.backbones.stable_diffusion_3 import StableDiffusion3

SIZE = (480, 848)  # VSPW's 480p
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
V_PREDICTION = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
# Model -> backbone, autoencoder, its settings, scheduler, tokens and channels of the prompt, pooled channels, frames.
MODELS: dict[str, tuple[Any, str, dict[str, Any], dict[str, Any], tuple[int, int], int | None, int]] = {
    "Stable Diffusion 3.5 medium": (
        StableDiffusion3,
        "of Stable Diffusion 3, FLUX.1",
        {"scaling_factor": 1.5305, "shift_factor": 0.0609, "sample_size": 1024},
        FLOW,
        (333, 4096),
        2048,
        14,
    ),
    "CogVideoX-2B": (CogVideoX, "of CogVideoX", {}, V_PREDICTION, (226, 4096), None, 17),
}


class Setup(NamedTuple):
    """How a clip is run.

    Attributes:
        name: of the model.
        size: height and width of the frames.
        max_batch: the backbone's.
        tiling: whether the autoencoder works in tiles.
        on_host: whether what is recorded is kept in the host's memory.
    """

    name: str
    size: tuple[int, int] = SIZE
    max_batch: int = 8
    tiling: bool = False
    on_host: bool = False


SETUPS = (
    Setup("Stable Diffusion 3.5 medium"),
    Setup("Stable Diffusion 3.5 medium", on_host=True),
    Setup("Stable Diffusion 3.5 medium", max_batch=2, tiling=True, on_host=True),
    Setup("CogVideoX-2B"),
    Setup("CogVideoX-2B", max_batch=2),
    Setup("CogVideoX-2B", (384, 672), max_batch=2),
    Setup("CogVideoX-2B", max_batch=2, tiling=True),
)


class Counting(TorchDispatchMode):
    """Counts the bytes of tensors that operations make.

    Attributes:
        held: bytes now.
        peak: the most since it was last set.
        counts: whether what is made now counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self.counts = True
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes() if self.counts else 0  # views of it count no more
        if key not in self._known:
            self._known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


class FusedAttention(TorchFunctionMode):
    """Attention whose maps are never held."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            return torch.empty_like(given["query"])
        return func(*args, **(kwargs or {}))


def make(setup: Setup, folder: Path) -> LatentDiffusion:
    """A backbone in bfloat16 of real size, without numbers."""
    kind, autoencoder, own, scheduler, (num_text, width), pooled, _ = MODELS[setup.name]
    network_class, settings = NETWORKS[setup.name]
    vae_class, vae_settings = AUTOENCODERS[autoencoder]
    defaults = _KL if vae_class == "AutoencoderKL" else {}
    with torch.device("meta"):
        network = getattr(diffusers, network_class)(**settings).to(torch.bfloat16)
        vae = getattr(diffusers, vae_class)(**{**defaults, **vae_settings, **own}).to(torch.bfloat16)
    network.save_config(folder / "transformer")
    vae.save_config(folder / "vae")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    context = {"cond": torch.zeros(1, num_text, width)}
    if pooled is not None:
        context["pooled"] = torch.zeros(1, pooled)
    save_file(context, folder / "context.safetensors")
    backbone: LatentDiffusion = kind(str(folder), max_batch=setup.max_batch)
    backbone.transformer, backbone.vae = network, vae
    if setup.tiling:
        vae.enable_tiling()
    backbone.load_conditioner()
    backbone.set_schedule()
    return backbone.requires_grad_(requires_grad=False).eval().to("meta")


@contextmanager
def stage(counting: Counting, name: str, peaks: dict[str, int]) -> Iterator[None]:
    """Note the peak of a stage under its name."""
    counting.peak = counting.held
    yield
    peaks[name] = counting.peak


@torch.inference_mode()
def peaks_of(setup: Setup) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes beside the weights at the peak of each stage, and bytes of the weights by network."""
    peaks: dict[str, int] = {}
    counting = Counting()

    def uncounted(function: Any) -> Any:
        def run(*args: Any) -> Any:
            counting.counts = not setup.on_host
            result = function(*args)
            counting.counts = True
            return result

        return run

    on_the_host = {
        "to_host": uncounted(torch.empty_like),
        "joined": uncounted(lambda tensors: tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))),
    }
    with tempfile.TemporaryDirectory() as folder:
        backbone = make(setup, Path(folder))
        num_frames = MODELS[setup.name][-1]
        backbone.keeps_on_host = setup.on_host
        for module in (base, recording, partial_pass, video_transformer):
            for of_host, function in on_the_host.items():
                if hasattr(module, of_host):
                    patch.object(module, of_host, function).start()
        patch("torch.is_autocast_enabled", lambda *_: False).start()
        with FusedAttention(), counting:
            images = torch.empty(num_frames, 3, *setup.size, device="meta")
            height, width = (side // backbone.latent_stride for side in setup.size)
            shape = num_frames, backbone.latent_channels, height, width
            noise = ClipNoise(*(torch.empty(shape, device="meta") for _ in range(2)))
            with stage(counting, "encode", peaks):
                latents = backbone.encode(images, noise)
            keys = [base.FeatureKey(backbone.steps[-1], *backbone.places.find(backbone.places.clustered[0]))]
            with stage(counting, "record", peaks):
                noised = backbone.add_noise(latents, noise)
                recorded = backbone.record(noised, backbone.condition(images, noise), keys)
            num_pairs = num_frames if backbone.couples_frames else backbone.pairs.size
            frames_R = torch.empty(2 * num_pairs, dtype=torch.int64, device="meta")
            cells = torch.empty(2 * num_pairs, (height // 2) * (width // 2), device="meta")
            x_Rchw = noised[frames_R]
            with stage(counting, "denoise", peaks):
                for step in backbone.steps:
                    offset = cells if step == backbone.steps[0] else None
                    x_Rchw = backbone.denoise(x_Rchw, step, recorded, frames_R, offset)
            with stage(counting, "decode", peaks):
                backbone.decode(x_Rchw, num_frames)
        patch.stopall()
    return peaks, {part: _num_bytes(getattr(backbone, part)) for part in ("transformer", "vae")}


def _num_bytes(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))


def main() -> None:
    """Print the peaks of each setup, and the largest sum with the weights."""
    stages = "encode | record | denoise | decode | side by side | in turns"
    print(f"| model | size | `max_batch` | tiles | recording | {stages} |")
    print("|---|---|--:|---|---|--:|--:|--:|--:|--:|--:|")
    for setup in SETUPS:
        peaks, weights = peaks_of(setup)
        of_stage = {key: weights["vae" if key in ("encode", "decode") else "transformer"] for key in peaks}
        together = max(peaks.values()) + sum(weights.values())
        in_turns = max(peak + of_stage[key] for key, peak in peaks.items())
        size = "x".join(map(str, setup.size))
        settings = [setup.name, size, str(setup.max_batch), "yes" if setup.tiling else "no"]
        settings.append("host" if setup.on_host else "device")
        numbers = [f"{num_bytes / 2**30:.1f}" for num_bytes in (*peaks.values(), together, in_turns)]
        print(f"| {' | '.join(settings + numbers)} |", flush=True)


if __name__ == "__main__":
    main()
