"""A pretend accelerator: its tensors hold CPU data, say that they live on ``pretend:0``, and behave as a GPU's would.

Importing this module registers the device in PyTorch (its ``PrivateUse1``, of which a process has one). Within
`running`:

- an operation that mixes pretend and CPU tensors fails, but for copies, CPU indices into a pretend tensor and CPU
  tensors without dimensions (of which joining takes none);
- a matrix product of integers fails;
- what would make the host wait is counted in `Pretend.stalls`;
- a copy from the device that nobody waits for arrives at the next wait, and one to it must find its source unchanged;
- an operation without a deterministic kernel on CUDA fails in deterministic mode;
- if asked, convolutions and group norm lay their results out as a GPU's do (group norm up to PyTorch 2.13), which moves
  the last bits;
- attention of more than 65,535 samples fails, as its kernels do at launch;
- autocast casts what CUDA's autocast casts;
- memory runs out at a chosen allocation or beyond a chosen number of bytes.

Otherwise it computes nothing anew: every operation runs on the CPU data, so that results are the CPU's to the last bit.
"""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
_STALLS = {  # their result's size or value is asked of the device
    *("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal"),
    *("bincount", "repeat_interleave.Tensor", "_linalg_check_errors", "linalg_solve", "linalg_cholesky", "linalg_inv"),
}
_INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_", "_index_put_impl"}
_JOINING = {"cat", "stack"}
_PRODUCTS = {"mm", "bmm", "addmm", "addmv", "baddbmm", "mv", "dot", "matmul", "linear"}
_NOT_DETERMINISTIC = {"cumsum", "cumsum_", "histc", "put_", "kthvalue", "median.dim", "_ctc_loss", "nll_loss2d_forward"}
# Composite operations that ask the device for nothing, run as they are; attention would choose another kernel else.
_WHOLE = {"linear", "conv2d", "conv3d", "layer_norm", "group_norm", "matmul", "scaled_dot_product_attention"}
_MOST_IN_ATTENTION = 65535  # samples: the second and third dimensions of a CUDA grid
_OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate {} bytes on pretend:0."


class _Module(_DummyBackendModule):
    """``torch.pretend``."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device: Any = None) -> None:
        PRETEND.wait("synchronize")

    def device(self, device: Any) -> Any:
        return contextmanager(lambda: iter([None]))()

    def set_device(self, device: Any) -> None: ...

    def empty_cache(self) -> None: ...

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_device_name(self, device: Any = None) -> str:
        return "Pretend"


class Pretend:
    """What is known of the device.

    Attributes:
        stalls: how often the host waited, by cause.
        allocations: tensors that took memory.
        fail_at: numbers of allocations, from 0, at which memory runs out; each number comes once.
        capacity: bytes that fit, or ``None``.
        lays_out: whether layouts are a GPU's.
        held: bytes that are held.
        num_pinned: tensors that were put into pinned memory.
        num_shortages: how often memory ran out.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything but the tensors that are held."""
        self.stalls: Counter[str] = Counter()
        self.allocations = 0
        self.fail_at: set[int] = set()
        self.capacity: int | None = None
        self.lays_out = False
        self.held = 0
        self.num_pinned = self.num_shortages = 0
        self.pinned: dict[int, int] = {}  # begin and end of each block
        self._epoch = getattr(self, "_epoch", 0) + 1
        self._arriving: list[tuple[Tensor, Tensor]] = []
        self._departing: list[tuple[Tensor, Tensor]] = []

    @property
    def num_stalls(self) -> int:
        """All of them."""
        return self.stalls.total()

    def wait(self, cause: str) -> None:
        """Let the host wait for the device."""
        self.stalls[cause] += 1
        arriving, self._arriving = self._arriving, []
        for target, value in arriving:
            target.copy_(value)
        departing, self._departing = self._departing, []
        for source, value in departing:
            if not torch.equal(source, value):
                raise RuntimeError("pinned memory was changed before a copy from it to pretend:0 was done.")

    def allocate(self, raw: Tensor) -> None:
        """Take memory for a tensor, until it is freed."""
        size = raw.untyped_storage().nbytes()
        number, self.allocations = self.allocations, self.allocations + 1
        if number in self.fail_at or (self.capacity is not None and self.held + size > self.capacity):
            self.num_shortages += 1
            raise torch.OutOfMemoryError(_OUT_OF_MEMORY.format(size))
        self.held += size
        weakref.finalize(raw.untyped_storage(), self._free, size, self._epoch)

    def _free(self, size: int, epoch: int) -> None:
        if epoch == self._epoch:
            self.held -= size

    # Copies

    def is_pinned(self, raw: Tensor) -> bool:
        """Whether a CPU tensor lies in pinned memory."""
        return raw.untyped_storage().data_ptr() in self.pinned

    def pin(self, raw: Tensor) -> Tensor:
        """Say that a CPU tensor lies in pinned memory."""
        begin, self.num_pinned = raw.untyped_storage().data_ptr(), self.num_pinned + 1
        self.pinned[begin] = begin
        weakref.finalize(raw.untyped_storage(), self.pinned.pop, begin, None)
        return raw

    def leaves(self, source: Tensor, *, waits: bool) -> None:
        """A copy to the device from a CPU tensor."""
        if waits or not self.is_pinned(source):
            self.wait("copy to the device")
        else:
            self._departing.append((source, source.clone()))

    def arrives(self, target: Tensor, value: Tensor, *, waits: bool) -> None:
        """A copy from the device into a CPU tensor, which is not there before the next wait unless this one waits."""
        if waits:
            self.wait("copy to the CPU")
            target.copy_(value)
        elif self.is_pinned(target):
            self._arriving.append((target, value.clone()))
        else:
            self.wait("copy to the CPU")  # the driver stages what is not pinned
            target.copy_(value)


PRETEND = Pretend()
_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)


class PretendTensor(torch.Tensor):
    """A wrapper around a CPU tensor that calls itself a tensor of the pretend device."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> PretendTensor:
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        wrapped.raw = raw
        return wrapped

    def __init__(self, raw: Tensor) -> None: ...

    @property
    def data(self) -> Tensor:
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]  # a descriptor in C

    @data.setter
    def data(self, value: PretendTensor) -> None:  # by which a module changes the type of its weights
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]  # a descriptor in C
        self.raw = value.raw

    def tolist(self) -> Any:
        PRETEND.wait("tolist")
        return self.raw.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a pretend tensor to numpy; use .cpu() first")

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.raw})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to keep Dynamo away takes longer than many an operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def running() -> Iterator[Pretend]:
    """Make the device behave as described above; it begins empty."""
    PRETEND.reset()
    with _Mode():
        yield PRETEND
    PRETEND.wait("end")


@functools.cache
def _is_composite(func: Any) -> bool:
    """Whether an operation is made of others that are to be looked at one by one."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return composite and _name_and_overload(func)[0] not in _WHOLE


@functools.cache
def _name_and_overload(func: Any) -> tuple[str, str]:
    """An operation's name without and with its overload: ``add``, ``add.Tensor``."""
    return func._schema.name.removeprefix("aten::"), str(func).removeprefix("aten.").removesuffix(".default")


_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format}


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Arguments or results with a function applied to their tensors."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_mapped(item, function) for item in value])
    if isinstance(value, dict):
        return {key: _mapped(item, function) for key, item in value.items()}
    return value


def _raw(tensor: Tensor) -> Tensor:
    return tensor.raw if isinstance(tensor, PretendTensor) else tensor


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if _is_composite(func):
        with _Mode():  # not `decompose`, which prefers decompositions in Python whose last digits are others
            return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
    name, overload = _name_and_overload(func)
    tensors: list[Tensor] = []
    _mapped((args, kwargs), tensors.append)
    on_device = any(isinstance(tensor, PretendTensor) for tensor in tensors)
    if name == "_to_copy":
        return _to_copy(args[0], kwargs)
    if name == "copy_":
        return _copy(*args, **kwargs)
    if name == "_pin_memory":
        return PRETEND.pin(args[0].clone())
    if name == "is_pinned":
        return not on_device and PRETEND.is_pinned(args[0])
    to_device = (device := kwargs.get("device")) is not None and torch.device(device).type == NAME
    if on_device:
        _check(name, overload, tensors, args)
    raw_args, raw_kwargs = _mapped(args, _raw), _mapped(kwargs, _raw)
    if on_device and PRETEND.lays_out:
        raw_args = _laid_out(name, raw_args)
    is_pinned = raw_kwargs.pop("pin_memory", False)
    if to_device:
        raw_kwargs["device"] = torch.device("cpu")
    result = func(*raw_args, **raw_kwargs)
    if is_pinned:
        PRETEND.pin(result)
    if not (on_device or to_device) or (device is not None and not to_device):
        return result
    return _wrapped(func, result, tensors)


def _wrapped(func: Any, result: Any, tensors: list[Tensor]) -> Any:
    """Results as tensors of the device: what an operation returned of its arguments stays the argument itself."""
    of_raw = {id(tensor.raw): tensor for tensor in tensors if isinstance(tensor, PretendTensor)}
    begins = {tensor.raw.untyped_storage().data_ptr() for tensor in of_raw.values()}

    def wrap(raw: Tensor) -> Tensor:
        if id(raw) in of_raw:
            return of_raw[id(raw)]
        if raw.untyped_storage().data_ptr() not in begins:
            PRETEND.allocate(raw)
        return PretendTensor(raw)

    # A view of a tensor from outside of inference mode is none of inference mode's either.
    views_outer = func.is_view and tensors and not tensors[0].is_inference()
    if not views_outer:
        return _mapped(result, wrap)
    with torch.inference_mode(mode=False):
        return _mapped(result, wrap)


def _laid_out(name: str, args: Any) -> Any:
    """Arguments in the layout that a GPU's kernels bring them into, which is that of their results."""
    if name == "group_norm":
        return (args[0].contiguous(), *args[1:])
    if name != "conv2d":
        return args
    images, weight, *others = args
    is_last = any(
        tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
        for tensor in (images, weight)
    )
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    return images.contiguous(memory_format=memory_format), weight.contiguous(memory_format=memory_format), *others


def _check(name: str, overload: str, tensors: list[Tensor], args: Any) -> None:
    """Refuse what CUDA refuses, and count what it waits for."""
    if name in _INDEXING:  # indices may lie on the CPU, what they point into may not, nor what is put there
        tensors = [tensor for tensor in (args[0], *args[2:3]) if isinstance(tensor, Tensor)]
        is_mixed = not isinstance(args[0], PretendTensor)
    else:
        is_mixed = name in _JOINING and not all(isinstance(tensor, PretendTensor) for tensor in tensors)
    on_cpu = [tuple(t.shape) for t in tensors if not isinstance(t, PretendTensor) and (t.ndim or is_mixed)]
    if on_cpu:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found pretend:0 and cpu {on_cpu}")
    if name in _PRODUCTS and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        raise RuntimeError(f'"{name}_cuda" not implemented for {tensors[0].dtype}')
    if name in _STALLS or overload in _STALLS:
        PRETEND.wait(name)
    if name in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        for index in indices:
            if index.dtype in (torch.bool, torch.uint8):
                PRETEND.wait("nonzero")
            if not isinstance(index, PretendTensor):
                PRETEND.wait("copy to the device")
    if name == "scaled_dot_product_attention" and len(args[0]) > _MOST_IN_ATTENTION:
        raise RuntimeError("CUDA error: invalid configuration argument")
    differs = (name in _NOT_DETERMINISTIC or overload in _NOT_DETERMINISTIC) and tensors[0].is_floating_point()
    if differs and torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"{name}_cuda does not have a deterministic implementation")


def _to_copy(source: Tensor, kwargs: dict[str, Any]) -> Tensor:
    device = torch.device(kwargs.get("device") or source.device)
    waits = not kwargs.get("non_blocking", False)
    raw = source.raw if isinstance(source, PretendTensor) else source
    options = {key: kwargs[key] for key in ("dtype", "memory_format") if kwargs.get(key) is not None}
    copied = torch.ops.aten._to_copy.default(raw, device=torch.device("cpu"), **options)
    if device.type != NAME:
        if isinstance(source, PretendTensor):  # what it returns is not pinned: the host waits in any case
            PRETEND.arrives(copied, copied.clone(), waits=waits)
        return copied
    if not isinstance(source, PretendTensor):
        PRETEND.leaves(source, waits=waits)
    PRETEND.allocate(copied)
    return PretendTensor(copied)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    raw = source.raw if isinstance(source, PretendTensor) else source
    if isinstance(target, PretendTensor):
        if not isinstance(source, PretendTensor) and source.ndim:
            PRETEND.leaves(source, waits=not non_blocking)
        target.raw.copy_(raw)
    elif isinstance(source, PretendTensor):
        PRETEND.arrives(target, raw.to(target.dtype).expand_as(target), waits=not non_blocking)
    else:
        target.copy_(raw)
    return target


# Kernels for what does not come through `running`'s mode


def _empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> Tensor:
    return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))


def _empty(
    size: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> Tensor:
    return PretendTensor(torch.empty(size, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    return _copy(target, source, non_blocking)


_library = torch.library.Library("aten", "IMPL")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")


# Autocast, by CUDA's lists as far as this package's operations are on them

_fallback = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_fallback.fallback(torch.library.fallthrough_kernel)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
_LOWER = (
    "linear",
    "matmul",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "conv2d",
    "conv3d",
    "conv_transpose2d.input",
    "_convolution",
)
_LOWER_TOO = ("einsum", "scaled_dot_product_attention")
_FLOAT32 = ("layer_norm", "group_norm", "softmax.int", "exp", "rsqrt", "sum", "sum.dim_IntList", "cdist", "cumsum")
_FLOAT32_TOO = ("pow.Tensor_Scalar", "log", "prod", "norm.ScalarOpt_dim")


def _cast(operation: Any, dtype_of: Callable[[], torch.dtype]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        def cast(tensor: Tensor) -> Tensor:
            is_eligible = tensor.is_floating_point() and tensor.dtype != torch.float64 and tensor.device.type == NAME
            return tensor.to(dtype_of()) if is_eligible else tensor

        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return operation(*_mapped(args, cast), **_mapped(kwargs, cast))

    return kernel


for _names, _dtype_of in (
    (_LOWER + _LOWER_TOO, lambda: torch.get_autocast_dtype(NAME)),
    (_FLOAT32 + _FLOAT32_TOO, lambda: torch.float32),
):
    for _name in _names:
        _packet, _, _overload = _name.partition(".")
        _operation = getattr(getattr(torch.ops.aten, _packet), _overload or "default")
        _library.impl(_name, _cast(_operation, _dtype_of), "AutocastPrivateUse1")
