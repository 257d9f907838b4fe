"""The stored networks that `newcomers` tells with what has come in.

Shape legend: E values of evidence for a region, e of a cell, S networks of H hidden units.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from zsvss.stages.region_trees import Floats

_OWN = Path(__file__).parent / "newcomers.npz"
_NAMES = ("cell_weights", "cell_bias", "mean", "scale", "hidden_weights", "hidden_bias", "weights", "bias")


def read_networks(path: str | None) -> dict[str, Floats]:
    """Networks of a file, float32; ``None`` takes those of the package.

    Returns:
        cell_weights [e] and cell_bias of a cell's score; mean and scale [E] of the evidence; hidden_weights [S, E, H],
        hidden_bias [S, H], weights [S, H] and bias [S] of the networks.

    Raises:
        ValueError: naming the file, if it cannot be read, holds NaN or infinity, or its networks read other evidence.
    """
    own = _stored(_OWN)
    if path is None:
        return own
    try:
        found = _stored(Path(path))
    except (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(
            f"novelty.weights = {path!r} cannot be read: {error}. It must be a .npz file with {', '.join(_NAMES)}, as "
            "`experiments/footage/train_newcomers.py` writes it."
        ) from error
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"novelty.weights = {path!r}: {name} holds values that are not finite. Train the networks anew with "
                "`experiments/footage/train_newcomers.py`."
            )
    for name in ("cell_weights", "mean"):
        if found[name].shape != own[name].shape:
            raise ValueError(
                f"novelty.weights = {path!r}: {name} has the shape {found[name].shape}, and {own[name].shape} is "
                "allowed. Train the networks anew with `experiments/footage/train_newcomers.py`."
            )
    return found


def _stored(path: Path) -> dict[str, Floats]:
    with np.load(path) as stored:
        return {name: stored[name] for name in _NAMES}
