"""The pretend accelerator itself: that it lets through what CUDA lets through, and nothing else."""

import gc

import pytest
import torch
from pretend_device import DEVICE, NAME, running
from torch.nn import functional


def test_it_computes_what_the_cpu_computes_and_says_that_it_is_elsewhere():
    layer = torch.nn.Conv2d(3, 4, 3)
    image = torch.randn(1, 3, 9, 7)
    with running(), torch.inference_mode():
        result = layer.to(DEVICE)(image.to(DEVICE))
        assert result.device == DEVICE
        enlarged = functional.interpolate(result, (20, 11), mode="bilinear")
        back = enlarged.cpu()
    expected = functional.interpolate(layer.to("cpu")(image), (20, 11), mode="bilinear")
    assert torch.equal(back, expected)


@pytest.mark.parametrize("inference", [False, True])
def test_a_module_there_changes_type_and_layout(inference):
    layer = torch.nn.Conv2d(4, 4, 3).half().requires_grad_(False)
    with running(), torch.inference_mode(inference):
        layer.to(DEVICE).float().to(memory_format=torch.channels_last)
        for tensor in (layer.weight, layer.weight.raw):
            assert tensor.dtype == torch.float32
            assert tensor.stride() == (36, 1, 12, 4)


@pytest.mark.parametrize("inference", [False, True])
def test_views_and_changes_in_place_reach_their_tensor(inference):
    outside = torch.zeros(2, 3)
    with running():
        outside = outside.to(DEVICE)
        with torch.inference_mode(inference):
            outside.T[0] += 1
            outside.view(-1)[3:5].fill_(7)
        assert outside.tolist() == [[1, 0, 0], [7, 7, 0]]


def test_mixing_devices_is_refused_but_for_numbers_and_indices():
    with running():
        tensor = torch.arange(4.0, device=DEVICE)
        assert (tensor + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]
        assert tensor[torch.tensor([2])].tolist() == [2]
        with pytest.raises(RuntimeError, match=r"same device, found pretend:0 and cpu \[\(4,\)\]"):
            tensor + torch.ones(4)
        with pytest.raises(TypeError, match="numpy"):
            tensor.numpy()


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: here[there.long()],
        lambda there, here: there.index_put_((torch.tensor([0, 1]),), here[:2]),
        lambda there, here: there.__setitem__(there.long()[:2], here[:2]),
        lambda there, here: here.__setitem__(there.long()[:2], 1.0),
        lambda there, here: torch.stack([there[0], here[0]]),
        lambda there, here: torch.cat([there[:1], here[:1]]),
        lambda there, here: there @ here,
    ],
)
def test_what_cuda_refuses_to_mix_is_refused(mix):
    with running(), pytest.raises(RuntimeError, match="same device, found pretend:0 and cpu"):
        mix(torch.arange(4.0, device=DEVICE), torch.arange(4.0))


def test_a_number_of_the_cpu_may_be_put_there():
    with running():
        there = torch.zeros(4, device=DEVICE)
        there[torch.tensor([1, 2])] = torch.tensor(5.0)
        assert there.tolist() == [0, 5, 5, 0]


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((1, 2, 3), (1, 3, 2)), ((3,), (3,)), ((2, 3), (3,))])
def test_integers_are_not_multiplied_as_matrices(shapes):
    with running():
        first, second = (torch.ones(shape, dtype=torch.int64, device=DEVICE) for shape in shapes)
        assert (first.float() @ second.float()).unique().tolist() == [3]
        with pytest.raises(RuntimeError, match=r"not implemented for torch\.int64"):
            first @ second


@pytest.mark.parametrize(
    ("wait", "num"),
    [
        (lambda tensor: tensor + 1, 0),
        (lambda tensor: tensor[1:].sum(0, keepdim=True), 0),
        (lambda tensor: tensor[tensor.argmax(0, keepdim=True)], 0),
        (lambda tensor: float(tensor[0]), 1),
        (lambda tensor: bool((tensor > 0).all()), 1),
        (lambda tensor: tensor.tolist(), 1),
        (lambda tensor: tensor[tensor > 1], 1),
        (lambda tensor: tensor.nonzero(), 1),
        (lambda tensor: tensor.unique(), 1),
        (lambda tensor: tensor[tensor.argmax()], 1),
        (lambda tensor: tensor[[0, 2]], 1),
        (lambda tensor: tensor.cpu(), 1),
        (lambda tensor: torch.tensor([1.0], device=tensor.device), 1),
        (lambda tensor: torch.ones(3).to(tensor), 1),
        (lambda tensor: torch.linalg.solve(torch.eye(3, device=tensor.device), tensor), 1),
    ],
)
def test_what_makes_the_host_wait_is_counted(wait, num):
    with running() as device:
        tensor = torch.arange(3.0, device=DEVICE)
        before = device.num_stalls
        wait(tensor)
        assert device.num_stalls - before == num


def test_a_copy_that_nobody_waited_for_has_not_arrived():
    with running() as device:
        source, host = torch.ones(3, device=DEVICE), torch.zeros(3, pin_memory=True)
        assert host.is_pinned()
        host.copy_(source, non_blocking=True)
        assert device.num_stalls == 0
        assert host.tolist() == [0, 0, 0]
        torch.get_device_module(NAME).synchronize()
        assert host.tolist() == [1, 1, 1]
        unpinned = torch.zeros(3)
        unpinned.copy_(source, non_blocking=True)  # the driver waits
        assert unpinned.tolist() == [1, 1, 1]


def test_pinned_memory_must_stay_as_it_is_until_it_is_copied():
    with running():
        host = torch.ones(3).pin_memory()
        host.to(DEVICE, non_blocking=True)
        host.zero_()
        with pytest.raises(RuntimeError, match="changed before a copy"):
            torch.get_device_module(NAME).synchronize()


def test_deterministic_mode_refuses_what_cuda_refuses():
    torch.use_deterministic_algorithms(True)
    try:
        with running():
            numbers = torch.arange(3, device=DEVICE)
            assert numbers.cumsum(0).tolist() == [0, 1, 3]
            with pytest.raises(RuntimeError, match="cumsum_cuda does not have a deterministic implementation"):
                numbers.double().cumsum(0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_attention_over_a_grid_that_is_too_large_fails():
    with running(), torch.inference_mode():
        token = torch.zeros(65536, 1, 1, 1, device=DEVICE)
        assert functional.scaled_dot_product_attention(*(token[1:],) * 3).shape == (65535, 1, 1, 1)
        with pytest.raises(RuntimeError, match="invalid configuration argument"):
            functional.scaled_dot_product_attention(token, token, token)


def test_memory_runs_out_at_a_chosen_allocation():
    with running() as device:
        device.fail_at = {1}
        first = torch.zeros(4, device=DEVICE)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            first + 1
        assert (first + 1).tolist() == [1, 1, 1, 1]


def test_memory_runs_out_beyond_a_capacity_and_is_given_back():
    with running() as device:
        device.capacity = 100
        kept = torch.zeros(20, device=DEVICE)
        view = kept[5:]
        with pytest.raises(torch.OutOfMemoryError):
            kept + 1
        assert device.held == 80
        del kept
        gc.collect()
        assert device.held == 80, "a view holds its memory"
        del view
        gc.collect()
        assert device.held == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_casts_products_down_and_norms_up(dtype):
    layer = torch.nn.Linear(4, 4)
    with running(), torch.inference_mode():
        layer.to(DEVICE)
        values = torch.ones(2, 4, device=DEVICE)
        with torch.autocast(NAME, dtype):
            product = layer(values)
            assert product.dtype == dtype
            assert (values @ values.T).dtype == dtype
            assert functional.layer_norm(product, (4,)).dtype == torch.float32
            with torch.autocast(NAME, enabled=False):
                assert layer(values).dtype == torch.float32
        assert layer(values).dtype == torch.float32
