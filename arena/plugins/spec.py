"""A plugin as something that runs: what a plan writes down of it, and what a worker makes it from again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from arena.errors import ChangedSource
from arena.plugins.base import ModelSource, Plugin
from arena.plugins.identity import CanonicalJson, canonical_json
from arena.plugins.registry import Kind, Registry, installed

if TYPE_CHECKING:
    from arena.lvlm.base import LVLM

_PARSING = threading.Lock()
"""CPython 3.11 fails when two threads build syntax trees at a time (python/cpython issue 106905)."""


@dataclass(frozen=True)
class PluginSpec:
    """A plugin with its settings, by what identifies it (`asked`) and by what its results depend on (`made_by`)."""

    kind: Kind
    id: str
    version: str
    config: Mapping[str, Any]
    """The settings that are part of what is asked, as JSON values."""
    runtime: Mapping[str, Any]
    """The other settings."""
    fingerprint: str | None
    source: str = field(repr=False)
    """Digest of the source."""
    packages: Mapping[str, str]
    """Versions of the distributions that it names."""
    named: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Files and folders that the settings name, of those that were given: its own defaults grant a plugin nothing."""
    packs: bool = field(default=False, repr=False, compare=False)
    """Of a recipe: whether its trainings may be packed."""

    @cached_property
    def asked(self) -> dict[str, Any]:
        """What the plugin is, whatever code that is."""
        return {"id": self.id, "version": self.version, "config": self.config, "fingerprint": self.fingerprint}

    @cached_property
    def asked_json(self) -> CanonicalJson:
        """The same as canonical JSON, for the names of very many stages."""
        return canonical_json(self.asked)

    @cached_property
    def made_by(self) -> dict[str, Any]:
        """What an artifact depends on."""
        return {**self.asked, "source": self.source, "packages": self.packages}

    def check_source(self, registry: Registry) -> None:
        """Raises `ChangedSource` if the plugin's source is not what the spec was made from; imports nothing of it."""
        with _PARSING:
            source = registry.get(self.kind, self.id).source_digest()
        if source != self.source:
            raise ChangedSource(
                f"{self.kind} {self.id!r}: its source here is not the source that the plan was made from; run again "
                "once files have stopped changing, and install the same packages on every worker"
            )

    def create(self) -> Plugin:
        """The plugin. Raises `ChangedSource` if its fingerprint is not what the spec was made from."""
        plugin = installed().create(self.kind, self.id, {**self.config, **self.runtime})
        if (found := plugin.fingerprint()) != self.fingerprint:
            raise ChangedSource(
                f"{self.kind} {self.id!r}: its weights or files here are {found!r} and were {self.fingerprint!r} when "
                "the plan was made; run again once files have stopped changing"
            )
        return plugin


def load_model(spec: PluginSpec) -> LVLM:
    """The LVLM of a model's spec, freshly loaded."""
    return cast(ModelSource, spec.create()).load()
