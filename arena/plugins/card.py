"""What a plugin says of itself, found out in a process of its own: planning a run executes no plugin's code in the
process that judges what plugins make."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from arena.errors import ArenaError, UnresolvedRevision, UsageError, describe_error
from arena.isolation.call import Lost, run
from arena.isolation.leftovers import remove
from arena.isolation.server import Call, Limits
from arena.isolation.surroundings import for_network, hub_cache, hub_home, named
from arena.paths import cache_directory
from arena.plugins.base import Attack, Dataset, ModelSource, Recipe
from arena.plugins.kept import keep, kept, read_json
from arena.plugins.registry import FIRST_PARTY, OURS, Kind, Registry, installed
from arena.text import printable

_SECONDS, _MEMORY, _WRITTEN = 300.0, 8 * 10**9, 10**9
"""What describing a plugin may take: seconds, bytes of memory, bytes of files."""
_SAID = "said.json"


class BrokenPlugin(ArenaError):
    """A plugin that cannot even be described: its cells fail, and no others."""


@dataclass(frozen=True)
class Card:
    """What plans and records need of a plugin with its settings; all of it is data."""

    version: str
    needs: frozenset[str]
    packages: tuple[str, ...]
    config: Mapping[str, Any]
    """The settings that are part of what is asked, as JSON values."""
    runtime: Mapping[str, Any]
    """The other settings, pinned to what the fingerprint is of."""
    fingerprint: str | None
    convention: str = ""
    """Of a dataset, as the next."""
    measures: tuple[str, ...] = ()
    fits: bool = False
    """Of an attack, as the next five."""
    purifies: bool = False
    rewrites: bool = False
    trains: bool = False
    chooses: bool = False
    in_domain: str = ""
    family: str = ""
    """Of a model."""
    packs: bool = False
    """Of a recipe."""
    unresolved: tuple[str, str, str] | None = None
    """What is wrong, hub id and revision, where its commit could not be found out."""

    @classmethod
    def here(cls, registry: Registry, kind: Kind, id: str, config: Mapping[str, Any]) -> Card:
        """The card of a plugin that is made in this process. Raises whatever the plugin raises."""
        plugin = registry.create(kind, id, dict(config))
        unresolved = None
        try:
            fingerprint, pinned = plugin.fingerprint(), plugin.pinned()
        except UnresolvedRevision as error:
            fingerprint, pinned, unresolved = f"{error.id}@{error.revision}", {}, (str(error), error.id, error.revision)
        facts: dict[str, Any] = {}
        if isinstance(plugin, Dataset):
            facts = {"convention": plugin.convention, "measures": tuple(plugin.measures)}
        elif isinstance(plugin, Attack):
            facts = {"fits": bool(plugin.fits), "purifies": bool(plugin.purifies), "trains": bool(plugin.trains)}
            facts |= {"rewrites": bool(plugin.rewrites), "chooses": bool(plugin.chooses)}
            facts |= {"in_domain": str(plugin.in_domain)}
        elif isinstance(plugin, ModelSource):
            facts = {"family": plugin.family}
        elif isinstance(plugin, Recipe):
            facts = {"packs": bool(plugin.packs)}
        return cls(
            plugin.version,
            frozenset(plugin.needs),
            tuple(plugin.packages),
            plugin.config.identity(),
            {**plugin.config.runtime(), **pinned},
            fingerprint,
            unresolved=unresolved,
            **facts,
        )

    @classmethod
    def apart(cls, registry: Registry, kind: Kind, id: str, config: Mapping[str, Any]) -> Card:
        """The same, made in a process of its own, once for each registry.

        Raises `UsageError` as `Registry.configure` does, `BrokenPlugin` where the plugin raises, ends its process or
        does not come to an end.
        """
        known = (kind, id, json.dumps(config, sort_keys=True, default=str))
        if known not in registry.cards:
            try:
                registry.cards[known] = _looked_up(registry, kind, id, config)
            except BrokenPlugin as error:
                registry.cards[known] = error
        card = registry.cards[known]
        if isinstance(card, BrokenPlugin):
            raise BrokenPlugin(*card.args)
        assert isinstance(card, Card)
        return card


def _looked_up(registry: Registry, kind: Kind, id: str, config: Mapping[str, Any]) -> Card:
    """The card as it was written down before, where nothing can have changed it since, else as the plugin says.

    Those of the project's own plugins follow from source, settings, and what reads them, unless these name files or a
    checkpoint of the hub, which the fingerprint is of; plugins of others may look at whatever they like.
    """
    entry = registry.get(kind, id)
    if entry.point.module.partition(".")[0] not in FIRST_PARTY or entry.origin.package != OURS:
        return _asked(registry, kind, id, config)
    asked = json.dumps(config, sort_keys=True, default=str)
    said_there = (field.name for field in fields(Card))
    reads = (sys.version, version("pydantic"), *entry.origin, entry.source_digest(), *said_there, asked)
    state = hashlib.sha256("\n".join(reads).encode()).hexdigest()
    name = hashlib.sha256(asked.encode()).hexdigest()[:16]
    file = cache_directory() / "cards" / f"{kind}-{id}-{name}.json"
    if (said := kept(file, state)) is not None:
        with suppress(BrokenPlugin):
            return _card(said, f"{kind} {id!r}")
    card = _asked(registry, kind, id, config)
    if card.fingerprint is None:
        keep(file, state, {**asdict(card), "needs": sorted(card.needs)})
    return card


def _asked(registry: Registry, kind: Kind, id: str, config: Mapping[str, Any]) -> Card:
    entry = registry.get(kind, id)
    module = entry.point.module
    home = Path(tempfile.mkdtemp(prefix="arena-card-"))
    try:
        call = Call(
            "arena.plugins.card:describe",
            (kind, id, dict(config), home),
            home,
            (*named(config), hub_home(), hub_cache()),
            network=True,
            preload=(module,) if module.partition(".")[0] in FIRST_PARTY else (),
            limits=Limits(_SECONDS, _MEMORY, _WRITTEN),
            filled=(home,),
            environment=for_network(),
        )
        try:
            end = run(call)
        except Lost:  # once more, with a server of its own
            end = run(call)
        said = read_json(home / _SAID)
        where = f"{kind} {id!r} of package {entry.origin}"
        if end.reason is not None or end.code != 0 or said is None:
            late = end.lived >= _SECONDS
            how = f"it was still at it after {_SECONDS:g} s" if late else f"its process left with {end.how}"
            if end.reason in ("memory", "output"):
                limit = _MEMORY if end.reason == "memory" else _WRITTEN
                how = f"it took more than {limit / 1e9:g} GB of {end.reason}"
            printed = printable(end.printed.strip()[-500:])
            raise BrokenPlugin(f"{where} cannot be described: {how}" + (f" ({printed})" if printed else ""))
        return _card(said, where)
    finally:
        remove(home)


def describe(kind: Kind, id: str, config: Mapping[str, Any], home: Path, tell: Callable[[float, str], None]) -> None:
    """Write the card of a plugin, or what is wrong with it, into `home`; called in a process of its own."""
    said: dict[str, Any]
    try:
        card = Card.here(installed(), kind, id, config)
        said = {**asdict(card), "needs": sorted(card.needs)}
        text = json.dumps(said, allow_nan=False)
    except UsageError as error:
        text = json.dumps({"usage": str(error)})
    except BaseException as error:
        text = json.dumps({"broken": describe_error(error)})
    (home / _SAID).write_text(text, encoding="utf-8")


def _card(said: Mapping[str, Any], where: str) -> Card:
    if "usage" in said:
        raise UsageError(str(said["usage"]))
    if "broken" in said:
        raise BrokenPlugin(f"{where} cannot be described: {said['broken']}")
    try:
        return TypeAdapter(Card).validate_python(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise BrokenPlugin(f"{where} cannot be described: its {name}: {first['msg']}") from None
