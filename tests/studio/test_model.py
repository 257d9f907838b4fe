"""What the studio's model keeps of frames."""

from __future__ import annotations

import numpy as np
import torch

from zsvss.backbones.embedded import Embedded
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.features import ColorPositionFeatures
from zsvss.studio.model import Model


class OneColour:
    """Frames of a single grey level."""

    def __init__(self, level: int) -> None:
        self.level = level

    def read(self, _number: int) -> np.ndarray:
        return np.full((64, 64, 3), self.level, np.uint8)


def segmenter() -> VideoSegmenter:
    backbone = Embedded()
    backbone.load()
    return VideoSegmenter(backbone, features=ColorPositionFeatures(), input_size=(64, 64))


def test_frames_at_the_place_of_others_that_are_gone_are_looked_at_anew() -> None:
    model = Model(segmenter)
    dark = OneColour(0)
    place, seen = id(dark), model.see(dark, 0, 1).features_Tnc
    del dark
    others = []
    while not others or id(others[-1]) != place:
        assert len(others) < 10_000
        others.append(OneColour(255))
    light = others[-1]
    again = model.see(light, 0, 1).features_Tnc
    assert (again[..., :3] - seen[..., :3]).abs().min() > 0
    torch.testing.assert_close(model.see(light, 0, 1).features_Tnc, again, rtol=0, atol=0)
    model.close()
