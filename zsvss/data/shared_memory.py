"""Memory through which worker processes hand over clips: large arrays through a pipe cost more than decoding them."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsvss.data.images import ByteArray

_ALIGNMENT = 64


class Place(NamedTuple):
    """Where a uint8 array lies in a slot.

    Attributes:
        offset: Bytes from the slot's begin.
        shape: Of the array.
    """

    offset: int
    shape: tuple[int, ...]


class Slot:
    """Memory that one process writes and another reads, one after the other; it grows to the largest content.

    It is used again and again, since to map and clear fresh pages takes longer than to copy what is put into them.

    Args:
        folder: Where its file lies on systems without anonymous files.
    """

    def __init__(self, folder: str) -> None:
        self._file: int | None
        if hasattr(os, "memfd_create"):
            # Not in /dev/shm, of which containers have little.
            self._file = os.memfd_create("zsvss-clip")
            self._path = f"/proc/{os.getpid()}/fd/{self._file}"
        else:
            self._file, self._path = tempfile.mkstemp(prefix="clip-", dir=folder)
        self._memory: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, object]:
        # A worker that was not forked has no such file open, but can open it by its path.
        return {"_file": None, "_path": self._path, "_memory": None}

    def put(self, arrays: Sequence[Tensor]) -> list[Place]:
        """Copy uint8 CPU tensors into the slot, in place of what was there."""
        places, end = list[Place](), 0
        for array in arrays:
            places.append(Place(end, tuple(array.shape)))
            end += -(-array.numel() // _ALIGNMENT) * _ALIGNMENT
        with self._opened() as file:
            if os.fstat(file).st_size < end:
                os.ftruncate(file, end)
        for place, array in zip(places, arrays, strict=True):
            self._view(place)[...] = array.numpy()
        return places

    def take(self, places: Sequence[Place], *, pinned: bool = False) -> list[Tensor]:
        """Copies of what was put there; in pinned memory, which a GPU copies from without a wait, if asked."""
        copies = [torch.empty(place.shape, dtype=torch.uint8, pin_memory=pinned) for place in places]
        for place, copy in zip(places, copies, strict=True):
            copy.numpy()[...] = self._view(place)
        return copies

    def close(self) -> None:
        """Give the memory back once both processes have closed it."""
        self._memory = None  # unmapped with the last view
        if self._file is not None:
            os.close(self._file)
            if not self._path.startswith("/proc/"):
                Path(self._path).unlink()
            self._file = None

    @contextmanager
    def _opened(self) -> Iterator[int]:
        file = os.open(self._path, os.O_RDWR) if self._file is None else os.dup(self._file)
        try:
            yield file
        finally:
            os.close(file)

    def _view(self, place: Place) -> ByteArray:
        size = int(np.prod(place.shape))
        if self._memory is None or len(self._memory) < place.offset + size:
            with self._opened() as file:
                self._memory = mmap.mmap(file, 0)
        return np.frombuffer(self._memory, np.uint8, size, place.offset).reshape(place.shape)
