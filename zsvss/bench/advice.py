"""What to do next about a mode's speed, by what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from zsvss.bench.profiling import Kernel
from zsvss.bench.rows import Row

# Of kernels whose names hold one of these the time is spent by the multiplications that the method needs.
_PRODUCTS = ("gemm", "conv", "cutlass", "xmma", "mma_", "flash", "fmha", "attention", "addmm", "mm")
_WAIT = 20e-6  # seconds that a wait costs, for the host to start the next kernels
_FEW_WAITS = 20
_GOOD_SHARE = 0.5  # of the matrix rate


def next_things(
    row: Row, waits: int | None, kernels: Sequence[Kernel], memory_gib: float | None, num_frames: int, num: int = 3
) -> list[str]:
    """The things to do first, by the seconds a clip that they may save.

    Args:
        row: of the mode.
        waits: of the host for the device in a clip; ``None`` if unknown.
        kernels: the longest of a clip.
        memory_gib: of the device; ``None`` if unknown.
        num_frames: of the clip.
        num: how many things.
    """
    clip = row.seconds_per_frame * num_frames
    things: list[tuple[float, str]] = []
    stage, seconds = max(row.seconds.items(), key=lambda item: item[1])
    things.append(
        (
            seconds * num_frames * max(0.0, 1 - row.share_of_matrix_rate / _GOOD_SHARE),
            f"{stage} takes {seconds / row.seconds_per_frame:.0%} of the time at {row.share_of_matrix_rate:.0%} of the "
            f"matrix rate; at {_GOOD_SHARE:.0%} the clip would take "
            f"{clip * min(1.0, row.share_of_matrix_rate / _GOOD_SHARE):.2f} s in place of {clip:.2f} s.",
        )
    )
    others = [kernel for kernel in kernels if not any(part in kernel.name.lower() for part in _PRODUCTS)]
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
        things.append(
            (waits * _WAIT, f"The host waits {waits} times a clip; find where by --page and the stalls' tests.")
        )
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
    return [text for _, text in things[:num]]
