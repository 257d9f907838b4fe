"""Kernels of a modulated pass, plain and compiled: `python experiments/speed/kernels.py`.

Counted on a CPU, with the embedded backbone, whose U-Net has the layers of Stable Diffusion's: as many operations that
compute something as a step of `denoise` starts, without what is on for a CPU alone. What inductor merges is counted
where it would be called, and not built, which takes a C++ compiler minutes; for a GPU it may merge otherwise. With
`--backend eager` nothing is merged, and both columns are about the same.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._inductor.async_compile import AsyncCompile
from torch.profiler import ProfilerActivity, profile

from zsvss.backbones.embedded import Embedded
from zsvss.backbones.unet import UNetBackbone
from zsvss.bench.published import put_back_plain_layers

_LABELS = 2
# Operations that are one kernel, whatever they are made of on a CPU.
_WHOLE = {
    *(
        "addmm",
        "mm",
        "bmm",
        "convolution",
        "mkldnn_convolution",
        "native_group_norm",
        "native_layer_norm",
        "cat",
        "index",
    ),
    *("_scaled_dot_product_flash_attention_for_cpu", "upsample_nearest2d", "copy_"),
}
# Operations that compute nothing: they give another view of a tensor, or memory.
_FREE = {
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "as_strided",
        "as_strided_",
        "expand",
        "expand_as",
        "permute",
    ),
    *("transpose", "t", "select", "slice", "narrow", "unsqueeze", "squeeze", "unflatten", "flatten", "unbind", "split"),
    *("chunk", "alias", "detach", "detach_", "unfold", "resolve_conj", "dropout", "_nnpack_available", "result_type"),
    *("empty", "empty_like", "empty_strided", "new_empty", "resize_", "set_", "lift_fresh", "to"),
}


class _Merged:
    """In place of inductor's compiler: kernels that only count their calls.

    Attributes:
        calls: of all of them.
    """

    calls = 0

    @classmethod
    def kernel(cls, *_: Any, **__: Any) -> Callable[..., None]:
        """A kernel of some source."""

        def call(*_: Any) -> None:
            cls.calls += 1

        return call


def kernels_of(run: Callable[[], Any]) -> Counter[str]:
    """Operations of a run that compute something."""
    before = _Merged.calls
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    counts = Counter({"merged": _Merged.calls - before})
    for event in profiler.events():
        if event.cpu_parent is None:
            counts.update(_kernels_within(event))
    return counts


def _kernels_within(event: Any) -> list[str]:
    """Names of what computes something within an event of the profiler, or of itself."""
    name = event.name.removeprefix("aten::")
    if name in _WHOLE:
        return [name]
    within = [kernel for child in event.cpu_children for kernel in _kernels_within(child)]
    return within or [name] * (event.name.startswith(("aten::", "mkldnn")) and name not in _FREE)


@torch.inference_mode()
def passes(backbone: Embedded, size: int) -> dict[str, Callable[[], Tensor]]:
    """A resumed and a whole pass with injection, over two labels in both signs and both guidance halves."""
    noised = torch.randn(
        1, backbone.vae.config.latent_channels, size // 8, size // 8, generator=torch.Generator().manual_seed(0)
    )
    recording = backbone.record(noised, backbone.condition(noised, None), [])  # type: ignore[arg-type]  # noise is not read
    rows = noised.expand(2 * _LABELS, -1, -1, -1)
    frames = torch.zeros(len(rows), dtype=torch.int64)
    offset = torch.ones(len(rows), recording.grids[7][0] * recording.grids[7][1])
    first, later = backbone.steps[0], backbone.steps[-1]

    @torch.inference_mode()
    def run(step: int, offset: Tensor | None) -> Tensor:
        return backbone.denoise(rows, step, recording, frames, offset)

    return {"modulated step": lambda: run(first, offset), "later step": lambda: run(later, None)}


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="height and width of a frame")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--names", action="store_true", help="print how often each operation was started")
    options = parser.parse_args()
    torch.set_num_threads(1)
    AsyncCompile.cpp_pybinding = _Merged.kernel  # type: ignore[method-assign, assignment]  # counts
    UNetBackbone._shared_maps = lambda *_: None  # type: ignore[method-assign, assignment]  # plain
    found: dict[str, list[int]] = {}
    for is_compiled in (False, True):
        backbone = Embedded(first_step=23, max_batch=4 * _LABELS)
        backbone.load()
        put_back_plain_layers(backbone.unet)  # merged on a CPU alone
        backbone.compile_unet, backbone.compile_backend = is_compiled, options.backend
        for name, run in passes(backbone, options.size).items():
            run()
            counts = kernels_of(run)
            found.setdefault(name, []).append(counts.total())
            if options.names:
                print(name, "compiled" if is_compiled else "plain", counts.most_common())
    print("| pass | plain | compiled |\n|---|--:|--:|")
    for name, (plain, compiled) in found.items():
        print(f"| {name} | {plain} | {compiled} |")


if __name__ == "__main__":
    main()
