"""What the modes are compared on, what was measured of each, and both as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

# Stages as the table has them -> what stopwatches call their parts.
STAGES = {
    "encode": ("encode",),
    "record": ("record",),
    "context": ("context", "kmeans", "knn"),
    "refinement": ("refinement",),
    "modulation": ("modulation",),
}


@dataclass(frozen=True)
class Case:
    """What the modes are compared on.

    Attributes:
        network: ``embedded`` or ``sd21``.
        size: height and width of the frames.
        num_frames: of the one clip.
        num_labels: clusters, and so labels.
        present: share of the labels that a frame may show.
        repeats: timed runs of each mode.
        published_repeats: those of the published schedule; 0 leaves it out.
    """

    network: str
    size: tuple[int, int]
    num_frames: int
    num_labels: int
    present: float
    repeats: int
    published_repeats: int


@dataclass
class Row:
    """What was measured of a mode; seconds are medians over the repeats, by frame and by stage."""

    mode: str
    seconds: dict[str, float] = field(default_factory=dict)
    all_seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)  # by frame, what a busy machine does not stretch
    tflop_per_frame: float = 0.0
    share_of_matrix_rate: float = 0.0  # on a CPU of processor time
    peak_mib: float = 0.0  # above what is held before: the weights of all modes
    agreement: float = 1.0
    labels_per_frame: float = 0.0

    @property
    def seconds_per_frame(self) -> float:
        """Median over the repeats, of all stages together."""
        return statistics.median(self.all_seconds)


def table(case: Case, rows: Sequence[Row]) -> Table:
    """The rows as a table."""
    title = (
        f"{case.network} at {case.size[0]}x{case.size[1]}, {case.num_frames} frames, L = {case.num_labels}, "
        f"{rows[0].labels_per_frame:.1f} labels a frame"
    )
    result = Table(title=title, title_justify="left", box=box.MARKDOWN)
    result.add_column("mode")
    for name in (
        "s/frame",
        "CPU s/frame",
        *STAGES,
        "frames/s",
        f"times {rows[0].mode}",
        "TFLOP/frame",
        "of matrix rate",
        "MiB",
        "agreement",
    ):
        result.add_column(name, justify="right")
    for row in rows:
        result.add_row(
            row.mode,
            f"{row.seconds_per_frame:.3f}",
            f"{statistics.median(row.processor_seconds):.3f}",
            *(f"{row.seconds[stage]:.3f}" for stage in STAGES),
            f"{1 / row.seconds_per_frame:.2f}",
            f"{rows[0].seconds_per_frame / row.seconds_per_frame:.2f}",
            f"{row.tflop_per_frame:.3f}",
            f"{row.share_of_matrix_rate:.0%}",
            f"{row.peak_mib:.0f}",
            f"{row.agreement:.2%}",
        )
    return result
