"""jsonargparse's messages in one line: the key, the value found, what is allowed, the near misses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib import import_module

from zsvss.commands.refusals import did_you_mean


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
    if option := _found(r"does not accept option '([^']+)'", message) or _found(r"Key '([^']+)' is not exp", message):
        return f"unknown config key {option!r}.{did_you_mean(option, options)}"
    if option := _found(r"unrecognized arguments: (.+)", message):
        wrong = option.removeprefix("--").split("=")[0].split()[0]
        return f"unknown option {option!r}.{did_you_mean(wrong, options)}"
    if required:
        keys = re.sub(r"\b(test|predict)\.", "", required)
        return f"missing: {keys}; give it in a config (--config FILE) or by --{keys.split(', ')[0]} VALUE"
    return _wrong_value(message) or message


def _wrong_value(message: str) -> str | None:
    """A value of another kind than its key takes; the innermost key and value of what may be a nest of messages."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    innermost = message[message.rfind("Parser key") :]
    value = re.search(r"G(?:iven|ot) value: (.+)", innermost)
    wanted = re.search(r"Subtypes: \[(.+)\]|Expected an? (.+?)\. Got value", innermost)
    if not keys or value is None or wanted is None:
        return None
    found, types = value.group(1).strip(), wanted.group(1) or wanted.group(2)
    numbers = re.fullmatch(r"[(\[]?(\d+)[,x* ]+(\d+)[)\]]?", found)
    write = f"; write [{numbers.group(1)},{numbers.group(2)}]" if numbers and "tuple" in types else ""
    return f"{'.'.join(keys)} is {found!r}; allowed: {_in_words(types)}{write}"


def _in_words(types: str) -> str:
    """Types as a config has them.

    >>> _in_words("tuple[int, int], <class 'NoneType'>"), _in_words("typing.Literal['a', 'b']")
    ('[int, int] or null', "'a' or 'b'")
    >>> _in_words("<class 'collections.abc.Sequence'>")
    'list'
    """
    words = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", types)
    words = re.sub(r"typing\.Literal\[(.+?)\]", r"\1", words).replace("tuple[", "[")
    for name, plain in (("NoneType", "null"), ("Sequence", "list"), ("bool", "true or false")):
        words = re.sub(rf"\b{name}\b", plain, words)
    return re.sub(r", (\S+)$", r" or \1", words)


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
