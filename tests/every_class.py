"""Every class of the stages by its slot in the segmenter: what contract tests run over."""

import importlib
import inspect
import pkgutil

import pytest
from toy_backbone import ToyBackbone

import zsvss.stages
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.attention_merging import AttentionMerging
from zsvss.stages.context import KNNSceneContext, SceneContext
from zsvss.stages.features import AttentionFeatures, Features
from zsvss.stages.initialization import Initialization
from zsvss.stages.joint_features import JointFeatures, LabFeatures, PositionFeatures
from zsvss.stages.modulation import Modulation
from zsvss.stages.refinement import Refinement

for module in pkgutil.walk_packages(zsvss.stages.__path__, "zsvss.stages."):
    importlib.import_module(module.name)

# What a class needs beside its defaults, on a backbone without attention heads.
SETTINGS = {
    AttentionMerging: {"head_channels": 2},
    JointFeatures: {"parts": [AttentionFeatures(), LabFeatures(), PositionFeatures()], "weights": [1.0, 0.5, 0.2]},
}


def concrete_subclasses(kind, package="zsvss.stages."):
    """The classes of a package that can be made, below and including a base class."""
    found = [] if inspect.isabstract(kind) or not kind.__module__.startswith(package) else [kind]
    return found + [below for subclass in kind.__subclasses__() for below in concrete_subclasses(subclass, package)]


def made(kind):
    return kind(**SETTINGS.get(kind, {}))


SLOTS = [
    pytest.param(slot, kind, id=f"{slot}-{kind.__name__}")
    for slot, base in [
        ("context", SceneContext),
        ("initialization", Initialization),
        ("features", Features),
        ("refinement", Refinement),
        ("modulation", Modulation),
    ]
    for kind in concrete_subclasses(base)
]


def segmenter_with(slot, kind, num_clusters=4, **settings):
    """A segmenter on the toy backbone with one class in its slot."""
    stages = {"context": KNNSceneContext(num_clusters), slot: made(kind)}
    initialization = stages.pop("initialization", None)
    if initialization is not None:
        stages["context"] = KNNSceneContext(num_clusters, initialization=initialization)
    stages["context"].num_clusters = num_clusters
    return VideoSegmenter(ToyBackbone(), **stages, **settings)
