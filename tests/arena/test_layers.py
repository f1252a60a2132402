"""Imports point down only, and what must start quickly loads nothing slow."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("arena", "mmguard", "defenses", "attacks", "leaderboards")

TIERS: list[tuple[str, ...]] = [
    ("arena.cli",),
    ("arena.stress",),
    ("arena.owner", "arena.submissions", "arena.kit"),
    ("arena.engine",),
    ("arena.store", "arena.records"),
    ("arena.suites",),
    ("arena.plugins", "arena.release"),
    ("arena.lvlm", "arena.score"),
    ("arena.data", "arena.budget", "arena.leak", "arena.controls"),
    (
        *("arena.errors", "arena.files", "arena.environment", "arena.hub_commit", "arena.shares"),
        *("arena.text", "arena.paths", "arena.console", "arena.junit", "arena.isolation"),
    ),
]
"""The arena from the top, a package a tier: a module imports its own tier and lower ones. The longest name that fits a
module is its place."""

PLUGINS = (
    *("mmguard", "defenses", "attacks", "arena.recipes"),
    *("arena.lvlm.families", "arena.lvlm.checkpoints", "arena.lvlm.embedding", "arena.lvlm.zoo"),
    *("arena.data.embedded", "arena.data.hub", "arena.data.imagefolder", "arena.data.fingerprint"),
)
"""Packages of plugins, which stand beside the tiers."""

MAY = (
    *("arena.plugins.base", "arena.lvlm", "arena.data", "arena.budget", "arena.release", "arena.errors"),
    # what users name; what fingerprints are made of; exact shares
    *("arena.leak", "arena.files", "arena.paths", "arena.hub_commit", "arena.shares"),
    *PLUGINS,
)
"""What a plugin may import."""

BOARDS_MAY = (
    *("leaderboards", "arena.records", "arena.score", "arena.controls", "arena.plugins.identity"),
    *("arena.errors", "arena.files", "arena.text"),
)
"""What the boards may import."""

EXPLAINED = "`arena explain` draws MMGuard's mechanism, which is made of the formulas of its library"
STATED = "the page of all bars has those of the models that come with the package, which their cards state"
LACKING = "a page that is made of a part of its suite says what of the suite it lacks"
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("leaderboards.pages.protections", "arena.suites.schema"): LACKING,
    ("leaderboards.pages.protections", "arena.suites.shipped"): LACKING,
    ("leaderboards.pages.stage", "arena.lvlm.zoo.card"): STATED,
    ("arena.owner.explain", "mmguard.explain"): EXPLAINED,
    ("arena.owner.explain", "mmguard.objective"): EXPLAINED,
    ("arena.cli.owner", "mmguard.picture"): EXPLAINED,
}
"""Arrows that may point up, with the reason."""


def modules() -> dict[str, Path]:
    """All first-party modules by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def graph(at_start: bool = False) -> dict[str, set[str]]:
    """The first-party modules that each imports, for types alone excepted; `at_start`: when it is imported itself."""
    known = modules()
    return {name: set(imports(path, name, known, at_start)) - {name} for name, path in known.items()}


def imports(path: Path, name: str, known: Mapping[str, Path], at_start: bool) -> Iterator[str]:
    package = name if path.stem == "__init__" else name.rpartition(".")[0]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in node.orelse:
                yield from visit(statement)
            return
        if at_start and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:  # a submodule, or something that the package itself has
                yield f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in known else origin
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from (found for found in visit(ast.parse(path.read_text(encoding="utf-8"))) if found in known)


def within(module: str, parts: Iterable[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def is_plugin(module: str) -> bool:
    return within(module, PLUGINS)


def tier(module: str) -> int:
    found = [(len(part), number) for number, parts in enumerate(TIERS) for part in parts if within(module, (part,))]
    assert found, f"{module} has no place in TIERS: give it one"
    return max(found)[1]


ARENA = [m for m in modules() if within(m, ("arena",)) and m != "arena" and not is_plugin(m)]


@pytest.mark.parametrize("module", ARENA)
def test_imports_point_down(module: str) -> None:
    own = tier(module)
    for imported in graph()[module] - {"arena"}:
        if (module, imported) in EXCEPTIONS:
            continue
        assert not within(imported, ("mmguard", "defenses", "attacks")), f"{module} imports the plugin {imported}"
        if within(imported, ("leaderboards",)):
            assert own <= tier("arena.stress"), f"{module} imports {imported}: only what stands above has boards"
        elif not is_plugin(imported):
            assert tier(imported) >= own, f"{module} imports {imported}, which is above it"
        else:
            assert own < tier("arena.plugins"), f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", [m for m in modules() if is_plugin(m) and m not in PACKAGES])
def test_plugins_see_only_the_lower_arena(module: str) -> None:
    for imported in graph()[module]:
        assert within(imported, MAY) or (module, imported) in EXCEPTIONS, f"plugin module {module} imports {imported}"


@pytest.mark.parametrize("module", [m for m in modules() if within(m, ("leaderboards",))])
def test_leaderboards_see_records_only(module: str) -> None:
    for imported in graph()[module]:
        assert within(imported, BOARDS_MAY) or (module, imported) in EXCEPTIONS, f"{module} imports {imported}"


def test_exceptions_are_needed() -> None:
    for module, imported in EXCEPTIONS:
        assert imported in graph()[module], f"{module} imports {imported} no more: remove the exception"


@pytest.mark.parametrize("at_start", [True, False], ids=["when imported", "when called"])
def test_no_imports_go_round_in_a_circle(at_start: bool) -> None:
    assert circles(graph(at_start)) == []


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in arrows[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            part = [stack.pop()]
            while part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in arrows:
        if node not in order:
            visit(node)
    return sorted(found)


def test_circles_and_arrows_are_found(tmp_path: Path) -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]
    code = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.types\nelse:\n    import a.real\n"
        "def f():\n    from a import late\n    from . import near\nfrom a.b import thing\n"
    )
    (tmp_path / "m.py").write_text(code, encoding="utf-8")
    known = dict.fromkeys(("a", "a.types", "a.real", "a.late", "a.near", "a.b"), tmp_path)
    assert set(imports(tmp_path / "m.py", "a.m", known, False)) == {"a.real", "a.late", "a.near", "a.b"}
    assert set(imports(tmp_path / "m.py", "a.m", known, True)) == {"a.real", "a.b"}


SLOW = {
    "torch",
    "transformers",
    "datasets",
    "distributed",
    "pandas",
    "scipy",
    "skimage",
    "sklearn",
    "kornia",
    "diffusers",
}


@pytest.mark.parametrize(
    "code", ["import arena", "import arena.cli.app", "import arena.plugins.registry", "import arena.store.local"]
)
def test_importing_is_light(code: str) -> None:
    check = f"import sys; {code}; found = {SLOW!r} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_building_a_board_loads_no_torch() -> None:
    code = "import sys, leaderboards.tables.board; assert not {'torch', 'distributed'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from arena.cli.app import main\n"
        "try: main()\n"
        f"finally: found = {SLOW!r} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "plan" in done.stdout
