"""Checks of what a plugin says of itself. Each returns what it saw, or raises `Failed`."""

from __future__ import annotations

import inspect

from arena.engine.describe import Plugins
from arena.kit.bench import Bench, Failed
from arena.plugins.card import Card
from arena.plugins.registry import Registry
from arena.records.schema import ModelRef, PluginRef
from arena.score.answers import CONVENTIONS
from arena.score.measures import MEASURES


def documented(bench: Bench) -> str:
    """A docstring, whose first line `arena list` shows, and a version."""
    doc, version = bench.facts["doc"], bench.facts["version"]
    if not (isinstance(doc, str) and doc.strip()):
        raise Failed("its class has no docstring: say in a line what it does, which `arena list` shows", _class(bench))
    if not bench.card.version.strip():
        raise Failed('its version is empty: give one, such as version = "1"', bench.source.line("version"))
    return f"“{inspect.cleandoc(doc).splitlines()[0]}”, version {version}"


def settings(bench: Bench) -> str:
    """Settings have a description, valid defaults, and come back from JSON as they were."""
    described = bench.facts["settings"]
    for each in described:
        if not str(each["description"]).strip():
            raise Failed(
                f"the setting {each['name']!r} has no description: give it one, which `arena show` prints",
                bench.source.line(str(each["name"]), "Config"),
            )
    if problem := bench.facts["config"]:
        raise Failed(str(problem), bench.source.line("Config"))
    return f"{len(described)} settings" if described else "no settings"


def recorded(bench: Bench) -> str:
    """What records say of it reads back, and is the same when another process says it."""
    again = Card.apart(Registry(), bench.kind, bench.entry.id, {**bench.card.config, **bench.card.runtime})
    for name in ("fingerprint", "config", "needs", "packages", "version"):
        one, other = getattr(bench.card, name), getattr(again, name)
        if one != other:
            raise Failed(
                f"its {name} is {_short(one)} in one process and {_short(other)} in another: make it of what the "
                "settings name alone",
                bench.source.line(name, "__init__"),
            )
    plugins = Plugins(bench.registry, apart=True)
    if bench.kind == "model":
        reference: PluginRef = plugins.model(bench.entry.id, {**bench.card.config, **bench.card.runtime}).reference
    else:
        reference = plugins.reference(bench.spec)
    kind = ModelRef if bench.kind == "model" else PluginRef
    if kind.model_validate_json(reference.model_dump_json()) != reference:
        raise Failed("what a record says of it does not read back as it was written", bench.source.line("Config"))
    return f"source {bench.spec.source[:12]}, fingerprint {_short(bench.card.fingerprint)}"


def granted(bench: Bench) -> str:
    """What it needs is what its party can be granted; of a dataset, how it is scored is known."""
    card = bench.card
    foreign = {"defense": "model", "attack": "surrogates"}.get(bench.kind)
    if foreign in card.needs:
        instead = {"model": "surrogates", "surrogates": "model"}[foreign]
        raise Failed(
            f"it declares the need {foreign!r}, which is the other party's: use {instead!r}", bench.source.line("needs")
        )
    known = {"seed", "auxiliary"} if bench.kind in ("defense", "attack") else set[str]()
    known |= {"defense": {"surrogates"}, "attack": {"model", "originals"}}.get(bench.kind, set())
    if strange := sorted(card.needs - known):
        raise Failed(
            f"it declares the need {strange[0]!r}, which no {bench.kind} is granted: leave it out, or choose from "
            f"{', '.join(sorted(known)) or 'nothing'}",
            bench.source.line("needs"),
        )
    if bench.kind == "dataset":
        if card.convention not in CONVENTIONS:
            raise Failed(
                f"its convention {card.convention!r} is unknown: choose from {', '.join(CONVENTIONS)}",
                bench.source.line("convention"),
            )
        if unknown := [name for name in card.measures if name not in MEASURES]:
            raise Failed(
                f"its measure {unknown[0]!r} is unknown: choose from {', '.join(MEASURES)}",
                bench.source.line("measures"),
            )
        return f"scored by {card.convention}"
    return f"needs {', '.join(sorted(card.needs)) or 'nothing'}"


def _class(bench: Bench) -> str:
    return bench.source.line()


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
