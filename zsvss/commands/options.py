"""The options of ``test`` and ``predict``, read from the sources without importing them: PyTorch alone takes seconds.

Reading a source's syntax tree takes milliseconds and cannot go stale. The parser that runs a command is built from the
imported classes (`zsvss.commands.lightning`); tests hold the two together.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import zsvss

COMPONENTS = ("backbones", "data", "metrics", "stages")
"""Packages whose classes are known by bare name."""

DEFAULT_CLASSES = {
    "model.context": "KNNSceneContext",
    "model.refinement": "CorrespondenceRefinement",
    "model.modulation": "MaskedModulation",
    "model.naming": "FirstFrameNaming",
}
"""What a key holds unless a config or an option says otherwise."""

_PACKAGE = Path(zsvss.__file__).parent
# Key -> file and class of what is set there, as `CommandLine` adds them to its parser.
_GROUPS = {
    "model": (_PACKAGE / "module.py", "VideoSegmentation"),
    "results": (_PACKAGE / "callbacks" / "result_writer.py", "ResultWriter"),
    "predictions": (_PACKAGE / "callbacks" / "prediction_writer.py", "PredictionWriter"),
    "media": (_PACKAGE / "callbacks" / "media.py", "MediaStore"),
}
_DATA = "VideoDataModule"
_SINGLE = {
    "config": "config of the run, as a path or by name; give it again for a config on top",
    "output": "run folder (default: runs/<names of the configs>-<hash>)",
    "print_config": "print the resolved config and stop",
    "seed_everything": "Lightning's; the method draws from model.seed alone",
}
_ARGUMENT = re.compile(r"^ {4}(\w+): +(.*)")


class Parameter(NamedTuple):
    """An argument of a class's constructor.

    Attributes:
        default: as the source has it; ``None`` if the argument is required.
        classes: names in its annotation, among which may be a component's base class.
        help: from the docstring.
    """

    default: str | None
    classes: tuple[str, ...]
    help: str


class ClassSource(NamedTuple):
    """What the source says about a class.

    Attributes:
        bases: names of its base classes.
        parameters: of its own constructor; ``None`` if it has none of its own.
        passes_on: whether the constructor hands further arguments on to its base class.
        is_abstract: whether it has methods that a subclass must fill in.
    """

    bases: tuple[str, ...]
    parameters: Mapping[str, Parameter] | None
    passes_on: bool
    is_abstract: bool


@functools.cache
def component_classes() -> Mapping[str, ClassSource]:
    """All classes of the component packages, by name."""
    paths = sorted(path for package in COMPONENTS for path in (_PACKAGE / package).rglob("*.py"))
    return {name: source for path in paths for name, source in _read(path)}


@functools.cache
def groups() -> Mapping[str, Mapping[str, Parameter]]:
    """The arguments below each of the keys ``trainer``, ``model``, ``results`` ..., without those of components."""
    lightning = find_spec("lightning")
    if lightning is None or lightning.origin is None:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")
    trainer = Path(lightning.origin).parent / "pytorch" / "trainer" / "trainer.py", "Trainer"
    return {
        key: dict(_read(path))[name].parameters or {} for key, (path, name) in {"trainer": trainer, **_GROUPS}.items()
    }


@functools.cache
def slots() -> Mapping[str, str]:
    """Keys that hold a component, with the name of its base class."""
    found = {f"model.{name}": base_class(parameter) for name, parameter in groups()["model"].items()}
    return {"data": _DATA} | {key: base for key, base in found.items() if base is not None}


def base_class(parameter: Parameter) -> str | None:
    """The component's base class that a parameter holds an object of; ``None`` for other values."""
    return next((name for name in parameter.classes if name in component_classes()), None)


def subclasses(base: str) -> list[str]:
    """Names of the concrete classes that derive from a component's base class, itself included."""
    return sorted(
        name
        for name, source in component_classes().items()
        if not source.is_abstract and name[0] != "_" and base in _line(name)
    )


def parameters(name: str) -> Mapping[str, Parameter]:
    """What a component's constructor takes, what it hands on to its base class included."""
    source = component_classes()[name]
    inherited: dict[str, Parameter] = {}
    if source.parameters is None or source.passes_on:
        for base in reversed(source.bases):
            inherited |= parameters(base) if base in component_classes() else {}
    return inherited | dict(source.parameters or {})


def fixed_options() -> dict[str, Parameter]:
    """The options that are there whatever components are chosen, by dotted key."""
    found = {key: Parameter("", (), text) for key, text in _SINGLE.items()} | {
        "data": Parameter(None, (_DATA,), "data set, by class")
    }
    for group, members in groups().items():
        found |= {f"{group}.{name}": parameter for name, parameter in members.items()}
    return found


def component_options(chosen: Mapping[str, tuple[str, ...]]) -> dict[str, Parameter]:
    """The options of components, by dotted key; without a default where it depends on the component.

    Args:
        chosen: for each of `slots` the classes that it may hold; every class where it is left out.
    """
    found: dict[str, Parameter] = {}
    for slot, base in slots().items():
        for name in chosen.get(slot) or subclasses(base):
            if name in component_classes():
                for key, parameter in parameters(name).items():
                    known = found.get(f"{slot}.{key}", parameter)
                    alike = known.default == parameter.default
                    found[f"{slot}.{key}"] = parameter if alike else parameter._replace(default=None)
    return found


def classes_with(key: str) -> list[str]:
    """Names of the components that have an option; none for the options that are always there.

    >>> classes_with("data.protocol"), classes_with("model.seed")
    (['VSPW'], [])
    """
    slot, _, name = key.rpartition(".")
    return [cls for cls in subclasses(slots()[slot]) if name in parameters(cls)] if slot in slots() else []


def _line(name: str) -> Iterator[str]:
    """A class and all that it derives from."""
    yield name
    if name in component_classes():
        for base in component_classes()[name].bases:
            yield from _line(base)


def _read(path: Path) -> Iterator[tuple[str, ClassSource]]:
    """The classes of a source file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name, _class_source(node)


def _class_source(node: ast.ClassDef) -> ClassSource:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    named = {method.name: method for method in methods}
    init = named.get("__new__", named.get("__init__"))  # `__new__` where it chooses the class, as the parser has it
    marks = {name for method in methods for mark in method.decorator_list for name in _names(mark)}
    bases = tuple(name for base in node.bases for name in _names(base)[-1:])
    if init is None:
        return ClassSource(bases, None, False, "abstractmethod" in marks)
    documented = _documented(ast.get_docstring(node)) | _documented(ast.get_docstring(init))
    given = [*init.args.posonlyargs, *init.args.args][1:]
    defaults = [*[None] * (len(given) - len(init.args.defaults)), *init.args.defaults]
    pairs = [*zip(given, defaults, strict=True), *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)]
    taken = {
        argument.arg: Parameter(
            None if default is None else ast.unparse(default),
            tuple(_names(argument.annotation)),
            documented.get(argument.arg, ""),
        )
        for argument, default in pairs
    }
    return ClassSource(bases, taken, init.args.kwarg is not None, "abstractmethod" in marks)


def _names(node: ast.AST | None) -> list[str]:
    """Names that an expression mentions; of a dotted one the last."""
    nodes = [] if node is None else ast.walk(node)
    return [
        node.id if isinstance(node, ast.Name) else node.attr
        for node in nodes
        if isinstance(node, ast.Name | ast.Attribute)
    ]


def _documented(docstring: str | None) -> dict[str, str]:
    r"""Arguments of a Google docstring and what it says of them.

    >>> _documented("Do.\n\nArgs:\n    size: of it,\n        in pixels.\n    name: its.\n\nReturns:\n    a: b")
    {'size': 'of it, in pixels.', 'name': 'its.'}
    """
    _, _, section = inspect.cleandoc(docstring or "").partition("Args:\n")
    found: dict[str, str] = {}
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if match := _ARGUMENT.match(line):
            found[match.group(1)] = match.group(2)
        elif found and line.strip():
            last = next(reversed(found))
            found[last] = f"{found[last]} {line.strip()}"
    return found
