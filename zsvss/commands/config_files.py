"""Config files found by bare name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

import zsvss
from zsvss.commands.refusals import did_you_mean

_PACKAGE = Path(zsvss.__file__).parent
# In a checkout the configs lie beside the package; in an installed wheel they lie inside it.
PACKAGED_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


SMALL, SMALL_WITH_MASKS = "predict_embedded.yaml", "predict_masks_embedded.yaml"
"""What ``predict`` takes by itself on the small model that ships with the package, and where masks are given."""


def config_folders() -> list[Path]:
    """Folders in which configs are looked up by name, in this order."""
    return [folder for folder in (Path("configs"), PACKAGED_CONFIGS) if folder.is_dir()]


def find_config(name: str) -> Path:
    """Path of a config given as a path or by its name in one of `config_folders`; ``.yaml`` may be left out.

    Raises:
        FileNotFoundError: listing the nearest names.
    """
    names = [name] if name.endswith((".yaml", ".yml", ".json")) else [name, f"{name}.yaml"]
    for folder in (Path(), *config_folders()):
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    known = sorted({str(path.relative_to(folder)) for folder in config_folders() for path in folder.rglob("*.yaml")})
    looked = ", ".join(str(folder) for folder in (Path(), *config_folders()))
    raise FileNotFoundError(f"config {name!r} was not found in {looked}.{did_you_mean(name, known)}")


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the bare names after ``--config`` by paths."""
    resolved: list[str] = []
    for argument in arguments:
        if resolved and resolved[-1] in ("--config", "-c"):
            argument = str(find_config(argument))
        elif argument.startswith("--config="):
            argument = f"--config={find_config(argument.removeprefix('--config='))}"
        resolved.append(argument)
    return resolved


def config_paths(arguments: Sequence[str]) -> list[str]:
    """Values of ``--config``."""
    pairs = zip(arguments, [*arguments, ""][1:], strict=True)
    given = [(name, value) for name, value in pairs if name in ("--config", "-c") or name.startswith("--config=")]
    return [value if "=" not in name else name.partition("=")[2] for name, value in given]


def names_no_system(arguments: Sequence[str]) -> bool:
    """Whether configs, if there are any, and options leave open what the data are, or the backbone.

    Raises:
        OSError: if a config cannot be read.
        yaml.YAMLError: if it is not YAML.
    """
    paths = config_paths(arguments)
    has_data = any(argument == "--data" or argument.startswith("--data=") for argument in arguments)
    return not paths or not (has_data or any(_names_system(find_config(path)) for path in paths))


def has_masks(arguments: Sequence[str]) -> bool:
    """Whether labels are given."""
    return any(argument == "--data.masks" or argument.startswith("--data.masks=") for argument in arguments)


def _names_system(path: Path) -> bool:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return True  # is refused as it is
    model = content.get("model")
    parts = [content.get("data"), model.get("backbone") if isinstance(model, dict) else None]
    return any(isinstance(part, str) or (isinstance(part, dict) and "class_path" in part) for part in parts)
