"""A digest of the source that a plugin runs: its module and every first-party module that this imports, statically.

Comments, formatting and docstrings do not count, so that tidying a file keeps cached results. Imports for type
checkers alone are not followed, imports inside functions are. A package's ``__init__`` counts where something is taken
from it, not where it is only on the way to a submodule. Imports by computed names are not seen: a plugin that uses them
counts changes in its `version`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from arena.errors import ArenaError


@cache
def source_digest(module: str, first_party: frozenset[str]) -> str:
    """SHA-256 (hex) over `module` and its static import closure within the top-level packages `first_party`.

    Equal for equal code under one Python version. Raises `ArenaError` if the module has no source or does not parse.
    """
    if _locate(module) is None:
        raise ArenaError(f"module {module!r} has no source file to digest: reinstall the package that declares it")
    parts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in parts or name.partition(".")[0] not in first_party or _locate(name) is None:
            continue
        parts[name], imported = _read(name)
        waiting.extend(imported)
    total = hashlib.sha256()
    for name in sorted(parts):
        total.update(f"{name} {parts[name]}\n".encode())
    return total.hexdigest()


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is. Unlike `importlib.util.find_spec`, parent packages are not imported on the way."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module made at run time, without a spec
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
    return spec


def _locate(name: str) -> Path | None:
    spec = _spec(name)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """The digest of one module's code, and the modules it imports."""
    path = _locate(name)
    assert path is not None
    content = path.read_bytes()
    if path.suffix != ".py":  # an extension module: its bytes are all there is
        return hashlib.sha256(content).hexdigest(), ()
    try:
        tree = ast.parse(content, str(path))
    except (SyntaxError, ValueError) as error:
        raise ArenaError(f"{path} is not valid Python ({error}): repair or reinstall the package") from error
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    imported = tuple(dict.fromkeys(_imports(tree, package)))
    return hashlib.sha256(ast.dump(_WithoutDocstrings().visit(tree)).encode()).hexdigest(), imported


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for statement in node.orelse:
            yield from _imports(statement, package)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        if node.level:
            origin = importlib.util.resolve_name("." * node.level + origin, package)
        for alias in node.names:
            submodule = f"{origin}.{alias.name}"
            yield submodule if alias.name != "*" and _spec(submodule) is not None else origin
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imports(child, package)


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every statement that is a bare string: docstrings of modules, classes, functions and attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node
