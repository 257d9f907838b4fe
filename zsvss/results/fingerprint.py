"""A run's fingerprint: all that decides its numbers (settings, weights, code, device), compared when it is resumed."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import zsvss
from zsvss.backbones.base import Backbone
from zsvss.data.datamodule import VideoDataModule
from zsvss.data.video import UNKNOWN_LENGTH, FileVideo, Video
from zsvss.gathering import gather
from zsvss.stages.precision import tf32_settings

Fingerprint = Mapping[str, Any]
"""Key -> plain value; nothing nested."""

_PACKAGE = Path(zsvss.__file__).parent
_SOURCES = (".py", ".json", ".safetensors")
# What decodes frames, resizes them and does the arithmetic.
_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "scipy", "scikit-learn", "pillow", "decord", "av")

# Where things lie and how fast they are read. What lies there is told by the weights' hash and each video's source.
_NOT_DECISIVE = {
    *(f"data.init_args.{name}" for name in ("root", "input", "masks", "num_workers", "time_limit", "skip_unreadable")),
    "model.backbone.init_args.weights",
    "model.backbone.init_args.image_weights",
    "model.backbone.init_args.offload",
}


def run_fingerprint(
    task: str,
    settings: Mapping[str, Any],
    data: VideoDataModule,
    backbone: Backbone,
    precision: str,
    devices: Mapping[str, Any],
) -> Fingerprint:
    """Everything that decides the numbers of a run, but for the videos themselves (see `video_source`).

    Args:
        task: ``test`` or ``predict``.
        settings: the resolved config.
        data: whose name is part of every seed, and whose classes decide the shape of the results.
        backbone: whose weights to hash.
        precision: of the run's arithmetic.
        devices: what the processes compute on, see `device_facts`.
    """
    return {
        "task": task,
        **decisive_settings(settings),
        "dataset": data.name,
        "classes": None if data.taxonomy is None else list(data.taxonomy.classes),
        "precision": precision,
        **devices,
        "weights": backbone.fingerprint(),
        **code_version(),
    }


def device_facts(device: torch.device) -> dict[str, Any]:
    """The device that this process computes on and how: another model or another setting gives other last bits.

    Gathers the models of all processes: a collective operation.

    >>> device_facts(torch.device("cpu"))
    {'device': 'cpu'}
    """
    if device.type == "cpu":
        model = "cpu"
    else:
        model = f"{device.type} ({torch.get_device_module(device).get_device_name(device)})"
    facts: dict[str, Any] = {"device": ", ".join(sorted(set(gather(model))))}
    if device.type != "cpu":
        facts |= {f"tf32.{operation}": setting for operation, setting in tf32_settings().items()}
        facts["deterministic"] = torch.are_deterministic_algorithms_enabled()
        facts["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    return facts


def decisive_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of model and data, without paths and plumbing, by dotted key.

    >>> decisive_settings({"model": {"seed": 1}, "data": {"init_args": {"root": "/data", "split": "val"}}})
    {'model.seed': 1, 'data.init_args.split': 'val'}
    """
    chosen = {part: settings[part] for part in ("model", "data") if part in settings}
    return {key: value for key, value in _flat(chosen) if key not in _NOT_DECISIVE}


def video_source(video: Video) -> str:
    """What a result was computed from, so that it is not kept when a video is repaired or another takes its name.

    Number of frames, the names of all files, the sizes of those of the frames and the content of the masks: an edited
    mask often keeps its size.
    """
    if not isinstance(video, FileVideo):
        return f"{video.num_frames} frames"
    frames = [video.frames] if isinstance(video.frames, Path) else list(video.frames)
    masks = [path for path in video.labels or () if path is not None]
    files = [f"{path.name} {path.stat().st_size if path.exists() else 'missing'}" for path in frames]
    files += [f"{path.name} {_content(path)}" for path in masks]
    return f"{video.num_frames} frames, {len(files)} files {hashlib.sha256(' '.join(files).encode()).hexdigest()[:16]}"


def is_source(recorded: str, video: Video) -> bool:
    """Whether `video_source` of a video is what was recorded, as far as can be told before it is read."""
    now = video_source(video)
    if video.num_frames == UNKNOWN_LENGTH:
        recorded, now = (text.partition(", ")[2] for text in (recorded, now))
    return recorded == now


@functools.cache
def code_version() -> dict[str, str]:
    """Version of the package, hash of its sources, and versions of the libraries that do the arithmetic."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _PACKAGE.rglob("*") if path.suffix in _SOURCES and path.is_file()):
        digest.update(f"{path.relative_to(_PACKAGE)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return {
        "zsvss": zsvss.__version__,
        "sources": digest.hexdigest()[:12],
        **{library: _version(library) for library in _LIBRARIES},
    }


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout the package runs from, with ``+changes`` if files differ; ``None`` if it is installed."""
    if not (_PACKAGE.parent / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no", "--", _PACKAGE.name)
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def digest(fingerprint: Fingerprint) -> str:
    """One hash of a whole fingerprint."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def differences(theirs: Fingerprint, ours: Fingerprint) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, with both values.

    >>> differences({"seed": 0, "split": "val"}, {"seed": 1, "split": "val", "tail": "short"})
    {'seed': (0, 1), 'tail': ('nothing', 'short')}
    """
    pairs = {key: (theirs.get(key, "nothing"), ours.get(key, "nothing")) for key in [*ours, *theirs]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # As JSON has it, so that a value equals itself when it is read back.
            yield f"{prefix}{key}", json.loads(json.dumps(value, default=str))


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
