"""Checkpoints of Stable Diffusion 1.x and 2.x in one safetensors file, with the names of the original code.

Such a file holds tensors alone. The settings of the networks ship with the package (``original/``), diffusers' own
converter renames the tensors, and the tokenizer is not needed: what it makes of the empty prompt is known.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from zsvss.backbones.tensor_files import check_tensor_names, file_hash, metadata, refuse_adapters, tensor_shapes
from zsvss.backbones.weights import Variant, WeightsSource

_SETTINGS = Path(__file__).parent / "original"
_UNET = "model.diffusion_model."
_PREFIXES = {"unet": _UNET, "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
_OPEN_CLIP = "cond_stage_model.model."
_CONTEXT_WEIGHT = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_KIND_OF_WIDTH = {768: "stable_diffusion_1", 1024: "stable_diffusion_2"}
_WANTED = (
    "A single file must be a whole checkpoint of Stable Diffusion 1.x or 2.x in the original layout; of other models "
    "give the diffusers folder or hub id."
)


def open_weights(
    name: str, variant: Variant = None, revision: str | None = None, reads: Sequence[str] = ()
) -> WeightsSource:
    """Weights by their name: a safetensors file, a diffusers folder or a hub id; see :class:`WeightsSource`."""
    path = Path(name).expanduser()
    is_single = path.suffix == ".safetensors" and path.is_file()
    return (SingleFile if is_single else WeightsSource)(name, variant, revision, reads)


class SingleFile(WeightsSource):
    """A checkpoint in one file, as if it were a diffusers folder.

    Args:
        name: path of the file.
        variant: ``non_ema`` takes the U-Net's weights themselves where the file also holds their average.
        revision: must be ``None``.
        reads: parts that are read.
    """

    @functools.cached_property
    def _path(self) -> Path:
        return Path(self.name).expanduser()

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return tensor_shapes(self._path)

    @functools.cached_property
    def _settings(self) -> dict[str, dict[str, Any]]:
        """Part -> its settings, those that the file tells among them."""
        width = self._shapes.get(_CONTEXT_WEIGHT, (0,))[-1]
        if width not in _KIND_OF_WIDTH or any("time_stack" in name for name in self._shapes):
            raise ValueError(f"{self.name} is {self._other_kind()}. {_WANTED}")
        text = (_SETTINGS / f"{_KIND_OF_WIDTH[width]}.json").read_text(encoding="utf-8")
        settings: dict[str, dict[str, Any]] = json.loads(text)
        first = f"{_UNET}input_blocks.0.0.weight"
        if first not in self._shapes:
            raise ValueError(f"{self.name} has no tensor {first}: the file is cut short. Fetch it again.")
        settings["unet"]["in_channels"] = self._shapes[first][1]
        settings["unet"]["num_class_embeds"] = self._shapes.get(f"{_UNET}label_emb.weight", (None,))[0]
        told = metadata(self._path).get("modelspec.prediction_type")
        if told is not None:
            settings["scheduler"]["prediction_type"] = {"v": "v_prediction"}.get(told, told)
        return settings

    def _other_kind(self) -> str:
        """What the file is, as far as its tensors' names tell."""
        from diffusers.loaders.single_file_utils import infer_diffusers_model_type

        refuse_adapters(self._shapes, self.name)
        names = sorted(self._shapes)
        if any("time_stack" in name for name in names):
            return "a video model, such as Stable Video Diffusion"
        if any(name.startswith(("down_blocks.", "encoder.down_blocks.", "text_model.")) for name in names):
            return "one network of a diffusers folder"
        try:
            kind = infer_diffusers_model_type({n: SimpleNamespace(shape=shape) for n, shape in self._shapes.items()})
        except (KeyError, IndexError, UnboundLocalError):
            kind = "v1"
        if kind not in ("v1", "v2"):  # the first is also what diffusers says of files that it does not know
            return f"a model of another kind ({kind!r} in diffusers' words)"
        return f"not a checkpoint that is known: it holds {len(names)} tensors, such as {(names or ['none'])[0]!r}"

    @override
    def config(self, part: str, filename: str | None = None, *, required: bool = True) -> dict[str, Any]:
        found = self._settings.get(part)
        if found is None and required:
            raise FileNotFoundError(f"{self.name} has no {part}. {_WANTED}")
        return dict(found or {})

    @override
    def pipeline(self) -> dict[str, Any]:
        return {}

    @override
    def check(self, *parts: str) -> None:
        for key, value, allowed in (("variant", self.variant, "non_ema"), ("revision", self.revision, None)):
            if value not in (None, allowed):
                raise ValueError(
                    f"backbone.{key} = {value!r}: {self.name} is a single file; {key} must be null"
                    + (f" or {allowed}." if allowed else ".")
                )
        refuse_adapters(self._shapes, self.name)
        for part in parts:
            prefix = _PREFIXES.get(part)
            if prefix is not None and not any(name.startswith(prefix) for name in self._shapes):
                raise FileNotFoundError(f"{self.name} has no {part} (no tensor begins with {prefix!r}). {_WANTED}")
        known = (*_PREFIXES.values(), "model_ema.")
        strangers = [n for n, shape in self._shapes.items() if len(shape) > 1 and not n.startswith(known)]
        if strangers:
            raise ValueError(
                f"{self.name} holds more than Stable Diffusion ({len(strangers)} of its tensors), such as "
                f"{sorted(strangers)[0]!r}. {_WANTED}"
            )

    @override
    def load(self, model_class: Any, part: str) -> Any:
        config = self.config(part)
        tensors = self._tensors_of(part)
        if part == "text_encoder":
            model = model_class(model_class.config_class(**config))
            converted = _text_tensors(model, tensors)
        else:
            with torch.device("meta"):  # every tensor is replaced
                model = model_class.from_config(config)
            converted = self._converted(part, tensors, config)
        try:
            names = model.load_state_dict(converted, strict=False, assign=True)
        except RuntimeError as error:
            raise ValueError(f"{self.name}/{part} cannot be read as {model_class.__name__}: {error}") from error
        check_tensor_names(f"{self.name}/{part}", names.missing_keys, names.unexpected_keys)
        return model.float().eval()

    @override
    def empty_prompt(self, part: str = "tokenizer") -> Tensor:
        tokens = self.config(part)
        padding = [tokens["pad"]] * (tokens["model_max_length"] - 2)
        return torch.tensor([[tokens["start"], tokens["end"], *padding]])

    @override
    def tensors(self, filename: str) -> dict[str, Tensor]:
        return {}

    @override
    def fingerprint(self, parts: Iterable[str]) -> str:
        settings = json.dumps(self._settings, sort_keys=True)
        return hashlib.sha256(f"{file_hash(self._path)} {self.variant} {settings}".encode()).hexdigest()

    def _tensors_of(self, part: str) -> dict[str, Tensor]:
        from safetensors import safe_open

        prefixes = (_PREFIXES[part], "model_ema.") if part == "unet" else (_PREFIXES[part],)
        with safe_open(self._path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in self._shapes if name.startswith(prefixes)}

    def _converted(self, part: str, tensors: dict[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors of U-Net or autoencoder by diffusers' names."""
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

        if part == "vae":
            converted: dict[str, Tensor] = convert_ldm_vae_checkpoint(tensors, config)
            return converted
        # The published weights are the averaged ones, where a file has both.
        averaged = self.variant is None and any(name.startswith("model_ema.diffusion_model") for name in tensors)
        converted = convert_ldm_unet_checkpoint(tensors, config, extract_ema=averaged)
        return {name: tensor for name, tensor in converted.items() if tensor is not None}


def _text_tensors(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a text encoder by the names of this version of transformers."""
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    if any(name.startswith(_OPEN_CLIP) for name in tensors):
        converted = convert_open_clip_checkpoint(model, tensors, prefix=_OPEN_CLIP)
    else:
        converted = convert_ldm_clip_checkpoint(tensors)
    is_nested = any(name.startswith("text_model.") for name in model.state_dict())
    return {name if is_nested else name.removeprefix("text_model."): t for name, t in converted.items()}
