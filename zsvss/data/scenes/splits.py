"""Seeds of the generated videos for training, validation and test."""

from __future__ import annotations

from typing import Literal

TRAIN_SEEDS = range(0, 1_000_000)
VALIDATION_SEEDS = range(1_000_000, 1_010_000)
TEST_SEEDS = range(2_000_000, 2_010_000)


def scene_split(split: Literal["train", "val", "test"]) -> range:
    """Seeds of a split; splits never share a seed.

    Raises:
        ValueError: If `split` is not one of the three names.
    """
    splits = {"train": TRAIN_SEEDS, "val": VALIDATION_SEEDS, "test": TEST_SEEDS}
    if split not in splits:
        raise ValueError(f"split {split!r} is unknown: choose one of {', '.join(splits)}")
    return splits[split]
