"""The typed, lazy registry of plugins, over Python entry points.

A package declares its plugins in the groups ``mmguard_arena.defenses``, ``.attacks``, ``.recipes``, ``.datasets`` and
``.models``, as ``id = "module:Class"``. Listing them imports none of them.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, NamedTuple, overload

from pydantic import ValidationError

from arena.errors import ArenaError, UsageError
from arena.plugins.base import Attack, Dataset, Defense, ModelSource, Plugin, PluginConfig, Recipe
from arena.plugins.settings import describe_setting
from arena.plugins.source import source_digest

Kind = Literal["defense", "attack", "recipe", "dataset", "model"]

BASES: dict[Kind, type[Plugin]] = {
    "defense": Defense,
    "attack": Attack,
    "recipe": Recipe,
    "dataset": Dataset,
    "model": ModelSource,
}
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FIRST_PARTY = frozenset({"arena", "mmguard", "defenses", "attacks"})
"""Packages whose source counts in every plugin's digest, beside the plugin's own distribution."""
OURS = "mmguard-arena"
"""The distribution that these packages are of."""


class Origin(NamedTuple):
    """The distribution that a plugin comes from."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class Entry:
    """One registered plugin, not yet imported."""

    kind: Kind
    id: str
    point: EntryPoint = field(repr=False)
    defect: str | None = None
    """Why the registry refuses it, known without importing it."""

    @cached_property
    def origin(self) -> Origin:
        """The distribution that declares it."""
        return _origin(self.point)

    def load(self) -> type[Plugin]:
        """Import the plugin's class.

        Raises `UsageError` if the entry is refused or is not a plugin of its kind, `ArenaError` if the import fails.
        """
        if self.defect is not None:
            raise UsageError(self.defect)
        where = f"{self.kind} {self.id!r} of package {self.origin}"
        try:
            plugin = self.point.load()
        except (Exception, SystemExit) as error:
            raise ArenaError(
                f"{where} cannot be imported from {self.point.value!r}: {type(error).__name__}: {error}. "
                f"Repair, reinstall or uninstall {self.origin.package}; the other plugins are not affected"
            ) from error
        base = BASES[self.kind]
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise UsageError(f"{where}: {self.point.value!r} is not a subclass of arena.plugins.base.{base.__name__}")
        if inspect.isabstract(plugin):
            missing = ", ".join(sorted(getattr(plugin, "__abstractmethods__", ())))
            raise UsageError(f"{where}: {self.point.value!r} does not implement {missing}")
        if not (isinstance(plugin.Config, type) and issubclass(plugin.Config, PluginConfig)):
            raise UsageError(f"{where}: its Config is not a subclass of arena.plugins.base.PluginConfig")
        return plugin

    def problem(self) -> str | None:
        """Why the plugin cannot be used, or None; imports it."""
        try:
            self.load()
        except ArenaError as error:
            return str(error)
        return None

    @cached_property
    def packages(self) -> frozenset[str]:
        """The top-level packages whose source counts: the arena's, and those of the plugin's distribution."""
        roots = {self.point.module.partition(".")[0]}
        if self.point.dist is not None:
            roots.update((self.point.dist.read_text("top_level.txt") or "").split())
            roots.update(f.parts[0].removesuffix(".py") for f in self.point.dist.files or () if f.suffix == ".py")
        return FIRST_PARTY | roots

    def source_digest(self) -> str:
        """SHA-256 (hex) of the code behind the plugin, see `arena.plugins.source`; imports nothing."""
        return source_digest(self.point.module, self.packages)


class Registry:
    """The plugins of all installed packages, as they are when it is made."""

    def __init__(self) -> None:
        points = entry_points()
        self._entries = {kind: _discover(kind, points.select(group=f"mmguard_arena.{kind}s")) for kind in BASES}
        self.cards: dict[tuple[str, str, str], object] = {}
        """What plugins said of themselves, see `arena.plugins.card`."""

    def entries(self, kind: Kind) -> list[Entry]:
        """All entries of a kind, refused ones (`Entry.defect`) too, by id; imports no plugin."""
        return list(self._entries[kind].values())

    def get(self, kind: Kind, id: str) -> Entry:
        """The entry of an id; imports no plugin. Raises `UsageError` if it is unknown or refused."""
        entry = self._entries[kind].get(id)
        if entry is None:
            others = [other for other in BASES if id in self._entries[other]]
            hint = f" ({id!r} is the id of: {', '.join(others)})" if others else near_misses(id, self._entries[kind])
            raise UsageError(f"no {kind} is called {id!r}{hint}; `arena list` shows what is installed")
        if entry.defect is not None:
            raise UsageError(entry.defect)
        return entry

    def configure(self, kind: Kind, id: str, config: Mapping[str, Any] | None = None) -> PluginConfig:
        """The plugin's settings, validated and with defaults filled in. Raises `UsageError` in one paragraph."""
        cls = self.get(kind, id).load()
        try:
            return cls.Config.model_validate(dict(config or {}))
        except ValidationError as error:
            problems = "; ".join(_setting_problem(e, cls.Config) for e in error.errors(include_url=False))
            raise UsageError(f"{kind} {id!r}: {problems}. `arena show {id}` lists its settings") from None

    @overload
    def create(self, kind: Literal["defense"], id: str, config: Mapping[str, Any] | None = None) -> Defense: ...
    @overload
    def create(self, kind: Literal["attack"], id: str, config: Mapping[str, Any] | None = None) -> Attack: ...
    @overload
    def create(self, kind: Literal["recipe"], id: str, config: Mapping[str, Any] | None = None) -> Recipe: ...
    @overload
    def create(self, kind: Literal["dataset"], id: str, config: Mapping[str, Any] | None = None) -> Dataset: ...
    @overload
    def create(self, kind: Literal["model"], id: str, config: Mapping[str, Any] | None = None) -> ModelSource: ...
    @overload
    def create(self, kind: Kind, id: str, config: Mapping[str, Any] | None = None) -> Plugin: ...
    def create(self, kind: Kind, id: str, config: Mapping[str, Any] | None = None) -> Plugin:
        """A plugin with its settings. Raises `UsageError` for an unknown id or a bad setting."""
        settings = self.configure(kind, id, config)
        return self.get(kind, id).load()(settings)


@cache
def installed() -> Registry:
    """The registry as it was when first asked for, for processes that end before anything else is installed."""
    return Registry()


def _discover(kind: Kind, points: Iterable[EntryPoint]) -> dict[str, Entry]:
    found: dict[str, list[EntryPoint]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point)
    entries = {}
    for id, claims in sorted(found.items()):
        defect = None
        if len(claims) > 1:
            packages = " and ".join(sorted(str(_origin(point)) for point in claims))
            defect = f"{kind} {id!r} is declared by {packages}: uninstall one of them, or rename its entry point"
        elif not ID.fullmatch(id):
            defect = (
                f"{kind} {id!r} of package {_origin(claims[0])}: an id is made of lower case letters, digits and "
                "hyphens; rename its entry point"
            )
        elif not claims[0].attr:
            defect = (
                f"{kind} {id!r} of package {_origin(claims[0])}: {claims[0].value!r} is not of the form module:Class"
            )
        entries[id] = Entry(kind, id, claims[0], defect)
    return entries


def _origin(point: EntryPoint) -> Origin:
    return Origin(point.dist.name, point.dist.version) if point.dist is not None else Origin("unknown", "unknown")


def near_misses(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'a' or 'b'?`` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _setting_problem(error: Any, config: type[PluginConfig]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    known = config.model_fields.get(name)
    if known is None:
        if error["type"] == "extra_forbidden":
            listed = ", ".join(config.model_fields) or "none"
            return f"there is no setting {name!r}{near_misses(name, config.model_fields)} (its settings: {listed})"
        return str(error["msg"]).removeprefix("Value error, ") if not error["loc"] else f"{name}: {error['msg']}"
    about = describe_setting(name, known)
    allowed = ", ".join(part for part in (about["type"], about["range"], _default(about["default"])) if part)
    if error["type"] == "missing":
        return f"setting {name!r} must be given ({allowed})"
    where = ".".join(map(str, error["loc"]))
    return f"{where} = {error['input']!r} is refused: {error['msg']} (allowed: {allowed})"


def _default(value: str | None) -> str:
    return "" if value is None else f"default {value}"


def describe(entry: Entry) -> dict[str, Any]:
    """What ``arena show`` prints: kind, id, doc, settings, needs, version, origin, digest; imports the plugin."""
    cls = entry.load()
    return {
        "kind": entry.kind,
        "id": entry.id,
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "config": [describe_setting(name, about) for name, about in cls.Config.model_fields.items()],
        "needs": sorted(cls.needs),
        "version": cls.version,
        "origin": {"package": entry.origin.package, "version": entry.origin.version},
        "digest": entry.source_digest(),
    }
