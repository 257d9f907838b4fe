"""Compiled passes: the plain ones' latents, no break in a graph, and nothing compiled anew from clip to clip."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from toy_backbone import striped_video

from zsvss.backbones.compiled import CompiledPasses
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion
from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.trace import Trace


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def traced(backbone, num_labels):
    """A clip of one frame with so many labels."""
    frames, _ = striped_video(num_frames=1, height=64, width=64)
    segmenter = VideoSegmenter(backbone, KNNSceneContext(num_labels, num_restarts=1), None, MaskedModulation())
    trace = Trace()
    segmenter(frames, generator=torch.Generator().manual_seed(0), trace=trace)
    return trace


class Replays(CompileCounter):
    """Counts graphs, and runs them like CUDA graphs: their results lie in the same memory every time."""

    def __call__(self, graph, inputs, mode=None):
        compute, kept = super().__call__(graph, inputs), []

        def replay(*values):
            results = compute(*values)
            kept[:] = kept or [result.clone() for result in results]
            return [held.copy_(result) for held, result in zip(kept, results, strict=True)]

        return compute if mode is None else replay


class Doubling:
    """In place of a U-Net: a network without attention."""

    attn_processors = ()

    def set_attn_processor(self, processors):
        assert processors == {}

    def forward(self, sample, return_dict):
        return (2 * sample,)


def test_a_result_outlives_the_next_replay_of_its_graph(fresh_dynamo):
    passes = CompiledPasses(Doubling(), Replays(), "reduce-overhead")
    first, second = (passes.whole(sample=torch.full((2,), value)) for value in (1.0, 3.0))
    assert (first.tolist(), second.tolist()) == ([2, 2], [6, 6])


def test_from_the_ninth_shape_on_passes_run_as_they_are(fresh_dynamo, caplog):
    counter = Replays()
    passes = CompiledPasses(Doubling(), counter)
    for _ in range(2):
        for size in range(2, 11):
            assert passes.whole(sample=torch.full((size, 1), 1.5)).tolist() == [[3]] * size
    assert counter.frame_count == 8
    (said,) = (record.message for record in caplog.records if record.name == "zsvss.backbones.compiled")
    assert said == "passes of shape [10, 1] run without being compiled: PyTorch compiles for 8 shapes"


# Tracing a whole U-Net takes 10 s of a processor, and that of the video model more.
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "chosen"), [(StableDiffusion, "reduce-overhead"), (StableVideoDiffusion, True)])
def test_clips_of_different_labels_are_compiled_once_without_a_break(
    kind, chosen, settings_of, fresh_dynamo, monkeypatch
):
    """A graph of what lies after the modulated block, and one of a later step, which all later steps share."""
    counter = Replays()
    monkeypatch.setattr(kind, "compile_backend", counter)
    monkeypatch.setattr(kind, "_shared_maps", lambda *_: None)
    settings = {**settings_of[kind], "first_step": 22, "max_batch": 8}
    plain, compiled = (kind.from_pretrained(**settings, compile_unet=way) for way in (False, chosen))
    graphs = []
    for num_labels in (2, 4, 3):
        found, expected = traced(compiled, num_labels), traced(plain, num_labels)
        # Batches of another size round in another way.
        for ours, theirs in zip(found.modulated_latents, expected.modulated_latents, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        graphs.append(counter.frame_count)
    assert graphs == [2, 2, 2]
    assert sum(fresh_dynamo["graph_break"].values()) == 0
    assert all(type(p).__name__ == "EditedAttentionProcessor" for p in compiled.unet.attn_processors.values())
