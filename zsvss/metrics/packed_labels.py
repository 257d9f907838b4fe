"""Label maps kept in memory until they are needed, compressed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A compressed map of ids; label maps shrink to a few per cent."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, values_HW: Tensor) -> Packed:
        """Compress a map that lies on the CPU."""
        values = values_HW.numpy()
        if values.size and values.min() >= 0 and values.max() <= 255:
            values = values.astype(np.uint8)
        return cls(zlib.compress(values.tobytes(), level=1), values.dtype.str, values.shape)

    def unpack(self) -> Tensor:
        """The map again."""
        values = np.frombuffer(bytearray(zlib.decompress(self.data)), dtype=self.dtype)
        return torch.from_numpy(values.reshape(self.shape))
