"""What plugins say of themselves, without importing them: some take seconds for their libraries."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arena.plugins.kept import keep, kept
from arena.plugins.registry import Entry, describe
from arena.plugins.source import locate

_BUDGET = re.compile(r"^Budget: ([^.\n]+)\.$", re.MULTILINE)
_ARXIV = r"arXiv \d{4}\.\d{4,5}"
_NAME = r"(?:(?:Van|De|Von|Le) |(?:[A-Z][\w-]+ )+(?=Team|Repository))?[A-Z][\w\u2019'-]+"
_NAMES = rf"(?:{_NAME}, )+{_NAME} and {_NAME}|{_NAME}(?: and {_NAME})?"
_CITED = re.compile(rf"\b(?P<names>{_NAMES}),? (?P<year>(?:19|20)\d\d)\b(?:, (?P<arxiv>{_ARXIV}))?|(?P<alone>{_ARXIV})")


@dataclass(frozen=True)
class Facts:
    """What a plugin's source says of it: of a defense the budget that it is made for, which is the line of its
    docstring that begins with "Budget:"; what it reads of its world; and the first publication that its docstring
    cites, or else its module's. Empty where it says nothing."""

    budget: str
    needs: tuple[str, ...]
    source: str


_NO_FACTS = Facts("", (), "")


def facts(entry: Entry) -> Facts:
    """What a plugin's source says of it, nothing of one that cannot be used; imports what `about` does."""
    if entry.defect is not None:
        return _NO_FACTS
    tree, cls = _tree(entry.point.module), _class(entry.point.module, entry.point.attr)
    if tree is not None and cls is not None:
        docs, needs = [ast.get_docstring(cls), ast.get_docstring(tree)], _needs(entry.point.module, entry.point.attr)
    elif entry.problem() is None:
        loaded = entry.load()
        docs, needs = [loaded.__doc__], set(loaded.needs)
    else:
        return _NO_FACTS
    budget = _BUDGET.search(docs[0] or "")
    return Facts(budget[1] if budget else "", tuple(sorted(needs)), next(filter(None, map(_cited, docs)), ""))


def _cited(doc: str | None) -> str:
    """The first publication that a text cites."""
    found = _CITED.search(" ".join((doc or "").split()))
    if found is None:
        return ""
    named = f"{found['names']} {found['year']}" if found["names"] else ""
    return ", ".join(filter(None, (named, found["arxiv"] or found["alone"])))


def _needs(module: str, name: str, steps: int = 16) -> set[str]:
    """What a class reads of its world, as it says itself or its bases do; `name` is written in the module, or imported
    there from another one. At most so many steps are taken from class to class."""
    cls = _class(module, name)
    if steps == 0:
        return set()
    if cls is None:
        came_from = _imported(module, name)
        return set() if came_from is None else _needs(*came_from, steps - 1)
    for node in cls.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="needs")], value=value)
                | ast.AnnAssign(target=ast.Name(id="needs"), value=ast.expr() as value)
            ):
                parts = (each.value for each in ast.walk(value) if isinstance(each, ast.Constant))
                return {part for part in parts if isinstance(part, str)}
    return set().union(*(_needs(module, base.id, steps - 1) for base in cls.bases if isinstance(base, ast.Name)))


def _imported(module: str, name: str) -> tuple[str, str] | None:
    """The module that a name of a module comes from, and its name there."""
    tree = _tree(module)
    for node in () if tree is None else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return None


def about(entry: Entry) -> str:
    """The first paragraph of the class's docstring, in a line, or ``broken: `` and why it cannot be used, as far as its
    source shows that; what an import would raise is not among it.

    A class that is not written down where its entry point says, because it comes from another module or is made by
    code, is imported.
    """
    if entry.defect is not None:
        return f"broken: {entry.defect}"
    cls = _class(entry.point.module, entry.point.attr)
    if cls is not None:
        doc: str | None = ast.get_docstring(cls)
    elif (problem := entry.problem()) is not None:
        return f"broken: {problem}"
    else:
        doc = entry.load().__doc__
    return " ".join((doc or "").strip().partition("\n\n")[0].split())


def _class(module: str, name: str) -> ast.ClassDef | None:
    """The syntax tree of a class that is written in a module."""
    tree = _tree(module)
    found = (node for node in (() if tree is None else tree.body) if isinstance(node, ast.ClassDef))
    return next((node for node in found if node.name == name), None)


def _tree(module: str) -> ast.Module | None:
    """The syntax tree of a module; None where it has none."""
    file = locate(module)
    if file is None or file.suffix != ".py":
        return None
    with suppress(OSError, SyntaxError, ValueError):
        return _parsed(file, file.stat().st_mtime_ns, file.stat().st_size)
    return None


@lru_cache(maxsize=512)
def _parsed(file: Path, changed: int, size: int) -> ast.Module:
    return ast.parse(file.read_bytes())


def described(entry: Entry, cache: Path) -> dict[str, Any]:
    """What `describe` says of a plugin. Kept in a file of the folder `cache`, from which it is read while no source of
    the arena or of the plugin's distribution is touched; else the plugin is imported. Raises as `describe`."""
    file, state = cache / f"{entry.kind}-{entry.id}.json", _state(entry)
    found = kept(file, state)
    if found is None:
        found = describe(entry)
        keep(file, state, found)
    return found


def _state(entry: Entry) -> str:
    """A digest of when which source was last changed, and of what reads it."""
    parts = [sys.version, version("pydantic"), repr(entry.point), repr(entry.origin)]
    for path in sorted(path for package in entry.packages for path in _sources(package)):
        with suppress(OSError):
            about = path.stat()
            parts.append(f"{path} {about.st_mtime_ns} {about.st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sources(package: str) -> Iterator[Path]:
    """The Python files of a top-level package."""
    file = locate(package)
    if file is not None:
        yield from file.parent.rglob("*.py") if file.name == "__init__.py" else (file,)
