"""Generated videos with exact class labels."""

from zsvss.data.scenes.scene import (
    CLASSES,
    PALETTE,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    Scene,
    scene_split,
)

__all__ = ["CLASSES", "PALETTE", "TEST_SEEDS", "TRAIN_SEEDS", "VALIDATION_SEEDS", "Scene", "scene_split"]
