"""A first look at a command line and its configs, before PyTorch is imported: what is plainly wrong is told at once.

It refuses only what the parser of the run would refuse too, or what could not be meant; whatever it cannot judge (a
class by import path, Lightning's loggers and callbacks, values) it leaves to that parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zsvss.commands import options
from zsvss.commands.config_files import find_config
from zsvss.commands.path_options import is_path
from zsvss.commands.refusals import did_you_mean, fail
from zsvss.data.input_kinds import is_stream

_INPUT = ("data", "input")
_FLAGS = ("--print_config", "-h", "--help")


class CommandLineWords(NamedTuple):
    """A command line taken apart.

    Attributes:
        given: options and their values, in order; the value of a flag is "".
        others: what belongs to no option.
    """

    given: list[tuple[str, str]]
    others: list[str]

    def values(self, *names: str) -> list[str]:
        """All values of an option, by any of its names."""
        return [value for name, value in self.given if name in names]

    def arguments(self) -> list[str]:
        """The options as a command line again."""
        words: list[str] = []
        for name, value in self.given:
            is_flag = name in _FLAGS or name.endswith(".help")
            words += [f"{name}={value}" if value else name] if is_flag else [name, value]
        return words

    def with_configs_first(self) -> CommandLineWords:
        """The same with the configs in front, in their order: an option counts more than a config, wherever it is."""
        return self._replace(given=sorted(self.given, key=lambda option: option[0] not in ("--config", "-c")))

    @property
    def wants_help(self) -> bool:
        """Whether help was asked for."""
        return any(name in ("-h", "--help") for name, _ in self.given)


class Setting(NamedTuple):
    """A key that is set somewhere.

    Attributes:
        place: the config's path; "" for the command line.
        key: its parts, without those that only the parser needs.
        value: as YAML has it.
    """

    place: str
    key: tuple[str, ...]
    value: Any


def take_apart(arguments: Sequence[str]) -> CommandLineWords:
    """Tell options from what belongs to none; an option without its value is refused."""
    words = CommandLineWords([], [])
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not (word.startswith("--") or word in ("-c", "-h")):
            words.others.append(word)
        elif equals or name in _FLAGS:
            words.given.append((name, value))
        elif name.endswith(".help"):
            words.given.append((name, rest.pop(0) if rest and rest[0][:1] != "-" else ""))
        elif not rest or rest[0].startswith("--"):
            fail(f"{name} needs a value; found {rest[0] if rest else 'the end of the command'}", 2)
        else:
            words.given.append((name, rest.pop(0)))
    return words


def look(command: str, words: CommandLineWords, assumed: Sequence[str] = ()) -> None:
    """Refuse unknown configs, options, keys and classes, with the near misses, and a second or missing input.

    Args:
        command: ``test`` or ``predict``.
        words: what follows it.
        assumed: configs that the run takes below those that are given.
    """
    configs = words.values("--config", "-c")
    settings = [
        *(setting for name in [*assumed, *configs] for setting in _of_config(name)),
        *(setting for name, value in words.given for setting in _of_option(name, value)),
    ]
    if not configs and not assumed and not any(setting.key[:2] == ("model", "backbone") for setting in settings):
        known = ", ".join(sorted(path.stem for path in find_config("demo").parent.glob("*.yaml")))
        fail(f"{command} needs a config that names the backbone and the data: --config NAME. Known: {known}", 2)
    classes = _classes(settings)
    for setting in settings:
        if problem := _problem(setting, classes):
            fail(f"{setting.place}: {problem}" if setting.place else problem, 2)
    _check_input(command, settings, classes, required=not words.values("--print_config"))


def _of_config(name: str) -> Iterator[Setting]:
    try:
        path = find_config(name)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        fail(str(error), 1)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"config {name} cannot be read: {error}", 1)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        fail(f"config {path}{where} is not YAML: {problem or error}", 1)
    if content is not None and not isinstance(content, dict):
        fail(f"config {path} holds {type(content).__name__} {str(content)[:40]!r}; allowed are keys such as model:", 1)
    for key, value in _flat(content or {}):
        yield Setting(str(path), key, value)


def _of_option(name: str, text: str) -> Iterator[Setting]:
    if name in ("-c", "--config", *_FLAGS):
        return
    key = tuple(name.removeprefix("--").removesuffix("+").split("."))
    try:
        # A path is text: "0001" is no number, and "a: b.mp4" no mapping.
        value = text if is_path(_plain(key)) else yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, dict) and value:
        for rest, inner in _flat(value):
            yield Setting("", _plain(key + rest), inner)
    else:
        yield Setting("", _plain(key), value)


def _flat(content: Mapping[Any, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in content.items():
        inner = (*before, *str(key).split("."))
        if isinstance(value, Mapping) and value:
            yield from _flat(value, inner)
        else:
            yield _plain(inner), value


def _plain(key: Iterable[str]) -> tuple[str, ...]:
    """A key without the parts that only the parser needs."""
    return tuple(part for part in key if part not in ("class_path", "init_args"))


def _classes(settings: Sequence[Setting]) -> dict[str, tuple[str, ...]]:
    """For each key that is set to a text what that may be: names of classes, where the key holds a component.

    Names of this package's classes come without the modules before them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for setting in settings:
        if isinstance(setting.value, str):
            key, name = ".".join(setting.key), setting.value
            found[key] = (*found.get(key, ()), name.rpartition(".")[2] if name.startswith("zsvss.") else name)
    return {key: (name,) for key, name in options.DEFAULT_CLASSES.items()} | found


def _problem(setting: Setting, classes: Mapping[str, tuple[str, ...]]) -> str | None:
    """What is wrong with a key, or with the class it is set to."""
    first, *rest = setting.key
    groups = options.groups()
    if first == "data":
        return _problem_in_slot("data", options.slots()["data"], rest, setting, classes)
    if first in groups and rest and rest[0] in groups[first]:
        slot = f"{first}.{rest[0]}"
        base = options.slots().get(slot)
        return None if base is None else _problem_in_slot(slot, base, rest[1:], setting, classes)
    if (first in options.fixed_options() or first in groups) and not rest:
        return None
    return _unknown(setting, classes)


def _problem_in_slot(
    slot: str, base: str, rest: Sequence[str], setting: Setting, classes: Mapping[str, tuple[str, ...]]
) -> str | None:
    """The same for a key that holds a component, or lies below one."""
    names = classes.get(slot, ())
    if not rest:
        name = setting.value
        if not isinstance(name, str) or not name.isidentifier() or name in options.component_classes():
            return None
        return f"{slot}: there is no class {name}.{did_you_mean(name, options.subclasses(base))}"
    if rest[0] in ("help", "dict_kwargs") or any(name not in options.component_classes() for name in names):
        return None
    chosen = names or options.subclasses(base)
    known = {key: parameter for name in chosen for key, parameter in options.parameters(name).items()}
    if rest[0] in known:
        inner = options.base_class(known[rest[0]])
        return inner and _problem_in_slot(f"{slot}.{rest[0]}", inner, rest[1:], setting, classes)
    if len(chosen) > 1 and not names:
        return _unknown(setting, classes)
    return f"{slot}: {chosen[-1]} has no option {rest[0]!r}.{did_you_mean(rest[0], known)}"


def _unknown(setting: Setting, classes: Mapping[str, tuple[str, ...]]) -> str:
    key = ".".join(setting.key)
    known = [*options.fixed_options(), *options.component_options(classes)]
    if setting.place:
        return f"unknown key {key!r}.{did_you_mean(key, known)}"
    return f"unknown option --{key}." + (did_you_mean(key, known, prefix="--") or " `--help all` lists all options")


def _check_input(
    command: str, settings: Sequence[Setting], classes: Mapping[str, tuple[str, ...]], *, required: bool
) -> None:
    inputs = [setting for setting in settings if setting.key == _INPUT]
    typed = [str(setting.value) for setting in inputs if not setting.place]
    if len(typed) > 1:
        fail(
            f"data.input is given {len(typed)} times ({', '.join(typed)}); allowed is one: a video file, a folder of "
            "images, or a folder that holds several videos",
            2,
        )
    if classes.get("data", ("",))[-1] != "VideoFolder":
        return
    if not inputs and not required:
        return
    if not inputs:
        fail(
            f"data.input is missing: name a video file or a folder, such as `zsvss {command} --data.input video.mp4`", 2
        )
    path = str(inputs[-1].value)
    if not path:
        where = f"{inputs[-1].place}: " if inputs[-1].place else "--"
        fail(f"{where}data.input is empty; give a video file or a folder", 2)
    if "${" not in path and not is_stream(path) and not Path(path).expanduser().exists():
        fail(
            f"{path} not found; data.input must be a video file, a folder of numbered images or a folder of these, "
            "or a stream (a URL, a camera device, or - for the standard input)",
            1,
        )
