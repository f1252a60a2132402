"""Imports point down only, and what must start quickly loads nothing slow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("arena", "mmguard", "defenses", "attacks", "leaderboards")

FIELD = ("realworldqa", "mmstar", "scienceqa", "vqa_rad", "textvqa", "docvqa")
"""Datasets that are read with `datasets`."""

MODELS = ("arena.lvlm.sources", "arena.lvlm.hub", "arena.lvlm.shipped")

LAYERS: list[tuple[str, ...]] = [
    ("arena.cli",),
    ("arena.owner_commands", "arena.displays", "arena.launch"),
    ("arena.api", "arena.picture"),
    ("arena.explain",),
    ("arena.protect",),
    ("arena.session",),
    ("arena.run",),
    ("arena.pool", "arena.progress", "arena.harvest"),
    ("arena.stages",),
    ("arena.job", "arena.plan", "arena.cost", "arena.tiny"),
    ("arena.graph",),
    ("arena.describe", "arena.estimate", "arena.report", "arena.originals"),
    ("arena.validation",),
    ("arena.suite",),
    ("arena.registry",),
    ("leaderboards",),
    ("mmguard", "defenses", "attacks", "arena.recipes", "arena.lvlm.zoo", *MODELS),
    ("arena.data.glyphs", "arena.data.digits", "arena.data.imagefolder", *(f"arena.data.{name}" for name in FIELD)),
    ("arena.data.hub_dataset", "arena.data.fingerprint"),
    ("arena.plugin", "arena.score", "arena.record", "arena.release"),
    ("arena.lvlm", "arena.data", "arena.budget", "arena.store", "arena.manifest", "arena.environment", "arena.bulk"),
    ("arena.source", "arena.yaml_lines"),
    ("arena.errors",),
]
"""From the top: a module imports its own layer and lower ones; the longest name that fits a module is its place."""

PLUGINS = ("mmguard", "defenses", "attacks", "arena.recipes", *MODELS, "arena.data")
MAY = ("arena.plugin", "arena.lvlm", "arena.data", "arena.budget", "arena.errors", "arena.release", *PLUGINS)


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, at_start: bool = False) -> set[str]:
    """First-party modules a file imports, for types only excepted; `at_start`: when it is imported itself."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if at_start and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    known = modules()
    return {name for name in found if name in known} if not at_start else found


def within(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def layer(module: str) -> int:
    found = [(len(part), number) for number, parts in enumerate(LAYERS) for part in parts if within(module, (part,))]
    assert found, f"{module} has no place in LAYERS: give it one"
    return max(found)[1]


@pytest.mark.parametrize("module", [m for m in modules() if m != "arena"])
def test_imports_point_down(module: str) -> None:
    own = layer(module)
    for imported in imports(modules()[module]) - set(PACKAGES):
        assert layer(imported) >= own, f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", [m for m in modules() if within(m, PLUGINS) and m not in PACKAGES])
def test_plugins_see_only_the_lower_arena(module: str) -> None:
    for imported in imports(modules()[module]) - {"arena", "arena.data", "arena.lvlm"}:
        assert within(imported, MAY), f"plugin module {module} imports {imported}"


@pytest.mark.parametrize("module", [m for m in modules() if within(m, ("leaderboards",))])
def test_leaderboards_see_records_only(module: str) -> None:
    for imported in imports(modules()[module]):
        assert within(imported, ("leaderboards", "arena.record", "arena.bulk", "arena.score", "arena.errors")), imported


NOT_THE_ENGINE = ("arena.lvlm.zoo", "arena.explain")
"""The shipped models, and the view of MMGuard's mechanism, which is made of the formulas of the library `mmguard`."""


def test_the_engine_imports_no_plugin() -> None:
    for module, path in modules().items():
        if within(module, ("arena",)) and not within(module, (*PLUGINS, *NOT_THE_ENGINE)):
            named = {m for m in imports(path) if within(m, ("mmguard", "defenses", "attacks"))}
            assert not named, f"{module} imports {named}"


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


@pytest.mark.parametrize("code", ["import arena", "import arena.cli", "import arena.registry", "import arena.store"])
def test_importing_is_light(code: str) -> None:
    check = f"import sys; {code}; found = {SLOW!r} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_building_a_board_loads_no_torch() -> None:
    code = "import sys, leaderboards.board; assert not {'torch', 'distributed'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_is_light() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from arena.cli import main\n"
        "try: main()\n"
        f"finally: found = {SLOW!r} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert "plan" in done.stdout
