"""YAML that remembers lines, so that an error about a value can say where it was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from arena.errors import UsageError
from arena.text import shortened

Location = tuple[str | int, ...]
"""Keys and item numbers that lead from the root to a value."""

DEPTH = 64
"""Levels of lists and mappings in each other, at most."""

_TAG = "tag:yaml.org,2002:"


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
    """Read one YAML document, UTF-8, plain data only, that is, what JSON has. Raises `UsageError` naming file and line.

    Refused: duplicate keys, of which YAML would keep the last in silence; aliases, of which a few lines unfold into
    gigabytes; what goes deeper than `DEPTH`, whole numbers beyond 64 bits, and texts that are not UTF-8. A date is a
    text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{shortened(str(path), 400)}: cannot be read ({error.strerror}): check the path") from None
    document = _read(text, str(path))
    if not document.lines:
        raise UsageError(f"{path} is empty")
    return document


def read_value(text: str) -> object:
    """The plain data of a YAML text, with the refusals of `read_yaml`; None for an empty one. Raises `UsageError`."""
    return _read(text, "").data


def _read(text: str, source: str) -> Document:
    document = Document(source)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _walk(node, (), document, set())
                document.data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = f"line {mark.line + 1}" if mark else "", error.problem or error.context
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line, problem = "", " ".join(str(error).split())
    else:
        return document
    place = ", ".join(filter(None, (source, line)))
    raise UsageError(f"{place}: not valid YAML: {problem}" if place else f"not valid YAML: {problem}")


class _Loader(yaml.SafeLoader):
    """Plain data, and for whatever cannot be made of a value the line that it is in."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if tag != f"{_TAG}timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, f"it is more than {DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("timestamp", "binary", "set", "omap", "pairs"):
            raise ConstructorError(None, None, f"!!{kind} is not used here: write plain data", node.start_mark)
        try:
            found = super().construct_object(node, deep)
            if isinstance(found, str) and not found.isascii():  # JSON writes one character as two halves
                found = found.encode("utf-16", "surrogatepass").decode("utf-16")
            if isinstance(found, int) and not -(2**63) <= found < 2**64:
                raise ValueError
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            known = {"int": "whole number of up to 64 bits", "str": "text of whole characters"}
            problem = f"'{shortened(str(node.value), 60)}' is not a {known.get(kind, kind)}"
            raise ConstructorError(None, None, problem, node.start_mark) from error
        return found


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
            if not isinstance(key, yaml.ScalarNode):
                raise ComposerError(None, None, "a key must be a text", key.start_mark)
            name, line = str(key.value), key.start_mark.line + 1
            place = (*at, name)
            if name in keys:
                document.lines[place] = line
                raise UsageError(f"{document.where(place)}: the key is already in line {keys[name]}: remove one")
            document.lines[place] = keys[name] = line
            _walk(value, place, document, seen)
