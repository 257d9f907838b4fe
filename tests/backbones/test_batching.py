"""Batches that shrink when memory runs out: what is computed, in which order, and what is kept."""

import weakref

import pytest
import torch
from lightning.pytorch.utilities.memory import is_oom_error

from zsvss.backbones.batching import BatchLimit, in_batches, is_out_of_memory, once

OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear for a non-contiguous input."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
]
OTHER = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("CUDA out of memory"), RuntimeError()]


class Device:
    """Computes squares, but of so many numbers at once only; notes what was tried."""

    def __init__(self, fits, error=OUT_OF_MEMORY[0]):
        self.fits, self.error, self.tried = fits, error, []

    def __call__(self, part):
        self.tried.append((part.start, part.stop))
        if part.stop - part.start > self.fits:
            raise self.error
        return [number**2 for number in range(part.start, part.stop)]


def flat(results):
    return [value for result in results for value in result]


def squares(num_items):
    return [number**2 for number in range(num_items)]


def test_without_a_shortage_batches_are_of_the_limit():
    device, limit = Device(fits=100), BatchLimit(4)
    assert flat(in_batches(device, 10, limit)) == squares(10)
    assert device.tried == [(0, 4), (4, 8), (8, 10)]
    assert limit.size == 4
    assert list(in_batches(device, 0, limit)) == []


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_shortage_halves_the_batch_for_good_and_keeps_what_is_finished(error):
    device, limit = Device(fits=100, error=error), BatchLimit(8)
    results = in_batches(device, 20, limit)
    first = next(results)
    device.fits = 3
    assert flat([first, *results]) == squares(20)
    assert device.tried == [(0, 8), (8, 16), (8, 12), *((start, start + 2) for start in range(8, 20, 2))]
    assert limit.size == 2
    device.tried.clear()
    list(in_batches(device, 4, limit))
    assert device.tried == [(0, 2), (2, 4)]


def test_halving_starts_from_what_the_batch_held():
    device = Device(fits=2)
    assert flat(in_batches(device, 5, BatchLimit(1000))) == squares(5)
    assert device.tried == [(0, 5), (0, 2), (2, 4), (4, 5)]


def test_what_belongs_together_is_never_divided():
    device = Device(fits=6)
    assert flat(in_batches(device, 12, BatchLimit(20), whole=3)) == squares(12)
    assert device.tried == [(0, 12), (0, 6), (6, 12)]
    device = Device(fits=2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(in_batches(device, 6, BatchLimit(1), whole=3))
    assert device.tried == [(0, 3)]


def test_a_bound_beside_memory_leaves_the_limit_as_it_is():
    device, limit = Device(fits=100), BatchLimit(8)
    list(in_batches(device, 12, limit, whole=2, at_most=5))
    assert device.tried == [(0, 4), (4, 8), (8, 12)]
    assert limit.size == 8


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_are_not_tried_again(error):
    device, limit = Device(fits=1, error=error), BatchLimit(8)
    with pytest.raises(type(error)):
        list(in_batches(device, 8, limit))
    assert device.tried == [(0, 8)]
    assert limit.size == 8


@pytest.mark.parametrize("relief", [None, lambda: False])
def test_the_smallest_batch_raises_what_pytorch_raised_and_says_so(relief, caplog):
    device = Device(fits=0, error=torch.cuda.OutOfMemoryError("Tried to allocate 2.00 GiB."))
    said = "2.00 GiB. Out of memory with 1 images, which is the smallest batch."
    with pytest.raises(torch.cuda.OutOfMemoryError, match=said):
        list(in_batches(device, 4, BatchLimit(4, "images"), relief=relief))
    assert "out of memory with a batch of 4 images; retrying with batches of 2" in caplog.text


def test_a_shortage_that_is_mended_is_logged_as_no_error(caplog):
    device = Device(fits=0, error=RuntimeError("CUDA error: out of memory"))

    def compute():
        return flat(in_batches(device, 2, BatchLimit(1)))

    def free_memory():
        device.fits = 1
        return True

    assert once(compute, "clip's conditioning", free_memory) == [0, 1]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "out of memory for the clip's conditioning; trying again")
    ]


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, *OTHER], ids=repr)
def test_the_rule_is_lightnings(error):
    """Stages and backbones know no Lightning, so it is written out again."""
    if error.args:  # Lightning's fails on an error without a message
        assert is_out_of_memory(error) == is_oom_error(error)
    assert is_out_of_memory(error) == (error in OUT_OF_MEMORY)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_libraries_say_it_in_their_own_ways(message):
    assert is_out_of_memory(RuntimeError(message))


def test_a_result_is_let_go_before_the_next_batch_is_computed():
    alive = []

    def compute(part):
        alive.append([result() for result in given])
        result = torch.zeros(1)
        given.append(weakref.ref(result))
        return result

    given = []
    for result in in_batches(compute, 3, BatchLimit(1)):
        del result
    assert alive == [[], [None], [None, None]]
