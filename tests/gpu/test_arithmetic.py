"""Numbers on a GPU: the CPU's within stated tolerances, in every precision, and the same bits in every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from golden import ABSENT, GoldenSet, golden_sets
from torch import Tensor

from zsvss.segmenter import VideoSegmenter
from zsvss.stages.kmeans import cumulative_sums, kmeans
from zsvss.stages.precision import full_precision
from zsvss.stages.trace import Trace

pytestmark = pytest.mark.gpu

SETS = golden_sets()
CLIPS = [(golden, clip) for golden in SETS for clip in golden.clips_with("latents")]

# Largest difference of latents of size 1 to 10. float32: sums in another order, as between two CPUs. float16 has 11
# significant bits and bfloat16 8; a few hundred roundings in a row lose about two more.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.4}


@pytest.mark.skipif(not SETS, reason=ABSENT)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("golden", "clip"), CLIPS, ids=str)
@torch.inference_mode()
def test_the_published_code_s_latents(
    golden: GoldenSet, clip: int, dtype: torch.dtype, device: torch.device, exact_products: None
) -> None:
    backbone = golden.backbone().to(device, dtype)
    stored, noise = golden.clip(clip, "latents"), golden.noise(clip)
    images_T3HW = VideoSegmenter(backbone).to_images(golden.clip_frames(clip))
    latents_Tchw = backbone.encode(images_T3HW, noise)
    conditioning = golden.conditioning(clip)
    moved = conditioning._replace(
        **{name: part.to(device) for name, part in conditioning._asdict().items() if part is not None}
    )
    recording = backbone.record(backbone.add_noise(latents_Tchw, noise), moved, [])
    found = {"latent": latents_Tchw} | {f"xt_{step}": recording.latents[step] for step in backbone.steps}
    for name, tensor in found.items():
        difference = float((tensor.cpu().float() - stored[name].float()).abs().max())
        assert difference < TOLERANCES[dtype], name


def traced(segmenter: VideoSegmenter, clips: list[Tensor]) -> list[Trace]:
    segmenter.reset()
    traces = []
    for index, clip in enumerate(clips):
        traces.append(Trace())
        segmenter(clip, generator=torch.Generator().manual_seed(index), trace=traces[-1])
    return traces


def test_two_runs_give_the_same_bits(
    make_segmenter: Callable[..., VideoSegmenter], device: torch.device, clips: list[Tensor]
) -> None:
    same_bits_twice(make_segmenter(), clips)


def test_two_runs_in_deterministic_mode_give_the_same_bits(
    make_segmenter: Callable[..., VideoSegmenter], device: torch.device, clips: list[Tensor], deterministic: None
) -> None:
    same_bits_twice(make_segmenter(), clips)


def same_bits_twice(segmenter: VideoSegmenter, clips: list[Tensor]) -> None:
    for first, second in zip(traced(segmenter, clips), traced(segmenter, clips), strict=True):
        for name in ("latents_Tcuv", "features_Tnc", "coarse_Tn", "refined_Tn", "labels_THW"):
            assert torch.equal(getattr(first, name), getattr(second, name)), name
        for one, other in zip(first.modulated_latents, second.modulated_latents, strict=True):
            assert torch.equal(one, other)


def test_labels_are_the_cpus(
    make_segmenter: Callable[..., VideoSegmenter], device: torch.device, clips: list[Tensor], exact_products: None
) -> None:
    segmenter = make_segmenter()
    found = traced(segmenter, clips)
    expected = traced(segmenter.to("cpu"), clips)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.features_Tnc is not None
        assert theirs.features_Tnc is not None
        torch.testing.assert_close(ours.features_Tnc.cpu(), theirs.features_Tnc, rtol=0, atol=1e-3)
        assert ours.labels_THW is not None
        assert theirs.labels_THW is not None
        same = (ours.labels_THW.cpu() == theirs.labels_THW).float().mean()
        assert float(same) > 0.99, "pixels where two labels' differences are equal within rounding may differ"


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deterministic mode, as Lightning sets it: cuBLAS is refused without the variable."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_clustering_obeys_deterministic_mode(device: torch.device, deterministic: None) -> None:
    points = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)).to(device)
    first, second = (kmeans(points, 8, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.labels_N, second.labels_N)
    assert first.inertia == second.inertia


def test_sums_in_a_fixed_order(device: torch.device) -> None:
    values = torch.rand(3, 5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cumulative_sums(values.to(device)).cpu(), values.cumsum(1), rtol=1e-13, atol=0)


def test_full_precision_is_that_of_a_cpu(gpu: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(1, 64, 64, 64, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    expected = torch.nn.functional.conv2d(image.double(), kernel.double())
    products: Any = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        with torch.autocast("cuda"), full_precision(gpu):
            found = torch.nn.functional.conv2d(image.to(gpu), kernel.to(gpu)).cpu().double()
            product = (image[0, 0].to(gpu) @ image[0, 1].to(gpu)).cpu().double()
    finally:
        products.fp32_precision = before
    assert float((found - expected).abs().max()) < 1e-3, "TF32 is off by 0.02"
    assert float((product - image[0, 0].double() @ image[0, 1].double()).abs().max()) < 1e-4
