"""Videos that a run has left in their midst: what it takes to go on with the next clip, with the same bits.

::

    <run folder>/records/predict/midway/<name>.pt
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zsvss.results.atomic_files import TEMPORARY, file_stem

_log = logging.getLogger(__name__)


class MidwayFolder:
    """The states of videos after the last clip that was written; each is there whole or not at all.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, video: str, state: Mapping[str, Any]) -> None:
        """Replace the state of a video.

        Args:
            video: its name.
            state: tensors, named tuples and plain values.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary(video)
        with temporary.open("wb") as file:
            torch.save(dict(state), file)
        temporary.replace(self._path(video))

    def read(self, video: str) -> dict[str, Any] | None:
        """The state of a video; None if there is none that can be read. Tensors are on the CPU.

        The file is a pickle: as good as the run folder that it lies in.
        """
        path = self._path(video)
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:  # damaged pickles raise whatever their bytes say
            _log.warning("%s is damaged (%s); %s begins anew", path, error, video)
            return None
        return state

    def forget(self, video: str) -> None:
        """Remove the state of a video."""
        self._path(video).unlink(missing_ok=True)
        self._temporary(video).unlink(missing_ok=True)  # not others': other processes may be writing them

    def _temporary(self, video: str) -> Path:
        return self._path(video).with_name(f"{TEMPORARY}{self._path(video).name}")

    def _path(self, video: str) -> Path:
        return self.folder / f"{file_stem(video)}.pt"
