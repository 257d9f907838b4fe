"""Generated videos with exact class labels."""

from zsvss.data.scenes.scene import CLASSES, MOST_LATE, PALETTE, Scene
from zsvss.data.scenes.splits import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, scene_split

__all__ = ["CLASSES", "MOST_LATE", "PALETTE", "TEST_SEEDS", "TRAIN_SEEDS", "VALIDATION_SEEDS", "Scene", "scene_split"]
