"""What stands for models and published data while a plugin is tried: small random checkpoints, one a family, and what
plugins themselves say in `dry_run`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from arena.engine.describe import Plugins
from arena.errors import ArenaError, describe_error
from arena.plugins.base import Dataset, ModelSource
from arena.plugins.registry import FIRST_PARTY, Entry, Registry
from arena.plugins.spec import PluginSpec
from arena.suites.dry_run import ROWS, _without_bars

FIRST = "llava"
"""The family whose checkpoint stands for a model where one is enough."""


class Models:
    """Checkpoints below a folder, each written when it is first needed."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry, self.folder = registry, folder
        self._settings: dict[str, Mapping[str, Any]] = {}
        self._specs: dict[str, PluginSpec] = {}
        self._described = Plugins(registry, apart=True)

    @cached_property
    def families(self) -> Mapping[str, str]:
        """The id of a model of each family that has a random checkpoint, our own ones alone."""
        found: dict[str, str] = {}
        for entry in self.registry.entries("model"):
            if entry.point.module.partition(".")[0] in FIRST_PARTY:
                source = self.registry.create("model", entry.id)
                if type(source).dry_run is not ModelSource.dry_run:
                    found.setdefault(source.family, entry.id)
        return dict(sorted(found.items(), key=lambda each: (each[0] != FIRST, each[0])))

    def spec(self, family: str = "") -> PluginSpec:
        """The checkpoint of a family, of `FIRST` where none is named."""
        family = family or FIRST
        if family not in self._specs:
            id = self.families[family]
            source = self.registry.create("model", id)
            with _without_bars():
                settings = source.dry_run(self.folder / f"model-{family}", 1)
            assert settings is not None
            self._specs[family] = self._described.plugin("model", id, settings)[1]
        return self._specs[family]

    def recipe(self, id: str) -> PluginSpec:
        """A recipe with the settings of its dry run."""
        small = self.registry.get("recipe", id).load().Config.small()
        return self._described.plugin("recipe", id, small)[1]

    def stand_in(self, entry: Entry, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings under which a model or a dataset needs nothing from elsewhere; none for others, and where it has
        no such. Raises `ArenaError` where the plugin's `dry_run` fails."""
        if entry.kind not in ("model", "dataset"):
            return {}
        source = self.registry.create(entry.kind, entry.id, dict(config))
        place = self.folder / f"{entry.kind}-{entry.id}"
        try:
            with _without_bars():
                if isinstance(source, ModelSource):
                    return source.dry_run(place, 1) or {}
                assert isinstance(source, Dataset)
                return source.dry_run(place, ROWS) or {}
        except Exception as error:
            raise ArenaError(f"its dry_run fails: {describe_error(error)}") from error
