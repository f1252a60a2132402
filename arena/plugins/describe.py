"""Plugins as a plan writes them down: in stage documents, which keys depend on, and in records, with their origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from arena.plugins.base import ModelSource, Plugin
from arena.plugins.registry import Kind, Registry
from arena.store.manifest import content_key
from arena.suites.schema import AttackUse, PluginUse

Document = dict[str, Any]


@runtime_checkable
class Fingerprinted(Protocol):
    """A plugin whose settings name files or a hub id, as a model's do; what identifies their content is part of the
    key."""

    def fingerprint(self) -> str:
        """A digest of the files, or hub id and revision. Loads no torch."""


@dataclass(frozen=True)
class Model:
    """A base model: `document` for stages, `reference` for records."""

    id: str
    family: str
    fingerprint: str
    document: Document
    reference: Document


class Plugins:
    """Makes each plugin of a suite once and describes it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._models: dict[str, Model] = {}
        self._made: dict[str, tuple[Plugin, Document]] = {}

    def plugin(self, kind: Kind, name: str, config: Mapping[str, Any]) -> tuple[Plugin, Document]:
        """The plugin, and what stage documents say of it."""
        known = content_key({"kind": kind, "id": name, "config": config})
        if known not in self._made:
            plugin = self.registry.create(kind, name, dict(config))
            document = {
                "id": name,
                "version": plugin.version,
                "config": plugin.config.model_dump(mode="json"),
                "source": self.registry.get(kind, name).source_digest(),
            }
            if isinstance(plugin, Fingerprinted):
                document["fingerprint"] = plugin.fingerprint()
            self._made[known] = plugin, document
        return self._made[known]

    def reference(self, kind: Kind, use: PluginUse) -> Document:
        """What records say of a plugin."""
        return self._part_reference(kind, use.id, use.config)

    def _part_reference(self, kind: Kind, name: str, config: Mapping[str, Any]) -> Document:
        document = self.plugin(kind, name, config)[1]
        origin = self.registry.get(kind, name).origin
        return {
            **{k: document[k] for k in ("id", "version", "config")},
            "source_digest": document["source"],
            "origin": {"package": origin.package, "version": origin.version},
        }

    def attack_reference(self, use: AttackUse) -> Document:
        """One reference for a whole chain; a single attack's is its own."""
        parts = [self._part_reference("attack", part, config) for part, config in use.parts]
        if len(parts) == 1:
            return parts[0]
        packages = sorted({(p["origin"]["package"], p["origin"]["version"]) for p in parts})
        return {
            "id": use.id,
            "version": "+".join(p["version"] for p in parts),
            "config": {p["id"]: p["config"] for p in parts},
            "source_digest": content_key({"parts": [p["source_digest"] for p in parts]}),
            "origin": {"package": "+".join(p for p, _ in packages), "version": "+".join(v for _, v in packages)},
        }

    def model(self, use: PluginUse) -> Model:
        """The model of a use, its weights identified."""
        known = content_key({"id": use.id, "config": use.config})
        if known not in self._models:
            source, document = self.plugin("model", use.id, use.config)
            fingerprint, family = document["fingerprint"], cast(ModelSource, source).family
            reference = {**self.reference("model", use), "fingerprint": fingerprint, "family": family}
            self._models[known] = Model(use.id, family, fingerprint, document, reference)
        return self._models[known]


def knowledge(target: Model, surrogates: Iterable[Model]) -> str:
    """How near the defender's models are to the fine-tuner's: white-box, gray-box or black-box."""
    surrogates = list(surrogates)
    if any(s.fingerprint == target.fingerprint for s in surrogates):
        return "white-box"
    return "gray-box" if any(s.family == target.family for s in surrogates) else "black-box"
