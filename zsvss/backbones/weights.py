"""Loads the weights of diffusers models: safetensors only, never remote code."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from zsvss.backbones.tensor_files import check_tensor_names, file_hash, refuse_adapters, tensor_shapes
from zsvss.backbones.weight_files import NotFetchedError, Place, locate
from zsvss.backbones.weight_names import all_names, is_encoder, path_of, weight_names

Variant = str | dict[str, str | None] | None

_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.json")
_CONFIG_OF_PART = {
    "scheduler": "scheduler_config.json",
    "feature_extractor": "preprocessor_config.json",
    "tokenizer": "tokenizer_config.json",
}
_CONTEXT = "context.safetensors"
# Weights before they were averaged in training: a variant that no part but the U-Net has.
_NOT_AVERAGED = "non_ema"

_log = logging.getLogger(__name__)


class WeightsSource:
    """The parts of a model, each a folder of its own, in a local folder or a repository of the hub.

    Args:
        name: local folder of the diffusers layout, or hub id ``owner/name``.
        variant: variant of the weights' files, such as ``fp16`` or ``non_ema``: of each part that has it; or part ->
            variant, such as ``{unet: fp16}``, where parts that are not named take the file without one.
        revision: branch, tag or commit of a hub repository.
        reads: parts that the model's user reads, to be named where they must be fetched; none is the index alone.
    """

    def __init__(
        self, name: str, variant: Variant = None, revision: str | None = None, reads: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.variant = variant
        self.revision = revision
        self.reads = tuple(reads)
        self._chosen: dict[str, tuple[str, str | None]] = {}

    @functools.cached_property
    def place(self) -> Place:
        """Where the files lie.

        Raises:
            FileNotFoundError: if the name is neither a folder nor of the form ``owner/name``.
            ValueError: if a folder has a revision.
        """
        return locate(self.name, self.revision, self.files, self.files_without_variant)

    # Configs

    def config(self, part: str, filename: str | None = None, *, required: bool = True) -> dict[str, Any]:
        """Read the JSON config of a part of the model; ``{}`` if the model has none and none is required.

        Args:
            part: such as ``unet``; ``.`` is the model itself.
            filename: ``None`` takes the name that a part's config has.
            required: whether its absence is an error; not to know whether it is there always is one.

        Raises:
            FileNotFoundError: if it is required and absent, or cannot be fetched.
            ValueError: if it is not JSON.
        """
        kind = "tokenizer" if _is_tokenizer(part) else part
        name = path_of(part, filename or _CONFIG_OF_PART.get(kind, "config.json"))
        path = self.place.find(name)
        if path is None and not required:
            return {}
        if path is None:
            raise self.place.absent(name)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a JSON file ({error}). Fetch the weights again.") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path} holds a {type(config).__name__} and not the settings of a {part}.")
        return config

    def pipeline(self) -> dict[str, Any]:
        """What ``model_index.json`` says of the whole model; ``{}`` if it is not there or not on this machine."""
        try:
            return self.config(".", "model_index.json", required=False)
        except NotFetchedError:
            return {}

    # Looking

    def check(self, *parts: str) -> None:
        """Look for the weights of these parts, or a tokenizer's files, without reading or fetching weights.

        Raises:
            FileNotFoundError: if they are absent, or only there in a format that can run code when it is loaded.
            ValueError: if a file on this machine is damaged or holds an adapter; if no part has the variant.
        """
        networks = [part for part in parts if not _is_tokenizer(part)]
        strangers = sorted(set(self.variant) - set(self.reads)) if isinstance(self.variant, Mapping) else []
        if strangers:
            raise ValueError(f"backbone.variant: {strangers[0]!r} is none of the parts {', '.join(self.reads)}.")
        for part in networks:
            for name in self._weight_names(part):
                path = self.place.local(name)
                if path is not None:
                    refuse_adapters(tensor_shapes(path), str(path))
                elif not self.place.has(name):
                    raise self.place.absent(name)
        for part in filter(_is_tokenizer, parts):
            self._tokenizer_files(part)
        chosen = {part: self._choose(part)[1] for part in networks}
        if isinstance(self.variant, str) and chosen and not any(chosen.values()):
            raise FileNotFoundError(
                f"backbone.variant = {self.variant!r}: none of {', '.join(chosen)} of {self.name} has such a file. "
                "Leave the variant out, or name one that the files have."
            )

    # Loading

    def load(self, model_class: Any, part: str) -> Any:
        """Load one network in float32.

        Raises:
            FileNotFoundError: if its files are missing.
            ValueError: if they are damaged or those of another network.
        """
        folder = self._weight_files(part)[0].parent
        self.config(part)
        if isinstance(self.variant, str) and self._choose(part)[1] is None:
            _log.info("%s/%s has no %s file: its file without a variant is used.", self.name, part, self.variant)
        is_of_diffusers = model_class.__module__.startswith("diffusers")
        in_float32 = model_class._keep_in_fp32_modules if is_of_diffusers else None
        if in_float32:
            # All of them are read in float32; to keep some, diffusers would want accelerate.
            model_class = type(model_class.__name__, (model_class,), {"_keep_in_fp32_modules": None})
        options = {"low_cpu_mem_usage": False} if is_of_diffusers else {}
        try:
            model, info = model_class.from_pretrained(
                folder,
                variant=self._choose(part)[1],
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.name}/{part} cannot be read as {model_class.__name__}: {error}") from error
        check_tensor_names(f"{self.name}/{part}", info["missing_keys"], info["unexpected_keys"])
        if in_float32:
            model._keep_in_fp32_modules = in_float32  # as by diffusers, for who converts the model
        return model.float()

    def empty_prompt(self, part: str = "tokenizer") -> Tensor:
        """Token ids of the empty prompt [1, m], int64, by a CLIP tokenizer.

        Raises:
            FileNotFoundError: if the tokenizer is incomplete.
            ValueError: if its files are damaged.
        """
        from transformers import CLIPTokenizer

        folder = self._tokenizer_files(part)[0].parent
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            ids: Tensor = tokenizer(
                "", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
            ).input_ids
        except Exception as error:  # of tokenizers, which has no class of its own
            raise ValueError(f"{folder} cannot be read as a CLIPTokenizer: {error}") from error
        return ids

    def tensors(self, filename: str) -> dict[str, Tensor]:
        """Tensors of a safetensors file beside the parts, float32; ``{}`` if the model has none.

        Of a repository that cannot be asked, a file that is not on this machine counts as not there.
        """
        from safetensors.torch import load_file

        path = self._find_known(filename)
        if path is None:
            return {}
        tensor_shapes(path)
        return {key: tensor.float() for key, tensor in load_file(path).items()}

    def fingerprint(self, parts: Iterable[str]) -> str:
        """Hash of everything that is loaded from these parts: configs, weights and context, but not their place."""
        # Of the empty prompt, a tokenizer tells only the length.
        parts = [part for part in parts if not _is_tokenizer(part)]
        paths = [(part, path) for part in parts for path in self._weight_files(part)]
        configs = [(part, self.place.find(f"{part}/config.json")) for part in parts]
        configs.append(("scheduler", self.place.find("scheduler/scheduler_config.json")))
        configs.append((".", self._find_known(_CONTEXT)))
        paths += [(part, path) for part, path in configs if path is not None]
        lines = [f"{part}/{path.name} {file_hash(path)}\n" for part, path in paths]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    # Files

    def files(self) -> list[str]:
        """Paths of everything that is read, as far as this machine knows them; ``?`` stands for any character."""
        if not self.reads:
            return ["model_index.json"]
        names = ["model_index.json", _CONTEXT] if {"unet", "transformer"} & set(self.reads) else []
        for part in self.reads:
            if _is_tokenizer(part):
                names += [path_of(part, name) for name in _TOKENIZER_FILES]
                continue
            names.append(path_of(part, _CONFIG_OF_PART.get(part, "config.json")))
            if part not in _CONFIG_OF_PART:
                names += self._weights_to_fetch(part)
        return names

    def files_without_variant(self) -> list[str]:
        """Paths of the weights of parts that may turn out to have no file of the variant."""
        networks = [part for part in self.reads if not _is_tokenizer(part) and part not in _CONFIG_OF_PART]
        unsure = [part for part in networks if None not in self._likely_variants(part)]
        return [] if isinstance(self.variant, Mapping) else [name for part in unsure for name in all_names(part, None)]

    def _weights_to_fetch(self, part: str) -> list[str]:
        """Paths of a part's weights, in one file or in several."""
        names: list[str] = []
        for variant in self._likely_variants(part):
            single, index = weight_names(part, variant)
            if self.place.local(index):
                return [*names, index, *self._shards(part, index)]
            if self.place.local(single):
                return [*names, single]
            names += all_names(part, variant)
        return names

    def _likely_variants(self, part: str) -> tuple[str | None, ...]:
        """Variants that a part may be expected to have, where the repository cannot be asked."""
        variants = self._variants(part)
        if self.variant == _NOT_AVERAGED and part != "unet":
            return variants[-1:]
        # A config that was fetched without the weights that the command named beside it: there may be none.
        return variants if self.place.local(path_of(part, "config.json")) else variants[:1]

    def _variants(self, part: str) -> tuple[str | None, ...]:
        """Variants of a part's files that will do, the best one first."""
        if isinstance(self.variant, Mapping):
            return (self.variant.get(part),)
        return (self.variant,) if self.variant is None else (self.variant, None)

    def _choose(self, part: str) -> tuple[str, str | None]:
        """Path of a part's single file or index, and its variant."""
        if part not in self._chosen:
            self._chosen[part] = self._search(part)
        return self._chosen[part]

    def _search(self, part: str) -> tuple[str, str | None]:
        unknown: NotFetchedError | None = None
        for variant in self._variants(part):
            single, index = weight_names(part, variant)
            # Where both lie in a folder, diffusers takes the several files and transformers the one.
            for name in (single, index) if is_encoder(part) else (index, single):
                if self.place.local(name) is not None:
                    return name, variant
            try:
                for name in (single, index):
                    if self.place.has(name):
                        return name, variant
            except NotFetchedError as error:
                unknown = unknown or error
        raise unknown or self.place.absent(weight_names(part, self._variants(part)[0])[0])

    def _weight_names(self, part: str) -> list[str]:
        name, _ = self._choose(part)
        return self._shards(part, name) if name.endswith(".json") else [name]

    def _shards(self, part: str, index: str) -> list[str]:
        """Paths of the files that an index names."""
        found = self.config(part, index.removeprefix(f"{part}/")).get("weight_map", {})
        if not found:
            raise ValueError(f"{self.name}/{index} names no file of weights. Fetch the weights again.")
        return [path_of(part, name) for name in sorted(set(found.values()))]

    def _weight_files(self, part: str) -> list[Path]:
        """Weights of a part on this machine, fetched if need be, each whole as far as its header tells."""
        paths = [self._required(name) for name in self._weight_names(part)]
        for path in paths:
            tensor_shapes(path)
        return paths

    def _tokenizer_files(self, part: str) -> list[Path]:
        """Files of the tokenizer on this machine.

        Without its vocabulary, transformers makes up another one; without the map of special tokens, it pads the
        empty prompt by other tokens than Stable Diffusion 2 was trained with: both in silence.
        """
        first, *rest = (path_of(part, name) for name in _TOKENIZER_FILES)
        config, whole = self._required(first), self._find_known(rest[-1])
        if whole is None:
            return [config, *(self._required(name) for name in rest[:-1])]
        others = (self._find_known(name) for name in rest[:-1])
        return [config, whole, *(path for path in others if path is not None)]

    def _find_known(self, name: str) -> Path | None:
        """A file that need not be there; ``None`` also where it cannot be known whether it is."""
        try:
            return self.place.find(name)
        except NotFetchedError:
            return None

    def _required(self, name: str) -> Path:
        path = self.place.find(name)
        if path is None:
            raise self.place.absent(name)
        return path


def _is_tokenizer(part: str) -> bool:
    return part.startswith("tokenizer")
