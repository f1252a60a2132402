"""A digest of the source that something runs: a module and every first-party module that it imports, statically.

Comments, formatting and docstrings do not count, nor which Python reads the source: what is digested is the syntax tree
in a form of its own, in which what one version writes and another leaves out (empty lists, parameters of types, the
cuts of an f-string) is the same. Imports for type checkers alone are not followed, imports inside functions are. A
package's ``__init__`` counts where something is taken from it, not where it is only on the way to a submodule. Imports
by computed names are not seen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from arena.errors import ArenaError

ENGINE = ("arena.engine.plan", "arena.engine.worker", "arena.engine.harvest")
"""What says which stages a cell has, computes them, and makes a record of them; with all that these import they are the
engine, which has a digest as a plugin has."""


def engine_digest() -> str:
    """SHA-256 (hex) of the engine: `ENGINE` and every module of `arena` that is imported there."""
    return _total(_engine())


@cache
def _engine() -> dict[str, str]:
    return {name: digest for root in ENGINE for name, digest in _closure(root, frozenset({"arena"})).items()}


@cache
def source_digest(module: str, first_party: frozenset[str]) -> str:
    """SHA-256 (hex) over `module` and its static import closure within the top-level packages `first_party`; what
    belongs to the engine is left out, which has a digest of its own.

    Raises `ArenaError` if the module has no source or does not parse.
    """
    if locate(module) is None:
        raise ArenaError(f"module {module!r} has no source file to digest: reinstall the package that declares it")
    return _total({name: d for name, d in _closure(module, first_party).items() if name not in _engine()})


@cache
def _closure(module: str, first_party: frozenset[str]) -> dict[str, str]:
    """The digest of each module by its name."""
    parts: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in parts or name.partition(".")[0] not in first_party or locate(name) is None:
            continue
        parts[name], imported = _read(name)
        waiting.extend(imported)
    return parts


def _total(parts: Mapping[str, str]) -> str:
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


def locate(name: str) -> Path | None:
    """The file of a module, which is not imported; None where there is none."""
    spec = _spec(name)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def imported(module: str, first_party: frozenset[str]) -> list[str]:
    """The modules within the packages `first_party` that a module imports, also inside its functions; read from its
    source. Raises as `source_digest`."""
    return [n for n in _read(module)[1] if n.partition(".")[0] in first_party and locate(n) is not None]


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """The digest of one module's code, and the modules it imports."""
    path = locate(name)
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
    return hashlib.sha256(repr(canonical(tree)).encode()).hexdigest(), imported


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in (getattr(node.test, "id", ""), getattr(node.test, "attr", "")):
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


_UNSEEN = frozenset({"ctx", "type_comment", "type_ignores", "kind"})
"""Fields of a syntax tree that say nothing of what runs, or that follow from the rest."""


def canonical(node: Any) -> Any:
    """A syntax tree as nested tuples, the same under every Python that can read the source.

    Nodes are their name and their fields by name, without those that are empty; statements that are a bare string
    (docstrings of modules, classes, functions and attributes) are left out.
    """
    if isinstance(node, ast.JoinedStr):
        return "JoinedStr", *map(canonical, _pieces(node.values))
    if isinstance(node, ast.Constant):
        return "Constant", type(node.value).__name__, repr(node.value)
    if isinstance(node, ast.AST):
        fields = ((name, canonical(getattr(node, name, None))) for name in sorted(node._fields) if name not in _UNSEEN)
        return type(node).__name__, *((name, value) for name, value in fields if value not in (None, ()))
    if isinstance(node, list):
        return tuple(canonical(each) for each in node if not _is_docstring(each))
    return node


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _pieces(values: Iterable[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, neighbouring texts as one."""
    pieces: list[ast.expr] = []
    for value in values:
        last = pieces[-1] if pieces else None
        if isinstance(value, ast.Constant) and isinstance(last, ast.Constant):
            pieces[-1] = ast.Constant(str(last.value) + str(value.value))
        elif not isinstance(value, ast.Constant) or value.value != "":
            pieces.append(value)
    return pieces
