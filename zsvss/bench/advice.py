"""What to do next about a mode's speed, by what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from zsvss.bench.mode_table import Row
from zsvss.bench.profiling import Kernel

# Of kernels whose names hold one of these the time is spent by the multiplications that the method needs.
_PRODUCTS = ("gemm", "conv", "cutlass", "xmma", "mma_", "flash", "fmha", "attention", "addmm", "mm")
# Inductor's merged kernels name what they surround (triton_poi_fused_convolution); its products are triton_tem_...
_MERGED = ("triton_poi", "triton_red", "triton_per", "triton_for")
_WAIT = 20e-6  # seconds that a wait costs, for the host to start the next kernels
_FEW_WAITS = 20
_GOOD_SHARE = 0.5  # of the matrix rate


def next_things(
    row: Row, waits: int | None, kernels: Sequence[Kernel], memory_gib: float | None, num_frames: int, num: int = 3
) -> list[str]:
    """The things to do first, by the seconds a clip that they may save; after them, where the time goes.

    Args:
        row: of the mode; its stages fill the list up, so that a row of all stages gives ``num`` things.
        waits: of the host for the device in a clip; ``None`` if unknown.
        kernels: the longest of a clip.
        memory_gib: of the device; ``None`` if unknown.
        num_frames: of the clip.
        num: how many things.
    """
    clip = row.seconds_per_frame * num_frames
    things: list[tuple[float, str]] = []
    stages = sorted(row.seconds.items(), key=lambda item: -item[1])
    share_of_good = min(1.0, row.share_of_matrix_rate / _GOOD_SHARE)
    things.append(
        (
            clip * (1 - share_of_good),
            f"{stages[0][0]} takes {stages[0][1] / row.seconds_per_frame:.0%} of the time; the whole clip reaches "
            f"{row.share_of_matrix_rate:.0%} of the matrix rate and would take {clip * share_of_good:.2f} s in place "
            f"of {clip:.2f} s at {_GOOD_SHARE:.0%}.",
        )
    )
    others = [kernel for kernel in kernels if not _multiplies(kernel)]
    if others:
        spent = sum(kernel.seconds for kernel in others)
        share = sum(kernel.share for kernel in others)
        things.append(
            (
                spent / 2,
                f"{share:.0%} of the kernels' time is in {len(others)} of the longest that multiply no matrices, first "
                f"`{others[0].name[:60]}`: try backbone.compile_unet and backbone.compile_decoder, which merge them.",
            )
        )
    if waits is not None and waits > _FEW_WAITS:
        where = "run a clip under torch.cuda.set_sync_debug_mode('error'), which ends at the first"
        things.append((waits * _WAIT, f"The host waits {waits} times a clip; to find where, {where}."))
    if memory_gib is not None and row.peak_mib / 1024 < memory_gib / 4:
        things.append(
            (
                0.05 * clip,
                f"The peak of {row.peak_mib / 1024:.1f} GiB leaves most of {memory_gib:.0f} GiB free: try twice the "
                "backbone.max_batch.",
            )
        )
    if kernels:
        top = kernels[0]
        things.append((0.01 * top.seconds, f"The longest kernel, `{top.name[:60]}`, is {top.share:.0%} of them all."))
    things.sort(key=lambda thing: -thing[0])
    texts = [text for _, text in things]
    texts += [
        f"{stage} is {place} with {seconds / row.seconds_per_frame:.0%} of the time: look at what it runs."
        for place, (stage, seconds) in zip(("second", "third"), stages[1:], strict=False)
    ]
    return texts[:num]


def _multiplies(kernel: Kernel) -> bool:
    """Whether a kernel multiplies matrices, by its name."""
    name = kernel.name.lower()
    return not name.startswith(_MERGED) and any(part in name for part in _PRODUCTS)
