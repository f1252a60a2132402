"""The plugins of a suite, each made once, and what stages and records say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple

from arena.engine.stages.meaning import embeddings
from arena.errors import ArenaError, UnresolvedRevision
from arena.isolation.surroundings import named
from arena.plugins.card import Card
from arena.plugins.registry import Kind, Registry
from arena.plugins.spec import PluginSpec
from arena.records.schema import ModelRef, Origin, PluginRef


class Model(NamedTuple):
    """A model as stages and as records know it."""

    spec: PluginSpec
    reference: ModelRef


class Plugins:
    """Describes each plugin of a suite once.

    With `unresolved` a hub id whose commit cannot be found out stands for itself, which is good for an estimate only;
    else it is an error. With `apart` no plugin runs in this process.
    """

    def __init__(self, registry: Registry, unresolved: bool = False, apart: bool = False) -> None:
        self.registry = registry
        self.unresolved = unresolved
        self.apart = apart
        self._known: dict[str, tuple[Card, PluginSpec]] = {}

    def plugin(self, kind: Kind, id: str, config: Mapping[str, Any]) -> tuple[Card, PluginSpec]:
        """What plans, and what stages know of a plugin. Raises `UnresolvedRevision`, `BrokenPlugin`."""
        known = json.dumps([kind, id, config], sort_keys=True)
        if known not in self._known:
            describe = Card.apart if self.apart else Card.here
            card = describe(self.registry, kind, id, config)
            if card.unresolved is not None and not self.unresolved:
                raise UnresolvedRevision(*card.unresolved)
            spec = PluginSpec(
                kind,
                id,
                card.version,
                card.config,
                card.runtime,
                card.fingerprint,
                self.registry.get(kind, id).source_digest(),
                versions(card.packages),
                tuple(map(str, named(config))),
                card.packs,
            )
            self._known[known] = card, spec
        return self._known[known]

    def reference(self, spec: PluginSpec) -> PluginRef:
        """What records say of a plugin."""
        origin = self.registry.get(spec.kind, spec.id).origin
        return PluginRef(
            id=spec.id,
            version=spec.version,
            config=dict(spec.config),
            runtime=dict(spec.runtime),
            fingerprint=spec.fingerprint,
            source_digest=spec.source,
            origin=Origin(package=origin.package, version=origin.version),
        )

    def model(self, id: str, config: Mapping[str, Any]) -> Model:
        """The model of an id."""
        card, spec = self.plugin("model", id, config)
        return Model(spec, ModelRef.model_validate({**self.reference(spec).model_dump(), "family": card.family}))

    def embedding(self, id: str, revision: str) -> tuple[str, str]:
        """What identifies a sentence embedding, a digest of a folder's files or hub id and commit, and what is wrong
        where that cannot be found out: its stages fail by it, and nothing else does."""
        try:
            return str(embeddings().fingerprint(id, revision)), ""
        except ArenaError as error:
            return f"{id}@{revision}", str(error)


@cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of distributions; those that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def knowledge(target: ModelRef, surrogates: Iterable[ModelRef]) -> Literal["white-box", "gray-box", "black-box"]:
    """How near the defender's models are to the fine-tuner's: white-box, gray-box or black-box."""
    surrogates = list(surrogates)
    if any(s.fingerprint == target.fingerprint for s in surrogates):
        return "white-box"
    return "gray-box" if any(s.family == target.family for s in surrogates) else "black-box"
