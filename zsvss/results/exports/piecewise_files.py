"""JSON and XML files that are written piece by piece, so that a long video needs no more memory than a short one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

_NOT_IN_XML = {number: "�" for number in range(32) if number not in (9, 10, 13)}


def write_json(path: Path, content: Any) -> None:
    """Write a small JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_json_list(path: Path, head: Mapping[str, Any] | None, key: str, entries: Iterable[Any]) -> None:
    """Write a JSON object with a long list as its last value, or that list alone.

    Args:
        path: file to write.
        head: what comes before the list; ``None`` for a file that is the list alone.
        key: of the list in the object.
        entries: of the list, taken one by one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        if head is None:
            file.write("[")
        else:
            start = json.dumps(head, ensure_ascii=False)[:-1]
            file.write(f"{start}{', ' if head else ''}{json.dumps(key)}: [")
        for index, entry in enumerate(entries):
            file.write((",\n" if index else "\n") + json.dumps(entry, ensure_ascii=False))
        file.write("\n]\n" if head is None else "\n]}\n")


class XmlFile:
    """An XML file, element by element; a context manager that closes the root.

    Args:
        path: file to write.
        root: name of the outermost element.
    """

    def __init__(self, path: Path, root: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._xml = XMLGenerator(self._file, "utf-8", short_empty_elements=True)
        self._root, self._depth = root, 0
        self._xml.startDocument()
        self.open(root)

    def open(self, name: str, /, **attributes: object) -> None:
        """Begin an element."""
        self._xml.ignorableWhitespace("\n" + "  " * self._depth)
        cleaned = {key: _clean(value) for key, value in attributes.items()}
        self._xml.startElement(name, AttributesImpl(cleaned))
        self._depth += 1

    def close(self, name: str, *, inline: bool = False) -> None:
        """End an element."""
        self._depth -= 1
        if not inline:
            self._xml.ignorableWhitespace("\n" + "  " * self._depth)
        self._xml.endElement(name)

    def element(self, name: str, /, text: object = "", **attributes: object) -> None:
        """An element with text, or with none."""
        self.open(name, **attributes)
        if text != "":
            self._xml.characters(_clean(text))
        self.close(name, inline=True)

    def __enter__(self) -> XmlFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close(self._root)
            self._xml.endDocument()
        self._file.close()


def _clean(value: object) -> str:
    """Text without the control characters that XML cannot hold."""
    return str(value).translate(_NOT_IN_XML)
