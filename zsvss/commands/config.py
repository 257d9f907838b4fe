"""Config files found by bare name, and readable messages for mistakes in them and on the command line."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import zsvss

_PACKAGE = Path(zsvss.__file__).parent
# In a checkout the configs lie beside the package; in an installed wheel they lie inside it.
PACKAGED_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


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
    """Replace the bare names behind ``--config`` by paths."""
    resolved: list[str] = []
    for argument in arguments:
        if resolved and resolved[-1] in ("--config", "-c"):
            argument = str(find_config(argument))
        elif argument.startswith("--config="):
            argument = f"--config={find_config(argument.removeprefix('--config='))}"
        resolved.append(argument)
    return resolved


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Sentence that lists the nearest names, or all of them where none is near.

    >>> did_you_mean("vspw_ds.yaml", ["vspw_sd.yaml", "camvid_sd.yaml"])
    ' Did you mean vspw_sd.yaml?'
    >>> did_you_mean("x", ["vspw_sd.yaml", "camvid_sd.yaml"])
    ' Known: camvid_sd.yaml, vspw_sd.yaml.'
    """
    known = sorted(set(known))

    def likeness(name: str) -> float:
        return difflib.SequenceMatcher(None, wrong.lower(), name.lower()).ratio()

    # A name is often cut short rather than mistyped.
    near = {name: likeness(name) for name in known if len(wrong) > 3 and wrong.lower() in name.lower()}
    near |= {name: likeness(name) for name in known if likeness(name) >= 0.6}
    if near:
        best = [name for name in sorted(near, key=lambda name: -near[name]) if near[name] > max(near.values()) - 0.1]
        return f" Did you mean {' or '.join(best[:3])}?"
    return f" Known: {', '.join(known)}." if known else ""


def explain(message: str, options: Iterable[str], slots: Mapping[str, type]) -> str:
    """Turn jsonargparse's message into one that names the key, the value found and the near misses.

    Args:
        message: jsonargparse's.
        options: keys of the parser, such as ``model.refinement``.
        slots: base class of what may be put into a key, such as ``model.refinement``.
    """
    key = _found(r'Parser key "([^"]+)"', message) or ""
    where = f"{key}: " if key else ""
    required = _found(r"the following arguments are required: (.+)", message)

    if name := _found(r"Expected a dot import path string: (\S+)", message):
        known = subclass_names(slots[key]) if key in slots else []
        return f"{where}there is no class {name}.{did_you_mean(name, known)}"
    problem = re.search(r"Problem with given class_path '([^']+)':\s+Option '([^']+)' is not accepted", message)
    if problem:
        class_path, option = problem.groups()
        return f"{where}{class_path} has no option {option!r}.{did_you_mean(option, _parameters(class_path))}"
    if class_path := _found(r"Problem with given class_path '([^']+)':\s+the following arguments are req", message):
        return f"{where}{class_path} needs {required}; give it by " + " ".join(
            f"--{key}.{name} VALUE" for name in (required or "").split(", ")
        )
    value = re.search(
        r"Problem with given class_path '[^']+':\s+Parser key \"([^\"]+)\":\s+Expected an? (.+?)\. Got value: (.+)",
        message,
    )
    if value:
        option, wanted, found = value.groups()
        allowed = re.sub(r"<class '(\w+)'>", r"\1", wanted.replace("typing.Literal", "one of "))
        return f"{where.removesuffix(': ')}.{option} is {found.strip()!r}; allowed: {allowed}"
    if option := _found(r"does not accept option '([^']+)'", message) or _found(r"Key '([^']+)' is not exp", message):
        return f"unknown config key {option!r}.{did_you_mean(option, options)}"
    if option := _found(r"unrecognized arguments: (.+)", message):
        wrong = option.removeprefix("--").split("=")[0].split()[0]
        return f"unknown option {option!r}.{did_you_mean(wrong, options)}"
    if required:
        keys = re.sub(r"\b(test|predict)\.", "", required)
        return f"missing: {keys}; give it in a config (--config FILE) or by --{keys.split(', ')[0]} VALUE"
    return message


def refusal(message: str) -> str:
    """What a constructor said, without what jsonargparse wraps around it; other messages as they are."""
    pattern = r"any of the Union subtypes.*?Errors:\n  - (.+?)\n  - Expected a <class 'NoneType'>"
    wrapped = re.search(pattern, message, re.DOTALL)
    return wrapped.group(1) if wrapped else message


def _found(pattern: str, message: str) -> str | None:
    match = re.search(pattern, message)
    return match.group(1).rstrip() if match else None


def _parameters(class_path: str) -> list[str]:
    return [name for name in inspect.signature(_imported(class_path)).parameters if name not in ("args", "kwargs")]


def subclass_names(base: type) -> list[str]:
    """Names of the concrete classes that were imported so far and derive from ``base``, itself included."""
    found, queue = set(), [base]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not inspect.isabstract(cls) and not cls.__name__.startswith("_"):
            found.add(cls.__name__)
    return sorted(found)


def _imported(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    cls: type = getattr(import_module(module), name)
    return cls
