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
    ("arena.cli.app",),
    ("arena.cli.owner", "arena.cli.displays", "arena.engine.launch"),
    ("arena.api", "mmguard.picture"),
    ("mmguard.explain",),
    ("arena.owner.protect",),
    ("arena.owner.session",),
    ("arena.engine.execute",),
    ("arena.engine.pools", "arena.engine.progress", "arena.engine.harvest"),
    ("arena.engine.worker",),
    ("arena.engine.job", "arena.engine.plan", "arena.engine.cost", "arena.suites.dry_run"),
    ("arena.engine.graph",),
    ("arena.plugins.describe", "arena.engine.estimate", "arena.owner.report", "arena.owner.originals"),
    ("arena.suites.validation",),
    ("arena.suites.schema",),
    ("arena.plugins.registry",),
    ("leaderboards",),
    ("mmguard", "defenses", "attacks", "arena.recipes", "arena.lvlm.zoo", *MODELS),
    (
        "arena.data.embedded.glyphs",
        "arena.data.embedded.digits",
        "arena.data.imagefolder",
        *(f"arena.data.{name}" for name in FIELD),
    ),
    ("arena.data.hub.base", "arena.data.fingerprint"),
    ("arena.plugins.base", "arena.score", "arena.records.schema", "arena.release"),
    (
        "arena.lvlm",
        "arena.data",
        "arena.budget",
        "arena.store.local",
        "arena.store.manifest",
        "arena.environment",
        "arena.records.bulk",
    ),
    ("arena.plugins.source", "arena.suites.yaml_lines"),
    ("arena.errors",),
]
"""From the top: a module imports its own layer and lower ones; the longest name that fits a module is its place."""

PLUGINS = ("mmguard", "defenses", "attacks", "arena.recipes", *MODELS, "arena.data")
MAY = ("arena.plugins.base", "arena.lvlm", "arena.data", "arena.budget", "arena.errors", "arena.release", *PLUGINS)


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
        assert within(
            imported, ("leaderboards", "arena.records.schema", "arena.records.bulk", "arena.score", "arena.errors")
        ), imported


NOT_THE_ENGINE = ("arena.lvlm.zoo", "mmguard.explain")
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
