"""What a cell is: the digest of what was asked, and of nothing that made it.

It is computed from a planned cell and from a record by the same function, over the same fields: for dataset, model,
surrogates, defense, parts of the attack and recipe their id, declared version, settings (`PluginConfig.identity`) and
fingerprint; the budget, the attacker's share of clean data, sizes and seeds. Not in it: suite, labels, source,
packages, Python, order, limits, settings marked `runtime`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

IDENTITY_VERSION = 1
"""Counted up when this function changes; `arena.records.migrate` then renames the cells of records that are kept."""

PROTOCOL_VERSION = 1
"""What training, release, scoring and the drawing of splits do. Counted up when one of them does otherwise on purpose,
which makes every cell another one; ``tests/golden`` pins it."""

CONTROL = "none"
"""Id of the defense that changes nothing, which is the same under every budget, and of the attack that does not."""


def identity(cell: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what a cell asks; `cell` holds the fields of a record that are known beforehand, as JSON."""
    dataset, defense = cell["dataset"], cell["defense"]
    asked = {
        "identity_version": IDENTITY_VERSION,
        "protocol_version": cell["protocol_version"],
        "dataset": {**_plugin(dataset), **{name: dataset[name] for name in ("train", "auxiliary", "test", "seed")}},
        "model": _plugin(cell["model"]),
        "defense": _plugin(defense),
        "surrogates": [_plugin(surrogate) for surrogate in defense["surrogates"]],
        "budget": None if defense["id"] == CONTROL else dict(cell["budget"]),
        "attack": [_plugin(part) for part in cell["attack"]["parts"]],
        "auxiliary": cell["auxiliary"],
        "recipe": _plugin(cell["recipe"]),
        "seed": cell["seed"],
    }
    return digest_of(asked)


def _plugin(reference: Mapping[str, Any]) -> dict[str, Any]:
    return {name: reference[name] for name in ("id", "version", "config", "fingerprint")}


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a document, in which 8 and 8.0 are the same number."""
    text = json.dumps(_numbers(document), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _numbers(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or value is None:  # most of what there is
        return value
    if kind is dict:
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    return [_numbers(each) for each in value] if isinstance(value, list | tuple) else value
