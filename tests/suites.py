"""Suites of toys."""

from __future__ import annotations

from typing import Any

from arena.suites.schema import Suite


def toy_suite(**changes: Any) -> Suite:
    """Two defenses, two attacks and two seeds: eight cells."""
    fields: dict[str, Any] = {
        "id": "toy",
        "models": ["toy-model"],
        "datasets": [{"id": "toy-data", "train": 8, "auxiliary": 4, "test": 6}],
        "defenses": ["none", "toy-noise"],
        "attacks": ["none", "toy-invert"],
        "recipes": ["toy-recipe"],
        "seeds": [0, 1],
    }
    return Suite.model_validate(fields | changes)
