"""Suites by name: those that come with the arena, and files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from arena.errors import UsageError
from arena.paths import is_file
from arena.plugins.registry import near_misses
from arena.suites.schema import Suite, load_suite
from arena.text import shortened


def find_suite(name: str) -> Suite:
    """A suite by the path of its file, or by the id of a shipped one."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or is_file(path):
        return load_suite(path)
    shipped = shipped_suites()
    if name not in shipped:
        raise UsageError(
            f"no suite is called '{shortened(name, 400)}': shipped are {', '.join(shipped) or 'none'}, and others are "
            f"named by the path of their YAML file{near_misses(name, shipped)}"
        )
    return load_suite(suite_file(name))


def shipped_suites() -> Sequence[str]:
    """Ids of the suites that come with the arena."""
    return sorted(path.stem for path in _suites().glob("*.yaml"))


def _suites() -> Path:
    return Path(str(files("leaderboards"))) / "suites"


def suite_file(id: str) -> Path:
    """The file of a shipped suite."""
    return _suites() / f"{id}.yaml"
