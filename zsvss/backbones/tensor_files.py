"""What a safetensors file tells before its tensors are read: whether it is whole, their names and its hash."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
# "lora", as in to_q.lora_A.weight, to_q_lora.down.weight or lora_unet_down_blocks, and PEFT's name for what it wraps.
_ADAPTER = re.compile(r"(^|[._])lora([._]|$)|\.base_layer\.|hada_w1|lokr_w1", re.IGNORECASE)

# Tensors beside those of a text encoder that have no part in its hidden states.
_BESIDE_TEXT = ("text_projection", "logit_scale", "vision_model.", "visual_projection", "position_ids")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file, from its header.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}). Fetch the weights again.") from error


def metadata(path: Path) -> dict[str, str]:
    """The free text of a safetensors file's header."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def refuse_adapters(names: Iterable[str], place: str) -> None:
    """Refuse tensors of an adapter (LoRA and its kin) that was not merged into the weights.

    Raises:
        ValueError: naming one of them.
    """
    found = sorted(name for name in names if _ADAPTER.search(name))
    if found:
        raise ValueError(
            f"{place} holds an adapter that is not merged into the weights: {_counted(found)}. Merge "
            "it first (in diffusers: fuse_lora(), unload_lora_weights(), save_pretrained())."
        )


def check_tensor_names(place: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Refuse weights whose tensors are not those of the network.

    Args:
        place: of the weights, for the message.
        missing: names that the network has and the weights have not.
        unexpected: names that the weights have and the network has not.

    Raises:
        ValueError: naming one tensor.
    """
    missing, unexpected = sorted(missing), sorted(unexpected)
    refuse_adapters(unexpected, place)
    unexpected = [name for name in unexpected if not any(known in name for known in _BESIDE_TEXT)]
    for names, what in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            raise ValueError(
                f"{place} holds weights of another network than its config describes ({what}: {_counted(names)}). "
                "Fetch the weights again."
            )


def _counted(names: Sequence[str]) -> str:
    """How many tensors, and one of them by name."""
    return repr(names[0]) if len(names) == 1 else f"{len(names)} tensors, such as {names[0]!r}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content; the hub's cache names large files by it."""
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    status = target.stat()
    return _computed_hash(target, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _computed_hash(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
