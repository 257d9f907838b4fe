"""A GPU's memory: running out of it, pinned copies, and the waits that PyTorch itself counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from zsvss.backbones.base import FeatureKey
from zsvss.backbones.host_memory import picked, to_host
from zsvss.backbones.samples import Samples
from zsvss.bench.profiling import longest_kernels, num_waits
from zsvss.data.shared_memory import Slot
from zsvss.segmenter import VideoSegmenter

pytestmark = pytest.mark.gpu

MakeSegmenter = Callable[..., VideoSegmenter]


@pytest.fixture
def little_memory(gpu: torch.device) -> Iterator[Callable[[int], None]]:
    """Leave so many bytes of the GPU's memory beside what is held."""

    def leave(num_bytes: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(gpu) + num_bytes) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("share", [0.75, 0.5])
def test_a_real_shortage_is_halved_and_finished(
    make_segmenter: MakeSegmenter,
    clips: list[Tensor],
    little_memory: Callable[[int], None],
    share: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Frames of 512x512 make the peak large beside what PyTorch's allocator rounds its blocks to (2 and 20 MiB)."""
    clip = clips[0].repeat_interleave(4, 1).repeat_interleave(4, 2)
    segmenter = make_segmenter(max_batch=64)
    expected = segmenter(clip).labels_THW.cpu()
    segmenter.reset()
    held = torch.cuda.memory_allocated()  # with cuBLAS's own memory, which stays after its first call
    torch.cuda.reset_peak_memory_stats()
    segmenter(clip)
    peak = torch.cuda.max_memory_allocated() - held
    assert peak > 100 * 2**20
    segmenter.reset()
    little_memory(int(share * peak))
    found = segmenter(clip).labels_THW.cpu()
    assert "out of memory" in caplog.text
    assert float((found == expected).float().mean()) > 0.99, "batches of another size round in another way"


def test_a_recording_is_kept_by_the_host(
    make_segmenter: MakeSegmenter, device: torch.device, clips: list[Tensor]
) -> None:
    expected = make_segmenter()(clips[0]).labels_THW
    segmenter = make_segmenter()
    segmenter.backbone.keeps_on_host = True
    assert torch.equal(segmenter(clips[0]).labels_THW, expected)


def test_what_the_host_keeps_comes_back(device: torch.device) -> None:
    tensor_GT = torch.randn(2, 5, 3, 4, device=device)
    kept = to_host(tensor_GT)
    assert kept.device.type == "cpu"
    assert kept.is_pinned() == (device.type == "cuda")
    half_b, frame_b = torch.tensor([0, 1, 1], device=device), torch.tensor([4, 0, 4], device=device)
    assert torch.equal(picked(kept, Samples(frame_b, half_b, frame_b)), tensor_GT[half_b, frame_b])


def test_clips_are_pinned_and_copied_without_a_wait(gpu: torch.device, tmp_path: Path) -> None:
    slot = Slot(str(tmp_path))
    content = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)
    (taken,) = slot.take(slot.put([content]), pinned=True)
    slot.close()
    assert taken.is_pinned()
    assert num_waits(lambda: taken.to(gpu, non_blocking=True), "cuda") == 0
    assert num_waits(lambda: content.to(gpu), "cuda") == 1
    assert torch.equal(taken.to(gpu).cpu(), content)


def test_waits_do_not_grow_with_frames(make_segmenter: MakeSegmenter, gpu: torch.device, clips: list[Tensor]) -> None:
    """As on the pretend accelerator; the library asks a little more often than this package."""
    segmenter = make_segmenter()
    segmenter(clips[0])
    few = num_waits(lambda: segmenter(clips[1][:2]), "cuda")
    many = num_waits(lambda: segmenter(torch.cat(clips)), "cuda")
    assert few is not None
    assert many is not None
    assert many <= few
    assert few <= 30


def test_kernels_are_told(gpu: torch.device) -> None:
    matrix = torch.randn(1024, 1024, device=gpu)
    kernels = longest_kernels(lambda: matrix @ matrix, "cuda")
    assert kernels[0].seconds > 0
    assert kernels[0].share > 0.5


def test_attention_over_time_fits_a_grid(gpu: torch.device) -> None:
    """The most batches that the network is given."""
    from zsvss.backbones.stable_video_diffusion import MOST_ATTENTION_BATCHES

    token = torch.zeros(MOST_ATTENTION_BATCHES, 1, 4, 8, device=gpu, dtype=torch.float16)
    assert torch.nn.functional.scaled_dot_product_attention(token, token, token).shape == token.shape


def test_keys_are_recorded_where_they_are_wanted(
    make_segmenter: MakeSegmenter, device: torch.device, clips: list[Tensor]
) -> None:
    segmenter = make_segmenter()
    backbone = segmenter.backbone
    with torch.inference_mode():
        images_T3HW = segmenter.to_images(clips[0])
        noise = backbone.sample_noise(3, 128, 128, torch.Generator().manual_seed(0))
        noised_Tchw = backbone.add_noise(backbone.encode(images_T3HW, noise), noise)
        key = FeatureKey(24, 7)
        recording = backbone.record(noised_Tchw, backbone.condition(images_T3HW, noise), [key])
    assert recording.tensors[key].device.type == device.type


def test_networks_in_turns_take_the_memory_of_one(
    make_segmenter: MakeSegmenter, clips: list[Tensor], gpu: torch.device
) -> None:
    expected = make_segmenter()(clips[0]).labels_THW.cpu()
    before = torch.cuda.memory_allocated(gpu)
    segmenter = make_segmenter(offload=True)
    at_rest = torch.cuda.memory_allocated(gpu) - before
    backbone: Any = segmenter.backbone
    sizes = [sum(weight.nbytes for weight in network.parameters()) for network in (backbone.network, backbone.vae)]
    assert at_rest < min(sizes)
    assert torch.equal(segmenter(clips[0]).labels_THW.cpu(), expected)
    assert {weight.device.type for weight in backbone.network.parameters()} == {"cpu"}
    assert {weight.device.type for weight in backbone.vae.parameters()} == {"cuda"}
