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
    from arena.api import board
    from arena.errors import ArenaError, BudgetError, UsageError
    from arena.record import read_records
    from arena.registry import Registry
    from arena.run import RunReport, run
    from arena.store import Store
    from arena.suite import Suite, load_suite

_HOMES = {
    "ArenaError": "errors",
    "BudgetError": "errors",
    "Registry": "registry",
    "RunReport": "run",
    "Store": "store",
    "Suite": "suite",
    "UsageError": "errors",
    "board": "api",
    "load_suite": "suite",
    "read_records": "record",
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
    if name == "run":  # the submodule, which is callable: importing it binds the name, so it has to be both
        return importlib.import_module("arena.run")
    if name not in _HOMES:
        raise AttributeError(f"module 'arena' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"arena.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
