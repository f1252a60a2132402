"""MMGuard Arena: data protections for vision-language models against the attacks of fine-tuners.

The command line in Python, usable from a notebook::

    import arena

    report = arena.run("leaderboards/suites/quick.yaml")   # computes what is missing, resumes what was interrupted
    board = arena.board(report.records)                     # every score, as pandas tables
    board.ranking

In a script, call `run` below ``if __name__ == "__main__":``, since its workers are processes of their own. Importing
this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arena.engine.execute import RunReport, run
    from arena.errors import ArenaError, BudgetError, UsageError
    from arena.plugins.registry import Registry
    from arena.records.files import read_records
    from arena.store.local import Store
    from arena.suites.schema import Suite, load_suite
    from leaderboards.tables.board import board

_HOMES = {
    "ArenaError": "arena.errors",
    "BudgetError": "arena.errors",
    "Registry": "arena.plugins.registry",
    "RunReport": "arena.engine.execute",
    "Store": "arena.store.local",
    "Suite": "arena.suites.schema",
    "UsageError": "arena.errors",
    "board": "leaderboards.tables.board",
    "load_suite": "arena.suites.schema",
    "read_records": "arena.records.files",
    "run": "arena.engine.execute",
}

__all__ = [
    "ArenaError",
    "BudgetError",
    "Registry",
    "RunReport",
    "Store",
    "Suite",
    "UsageError",
    "board",
    "load_suite",
    "read_records",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'arena' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
