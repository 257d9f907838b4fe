"""Loss curves of a training run as CSV and PNG: `python experiments/embedded_backbone/curve.py`.

Reads the logs in the work folder of `train.py`, averages every 50 steps, and writes `loss.csv` and `loss.png` beside
this file.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW = 50
CURVES = (("encoder", "squared_error"), ("decoder", "squared_error"), ("unet", "velocity"), ("unet", "telling"))


def read_curve(work: Path, stage: str, column: str) -> dict[int, float]:
    """Mean of `column` in every window of steps, over all interrupted and resumed parts of a run."""
    values: dict[int, list[float]] = defaultdict(list)
    for path in sorted((work / f"{stage}_log").glob("*/metrics.csv")):
        with path.open() as file:
            for row in csv.DictReader(file):
                if row.get(column):
                    values[int(row["step"]) // WINDOW * WINDOW].append(float(row[column]))
    return {step: float(np.mean(values[step])) for step in sorted(values)}


def draw(curve: dict[int, float], title: str, size: tuple[int, int] = (480, 300)) -> NDArray[np.uint8]:
    """Plot one curve with the ends of its axes labelled."""
    width, height = size
    canvas = np.full((height, width, 3), 255, np.uint8)
    steps, values = np.array(list(curve)), np.array(list(curve.values()))
    low, high = 0.0, float(values.max())
    x = 55 + (steps - steps[0]) / max(steps[-1] - steps[0], 1) * (width - 75)
    y = height - 40 - (values - low) / (high - low) * (height - 80)
    cv2.polylines(canvas, [np.stack([x, y], 1).astype(np.int32)], False, (180, 90, 20), 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (55, 40), (width - 20, height - 40), (120, 120, 120), 1)
    for text, place in (
        (title, (55, 26)),
        (f"{high:.2f}", (8, 50)),
        (f"{low:.2f}", (8, height - 40)),
        (f"last {values[-1]:.3f}", (width - 130, 58)),
        (f"step {steps[-1]}", (width - 120, height - 16)),
    ):
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return canvas


def main() -> None:
    """Write both files."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "zsvss_embedded")
    parser.add_argument("--output", type=Path, default=here)
    args = parser.parse_args()
    curves = {(stage, column): read_curve(args.work, stage, column) for stage, column in CURVES}
    with (args.output / "loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "quantity", "step", "mean"])
        for (stage, column), curve in curves.items():
            writer.writerows([stage, column, step, f"{value:.5f}"] for step, value in curve.items())
    plots = [draw(curve, f"{stage}: {column}") for (stage, column), curve in curves.items() if curve]
    cv2.imwrite(str(args.output / "loss.png"), np.hstack(plots))


if __name__ == "__main__":
    main()
