"""The plugins of a suite, each made once, and what stages and records say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, NamedTuple, cast

from arena.errors import UnresolvedRevision
from arena.plugins.base import ModelSource, Plugin
from arena.plugins.identity import digest_of
from arena.plugins.registry import Kind, Registry
from arena.plugins.spec import PluginSpec
from arena.records.schema import ModelRef, Origin, PluginRef


class Model(NamedTuple):
    """A model as stages and as records know it."""

    spec: PluginSpec
    reference: ModelRef


class Plugins:
    """Makes each plugin of a suite once and describes it.

    With `unresolved` a hub id whose commit cannot be found out stands for itself, which is good for an estimate only;
    else it is an error.
    """

    def __init__(self, registry: Registry, unresolved: bool = False) -> None:
        self.registry = registry
        self.unresolved = unresolved
        self._made: dict[str, tuple[Plugin, PluginSpec]] = {}

    def plugin(self, kind: Kind, id: str, config: Mapping[str, Any]) -> tuple[Plugin, PluginSpec]:
        """The plugin, and what stages know of it."""
        known = digest_of({"kind": kind, "id": id, "config": config})
        if known not in self._made:
            plugin = self.registry.create(kind, id, dict(config))
            fingerprint, pinned = self._identified(plugin)
            spec = PluginSpec(
                kind,
                id,
                plugin.version,
                plugin.config.identity(),
                {**plugin.config.runtime(), **pinned},
                fingerprint,
                self.registry.get(kind, id).source_digest(),
                versions(plugin.packages),
            )
            self._made[known] = plugin, spec
        return self._made[known]

    def _identified(self, plugin: Plugin) -> tuple[str | None, Mapping[str, Any]]:
        try:
            return plugin.fingerprint(), plugin.pinned()
        except UnresolvedRevision as error:
            if not self.unresolved:
                raise
            return f"{error.id}@{error.revision}", {}

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
        source, spec = self.plugin("model", id, config)
        family = cast(ModelSource, source).family
        return Model(spec, ModelRef.model_validate({**self.reference(spec).model_dump(), "family": family}))


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
