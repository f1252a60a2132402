"""YAML that remembers lines, so that an error about a value can say where it was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from arena.errors import UsageError

Location = tuple[str | int, ...]
"""Keys and item numbers that lead from the root to a value."""


@dataclass
class Document:
    """Plain data, and the line (from 1) of every key and item in it."""

    source: str
    data: object = None
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """The line of a value or of what would hold it; 0 if the data did not come from a file."""
        ancestors = (location[:n] for n in range(len(location), -1, -1))
        return next((self.lines[place] for place in ancestors if place in self.lines), 0)

    def where(self, location: Location) -> str:
        """``quick.yaml, line 12, attacks[1].config``; as errors name a place."""
        line = self.line(location)
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
        return ", ".join(part for part in (self.source, f"line {line}" if line else "", path) if part)


def read_yaml(path: Path) -> Document:
    """Read one YAML document, UTF-8, plain data only. Raises `UsageError` naming file and line.

    Refused: duplicate keys, of which YAML would keep the last in silence, and aliases, of which a few lines unfold into
    gigabytes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    document = Document(str(path))
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise UsageError(f"{path} is empty")
            _walk(node, (), document, set())
            document.data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return document


def _walk(node: yaml.Node, at: Location, document: Document, seen: set[int]) -> None:
    document.lines.setdefault(at, node.start_mark.line + 1)
    if id(node) in seen:
        raise UsageError(f"{document.where(at)}: YAML aliases are not used here: write the value out")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, (*at, i), document, seen)
    elif isinstance(node, yaml.MappingNode):
        keys: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            place = (*at, name)
            if name in keys:
                document.lines[place] = line
                raise UsageError(f"{document.where(place)}: the key is already in line {keys[name]}: remove one")
            document.lines[place] = keys[name] = line
            _walk(value, place, document, seen)
