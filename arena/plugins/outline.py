"""What plugins say of themselves, without importing them: some take seconds for their libraries."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arena.plugins.kept import keep, kept
from arena.plugins.registry import Entry, describe
from arena.plugins.source import locate


def about(entry: Entry) -> str:
    """The first line of the class's docstring, or ``broken: `` and why it cannot be used, as far as its source shows
    that; what an import would raise is not among it.

    A class that is not written down where its entry point says, because it comes from another module or is made by
    code, is imported.
    """
    if entry.defect is not None:
        return f"broken: {entry.defect}"
    cls = _class(entry)
    if cls is not None:
        doc: str | None = ast.get_docstring(cls)
    elif (problem := entry.problem()) is not None:
        return f"broken: {problem}"
    else:
        doc = entry.load().__doc__
    return next(iter((doc or "").strip().splitlines()), "")


def _class(entry: Entry) -> ast.ClassDef | None:
    """The syntax tree of an entry's class."""
    file = locate(entry.point.module)
    if file is not None and file.suffix == ".py":
        with suppress(OSError, SyntaxError, ValueError):
            for node in ast.parse(file.read_bytes()).body:
                if isinstance(node, ast.ClassDef) and node.name == entry.point.attr:
                    return node
    return None


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
