import pytest
import torch
from toy_backbone import ToyBackbone, striped_video

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.context import KNNSceneContext
from zsvss.stages.finiteness import FiniteCheck, NotFiniteError
from zsvss.stages.modulation import MaskedModulation
from zsvss.stages.refinement import CorrespondenceRefinement


def spoiled(method, value=float("nan"), call=0):
    """A toy backbone one of whose methods gives a value that is not finite at one place, from a call on."""

    class Spoiled(ToyBackbone):
        calls = 0

    def give(self, *arguments, **options):
        result = getattr(ToyBackbone, method)(self, *arguments, **options)
        tensor = result.latents[24].clone() if method == "record" else result
        if method == "record":
            result.latents[24] = tensor
        if self.calls >= call:
            tensor.view(-1)[-3] = value
        self.calls += 1
        return result

    setattr(Spoiled, method, give)
    return Spoiled()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("encode", "latents after the encoder"),
        ("record", "latents after step 24 of the feature pass"),
        ("denoise", "latents after the last modulated step"),
        ("decode", "decoded images"),
    ],
)
def test_the_first_bad_stage_is_named(method, stage, value):
    segmenter = VideoSegmenter(
        spoiled(method, value), KNNSceneContext(4), CorrespondenceRefinement(), MaskedModulation()
    )
    frames, _ = striped_video()
    with pytest.raises(NotFiniteError, match=rf"^{stage} are not finite .*in float32; the weights \(Spoiled\)"):
        segmenter(frames)


def test_features_are_looked_at_before_anything_is_clustered():
    class Spoiled(ToyBackbone):
        def record(self, *arguments, **options):
            recording = super().record(*arguments, **options)
            for tensor in recording.tensors.values():
                tensor[-1, 2, 5, 0] = float("nan")
            return recording

    with pytest.raises(NotFiniteError, match="features are not finite"):
        VideoSegmenter(Spoiled(), KNNSceneContext(4))(striped_video()[0])


def test_one_question_for_all_tensors(monkeypatch):
    asked, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(len(self)) or tolist(self))
    check = FiniteCheck(ToyBackbone())
    for number in range(5):
        check.add(f"stage {number}", torch.ones(3, 2))
    check.add("nothing", None)
    check.add("empty", torch.ones(0, 3))
    check.ask()
    check.ask()
    assert asked == [5]
    check.add("good", torch.full((2,), 6e4, dtype=torch.float16))  # the range does not fit into float16
    check.add("bad", torch.tensor([1.0, float("inf")], dtype=torch.float16))
    check.add("worse", torch.tensor([float("nan")]))
    with pytest.raises(NotFiniteError, match=r"^bad are not finite"):
        check.ask()


@pytest.mark.parametrize(
    ("dtype", "remedy"), [(torch.float16, "bf16-mixed or 32-true"), (torch.bfloat16, "--trainer.precision 32-true")]
)
def test_precision_and_remedy(dtype, remedy):
    name = str(dtype).removeprefix("torch.")
    backbone = ToyBackbone()

    def told(check):
        check.add("features", torch.tensor([torch.inf]))
        with pytest.raises(NotFiniteError) as error:
            check.ask()
        assert error.value.precision in str(error.value)
        return error.value.precision, str(error.value)

    assert told(FiniteCheck(backbone))[0] == "float32"
    with torch.autocast("cpu", dtype):
        check = FiniteCheck(backbone)
    precision, said = told(check)  # computed under autocast, asked outside of it
    assert precision == name
    assert remedy in said
    assert told(FiniteCheck(backbone.to(dtype)))[0] == name
