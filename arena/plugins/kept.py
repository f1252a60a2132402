"""What takes a while to find out, kept in files of the user's cache for as long as what it follows from is the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from arena.errors import ArenaError
from arena.files import write_atomically

_LARGEST = 2**24
"""Bytes that a file may have."""


def kept(file: Path, state: str) -> dict[str, Any] | None:
    """What `keep` wrote into a file when everything was in that `state`; None where it was not, or is damaged."""
    found = read_json(file)
    if found is None or found.get("state") != state or not isinstance(found.get("about"), dict):
        return None
    about: dict[str, Any] = found["about"]
    return about


def keep(file: Path, state: str, about: Mapping[str, Any]) -> None:
    """Keep a JSON document that follows from `state`. Where it cannot be written nothing is lost but time."""
    with suppress(OSError, ArenaError):
        write_atomically(file, json.dumps({"state": state, "about": about}).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object that somebody else may have written; None for whatever is none, or holds what no record can."""
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            return None
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs have no place in a record
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
