"""What a cell is: the digest of what was asked, and of nothing that made it.

It is computed from a planned cell and from a record by the same function, over the same fields: for dataset, model,
surrogates, defense, parts of the attack and recipe their id, declared version, settings (`PluginConfig.identity`) and
fingerprint; the budget, the attacker's share of clean data, sizes and seeds. Not in it: suite, labels, source,
packages, Python, order, limits, settings marked `runtime`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, cast

IDENTITY_VERSION = 1
"""Counted up when this function changes; `arena.records.migrate` then renames the cells of records that are kept."""

PROTOCOL_VERSION = 2
"""What training, release, scoring and the drawing of splits do, and the statistics of boards. Counted up when one of
them does otherwise on purpose, which makes every cell another one; ``tests/golden`` pins it. Records of earlier
versions lie in ``leaderboards/records/vN``."""

CONTROL = "none"
"""Id of the defense that changes nothing, which is the same under every budget, and of the attack that does not."""


def identity(cell: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what a cell asks; `cell` holds the fields of a record that are known beforehand, as JSON."""
    dataset, defense = cell["dataset"], cell["defense"]
    return cell_name(
        protocol_version=cell["protocol_version"],
        dataset=asked_of(dataset, SPLITS),
        model=asked_of(cell["model"]),
        defense=asked_of(defense),
        surrogates=[asked_of(surrogate) for surrogate in defense["surrogates"]],
        budget=None if defense["id"] == CONTROL else asked_of_budget(cell["budget"]),
        attack=[asked_of(part) for part in cell["attack"]["parts"]],
        auxiliary=cell["auxiliary"],
        recipe=asked_of(cell["recipe"]),
        seed=cell["seed"],
    )


def cell_name(
    *,
    protocol_version: int,
    dataset: CanonicalJson,
    model: CanonicalJson,
    defense: CanonicalJson,
    surrogates: Sequence[CanonicalJson],
    budget: CanonicalJson | None,
    attack: Sequence[CanonicalJson],
    auxiliary: float,
    recipe: CanonicalJson,
    seed: int,
) -> str:
    """The same, from what is asked of each plugin (`asked_of`), which very many cells have in common."""
    return digest_of(
        {
            "identity_version": IDENTITY_VERSION,
            "protocol_version": protocol_version,
            "dataset": dataset,
            "model": model,
            "defense": defense,
            "surrogates": surrogates,
            "budget": budget,
            "attack": attack,
            "auxiliary": auxiliary,
            "recipe": recipe,
            "seed": seed,
        }
    )


SPLITS = ("train", "auxiliary", "test", "seed")
"""What is asked of a dataset beside what is asked of every plugin."""


def asked_of(reference: Mapping[str, Any], more: Sequence[str] = ()) -> CanonicalJson:
    """What is asked of a plugin, from what a record says of it."""
    return canonical_json({name: reference[name] for name in ("id", "version", "config", "fingerprint", *more)})


def asked_of_budget(budget: Mapping[str, Any]) -> CanonicalJson:
    """What is asked of a budget, from what a record says of it. The rule about answer words is left out where it is
    off, as it is in records from before there was one."""
    rule = "forbid_answer_words"
    return canonical_json({name: value for name, value in budget.items() if name != rule or value})


class CanonicalJson(str):
    """The canonical JSON of a document, which stands for it as a part of others."""


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical JSON of a document."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def canonical_json(document: Mapping[str, Any]) -> CanonicalJson:
    """JSON without spaces, its names in order, in which 8 and 8.0 are the same number. Parts may be `CanonicalJson`
    already."""
    return CanonicalJson(_text(document))


def _text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is CanonicalJson:
        return cast(str, value)
    if kind is int:
        return str(value)
    if value is None:
        return "null"
    if kind is dict or isinstance(value, Mapping):
        return "{" + ",".join([f"{encode_basestring_ascii(name)}:{_text(value[name])}" for name in sorted(value)]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_text(each) for each in value]) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
