"""A suite of toys in which a protection can be real: brightness is the answer, and a shift moves what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from suites import toy_suite

from arena.suites.schema import Suite


def bright_suite(**changes: Any) -> Suite:
    """Three defenses, two attacks and three seeds: at a shift of eight levels a third of the accuracy is lost."""
    fields: dict[str, Any] = {
        "id": "bright",
        "models": [{"id": "toy-model", "config": {"threshold": 200.0}, "label": "toy-model"}],
        "datasets": [{"id": "toy-bright", "train": 24, "auxiliary": 4, "test": 48}],
        "defenses": ["none", "toy-noise"],
        "attacks": ["none", "toy-keep"],
        "seeds": [0, 1, 2],
    }
    return toy_suite(**(fields | changes))


def write_suite(path: Path, **changes: Any) -> Path:
    """The suite as a file; JSON is YAML."""
    suite = bright_suite(**changes).model_dump(mode="json", exclude={"limits", "tiny"}, exclude_none=True)
    path.write_text(json.dumps(suite, indent=1), encoding="utf-8")
    return path
