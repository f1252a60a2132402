"""Records of one suite, checked for what must not be mixed and sorted into contests of one dataset and model.

What boards and pages need to know of the shape of a record's references stands here: names, labels, who took part.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from arena.controls import ALONE, CONTROLS
from arena.errors import ArenaError
from arena.records.schema import Asked, AttackRef, DatasetRef, Outcome, PluginRef, Record, SuiteRef
from arena.score.cells import CLEAN, Place
from arena.score.statistics import Bits

Settings = Mapping[str, Any]


IN_DOMAIN = math.inf
"""Stands for the share of clean data of attackers whose attack was made with clean data of the kind that is attacked:
they have more than those with any share of their own."""


class Budget(NamedTuple):
    """`image` in 1/255, or in pixels, under `norm`, `text` in words, and whether these may not be of the answer."""

    norm: str
    image: float
    text: int
    forbid_answer_words: bool = False


class Protection(NamedTuple):
    """A defense as a contest tells it from others."""

    budget: Budget
    label: str
    surrogates: tuple[str, ...]


@dataclass
class Group:
    """All records of one dataset and model: per place and seed the one that counts, done or failed.

    `asked` has the cells that the suite asks for, whether or not there is a record; empty where that is not known.
    `submitted` are the places of attacks that somebody submitted, which are asked for of nobody. `chosen` are those of
    sweeps, see `leaderboards.tables.sweeps`, whose records are also those of other places.
    """

    dataset: str
    model: str
    items: int
    records: dict[Place, dict[int, Record]] = field(default_factory=lambda: defaultdict(dict))
    asked: dict[Place, dict[int, Asked]] = field(default_factory=lambda: defaultdict(dict))
    submitted: set[Place] = field(default_factory=set)
    chosen: set[Place] = field(default_factory=set)

    def __iter__(self) -> Iterator[Record]:
        own = (seeds for place, seeds in self.records.items() if place not in self.chosen)
        return (record for seeds in own for record in seeds.values())

    @cached_property
    def places(self) -> dict[Hashable, list[Place]]:
        """Places by defense."""
        found: dict[Hashable, list[Place]] = defaultdict(list)
        for place in self.records:
            found[place.defense].append(place)
        return found

    def any_of(self, defense: Hashable) -> Asked:
        """A cell of a defense, one that has a record if there is any."""
        cells = self.records[self.places[defense][0]] if defense in self.places else None
        return next(iter((cells or next(c for place, c in self.asked.items() if place.defense == defense)).values()))

    @cached_property
    def declared(self) -> dict[str, AttackRef]:
        """Attacks by label: what was said of each."""
        asked = (cell for seeds in self.asked.values() for cell in seeds.values())
        return {cell.attack.label: cell.attack for cell in (*self, *asked)}

    @cached_property
    def sweeps(self) -> dict[str, dict[str, float]]:
        """The labels of recipes by the name of the choice that they are members of, in the suite's order, each with how
        much worse than the best of them on held-out clean data it may be."""
        found: dict[str, dict[str, float]] = {}
        asked = (cell for seeds in self.asked.values() for cell in seeds.values())
        for cell in (*asked, *self):
            if cell.recipe.sweep is not None:
                found.setdefault(cell.recipe.sweep, {})[cell.recipe.label] = cell.recipe.clean_cost or 0.0
        return found

    @property
    def choosers(self) -> frozenset[str]:
        """Labels of attacks that choose by what the attacker has."""
        return frozenset(label for label, attack in self.declared.items() if attack.chooses)

    @property
    def bits(self) -> dict[Place, dict[int, Bits]]:
        """Correctness of every test item by place and seed, ``(items,)``; without cells that failed."""
        return {
            place: {seed: r.outcome.unpack() for seed, r in sorted(seeds.items()) if r.outcome is not None}
            for place, seeds in self.records.items()
        }

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds of any cell."""
        return sorted({seed for seeds in self.records.values() for seed in seeds})

    @cached_property
    def zero_shot(self) -> Outcome | None:
        """The model before fine-tuning, from the latest record that has it."""
        scored = (r for r in self if r.zero_shot is not None)
        latest = max(scored, key=lambda r: (r.created, r.cell), default=None)
        return None if latest is None else latest.zero_shot


def collect(
    records: Sequence[Record], asked: Sequence[Asked] = (), submitted: Collection[str] = frozenset()
) -> list[Group]:
    """The records in contests, in an order that does not depend on the order of `records`.

    `asked` are all cells that the suite asks for, where that is known; a contest without any record is left out.
    `submitted` are the names of cells with an attack that somebody submitted.

    Raises:
        ArenaError: there is no record, or records are mixed that must not be; the message says which.
    """
    if not records:
        raise ArenaError("board: there are no records: run the suite first")
    _refuse_mixed("schema versions", (("the records", str(r.schema_version)) for r in records))
    _refuse_mixed("protocol versions", (("the records", str(r.protocol_version)) for r in records))
    _refuse_mixed("suite digests", (("the records", r.suite.digest) for r in records))
    datasets = _names([r.dataset for r in (*records, *asked)], _dataset_settings)
    models = _names([r.model for r in (*records, *asked)], lambda model: model.settings)
    named = list(zip(records, datasets, models, strict=False))
    _refuse_mixed(
        "dataset fingerprints", ((dataset, r.dataset.samples or "") for r, dataset, _ in named if r.dataset.samples)
    )
    _refuse_mixed("model fingerprints", ((model, r.model.fingerprint) for r, _, model in named))
    groups: dict[tuple[str, str], Group] = {}
    for record, dataset, model in sorted(named, key=lambda n: (_order(n[0]), n[0].created, n[0].cell)):
        group = groups.setdefault((dataset, model), Group(dataset, model, record.dataset.test))
        seeds = group.records[_place(record)]
        known = seeds.get(record.seed)
        seeds[record.seed] = record if known is None else _newer(known, record)
        if record.cell in submitted:
            group.submitted.add(_place(record))
    for cell, dataset, model in zip(asked, datasets[len(records) :], models[len(records) :], strict=True):
        if (dataset, model) in groups:
            groups[dataset, model].asked[_place(cell)][cell.seed] = cell
    return [groups[names] for names in sorted(groups)]


def suite_of(records: Sequence[Record]) -> SuiteRef:
    """The suite that a board of these records is about."""
    return records[0].suite


def surrogates(record: Asked) -> tuple[str, ...]:
    """What to call the models that the record's protection was crafted on, in their order."""
    return tuple(surrogate.id for surrogate in record.defense.surrogates)


def taking_part(record: Record) -> list[tuple[str, str, PluginRef]]:
    """Every plugin behind the record, as kind, label and reference."""
    return [
        ("dataset", record.dataset.id, record.dataset),
        ("model", record.model.id, record.model),
        ("defense", record.defense.label, record.defense),
        ("attack", record.attack.label, record.attack.whole),
        ("recipe", record.recipe.label, record.recipe),
    ]


def defense_names(records: Sequence[Record]) -> dict[str, str]:
    """What to call each protection, by its label: the same for all sets of surrogates."""
    used = {record.defense.label: record.defense for record in records}
    return dict(zip(used, distinct_names([(d.id, d.settings) for d in used.values()]), strict=True))


def counted(count: int, noun: str) -> str:
    """``1 attack``, ``2 attacks``, ``2 pairs of attack and recipe``, ``2 test items``."""
    first, of, rest = noun.partition(" of " if " of " in noun else " without ")
    return f"{count} {first}{'s' * (count != 1)}{of}{rest}"


def _place(record: Asked) -> Place:
    attack = record.attack.id if record.attack.id in (CLEAN, ALONE) else record.attack.label
    auxiliary = IN_DOMAIN if record.attack.in_domain else record.auxiliary
    if record.defense.id == CLEAN:  # what changes nothing is the same under every budget
        return Place(CLEAN, attack, record.recipe.label, auxiliary)
    budget = _budget(record)
    defense = Protection(budget, record.defense.label, surrogates(record))
    return Place(defense, attack, record.recipe.label, auxiliary)


def _budget(record: Asked) -> Budget:
    b = record.budget
    return Budget(b.norm, b.image, b.text, b.forbid_answer_words)


def _order(record: Record) -> tuple[Any, ...]:
    clean, unattacked = record.defense.id != CLEAN, record.attack.id != CLEAN
    defense = clean, record.defense.id not in CONTROLS, record.defense.label, surrogates(record), *_budget(record)
    return (*defense, unattacked, record.attack.label, record.auxiliary, record.recipe.label, record.seed)


def _newer(known: Record, record: Record) -> Record:
    """Of two records of one cell and seed, in the order of their creation, the one that counts."""
    if record.outcome is None or known.outcome is None:
        return record if known.outcome is None else known
    if record.outcome.correct == known.outcome.correct:
        return record
    what = " x ".join((record.defense.label, record.attack.label, record.recipe.label))
    parts = [f"cell {known.cell[:12]} of {known.created} and cell {record.cell[:12]} of {record.created}"]
    for name in ("dataset", "model", "defense", "attack", "recipe"):
        old, new = (r.model_dump()[name] for r in (known, record))
        parts += [f"{name}.{key}: {old[key]!r} and {new[key]!r}" for key in old if old[key] != new[key]]
    raise ArenaError(
        f"board: two results for {what}, seed {record.seed}, whose outcomes differ ({'; '.join(parts)}): keep the "
        "records of one, or give the plugins different labels in the suite"
    )


def _refuse_mixed(what: str, values: Iterable[tuple[str, str]]) -> None:
    """Raise where one owner has more than one value."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for owner, value in values:
        found[owner][value] += 1
    for owner, counts in sorted(found.items()):
        if len(counts) > 1:
            listed = ", ".join(f"{value} ({counted(count, 'record')})" for value, count in sorted(counts.items()))
            raise ArenaError(f"board: {owner}: mixed {what}: {listed}: keep the records of one of them")


_Reference = TypeVar("_Reference", bound=PluginRef)


def _names(references: Sequence[_Reference], settings: Callable[[_Reference], Settings]) -> list[str]:
    """What to call each of very many plugins, most of which are the same object."""
    once = {id(reference): reference for reference in references}
    names = distinct_names([(reference.id, settings(reference)) for reference in once.values()])
    named = dict(zip(once, names, strict=True))
    return [named[id(reference)] for reference in references]


def _dataset_settings(d: DatasetRef) -> Settings:
    return {**d.settings, "train": d.train, "auxiliary": d.auxiliary, "test": d.test, "seed": d.seed}


def distinct_names(plugins: Sequence[tuple[str, Settings]]) -> list[str]:
    """What to call each plugin: its id, with the settings that tell it from others of that id."""
    keys = [(name, json.dumps(settings, sort_keys=True)) for name, settings in plugins]
    distinct: dict[str, dict[str, Settings]] = defaultdict(dict)
    for (name, key), (_, settings) in zip(keys, plugins, strict=True):
        distinct[name][key] = settings
    names = {}
    for name, all_settings in distinct.items():
        used = {key for settings in all_settings.values() for key in settings}
        differing = [k for k in sorted(used) if len({json.dumps(s.get(k)) for s in all_settings.values()}) > 1]
        for key, settings in all_settings.items():
            shown = ", ".join(f"{k}={settings[k]}" for k in differing if k in settings)
            names[name, key] = f"{name}({shown})" if shown else name
    return [names[key] for key in keys]
