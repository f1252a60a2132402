"""What an audit is of: an entry of a suite, where it meets its controls, and what the records say of that."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from arena.controls import RANDOM
from arena.engine.graph import Cell
from arena.engine.plan import planned_cells
from arena.errors import ArenaError, UsageError
from arena.plugins.identity import CONTROL
from arena.plugins.registry import Registry, near_misses
from arena.records.accept import Standing, current_sources
from arena.records.audits import Place, Seeds
from arena.records.files import read_all, record_files
from arena.records.schema import BudgetRef, Record
from arena.records.select import by_cell
from arena.score.difference import Effect, effect
from arena.suites.parts import AttackUse, DefenseUse
from arena.suites.schema import Combination, Suite
from arena.suites.shipped import find_suite, shipped_suites

_PLACES = 3
"""How many places an audit has where nobody says."""

Kind = Literal["defense", "attack"]


@dataclass(frozen=True)
class Entry:
    """An entry of a suite."""

    kind: Kind
    use: DefenseUse | AttackUse


def find_entry(suite: Suite, name: str) -> Entry:
    """The defense or attack of a label or id. Raises `UsageError` where there is none, or several."""
    every = [*(Entry("defense", use) for use in suite.defenses), *(Entry("attack", use) for use in suite.attacks)]
    found = [e for e in every if e.use.label == name] or [e for e in every if e.use.id == name]
    if not found:
        known = [e.use.label for e in every if e.use.id != CONTROL]
        raise UsageError(
            f"suite {suite.id!r} has no defense or attack {name!r}{near_misses(name, known)} (there are "
            f"{', '.join(known) or 'none but the control'})"
        )
    if any(e.use.id == CONTROL for e in found):
        raise UsageError(f"{name!r} is the control: name a defense or an attack that does something")
    if len(found) > 1:
        listed = ", ".join(f"{e.kind} {e.use.label!r}" for e in found)
        raise UsageError(f"suite {suite.id!r} has several entries {name!r} ({listed}): name one by a label of its own")
    return found[0]


def refuse_known(secret: int, suite: Suite) -> None:
    """Raises `UsageError` for a secret that is a seed of this suite, or of one that comes with the arena."""
    for known in (suite, *map(find_suite, shipped_suites())):
        if secret in (*known.seeds, *(use.seed for use in known.datasets)):
            raise UsageError(
                f"{secret} is a seed of suite {known.id!r} and no secret: give another, or none, to have one drawn"
            )


# Places


@dataclass(frozen=True)
class Spot:
    """Where an effect is measured: two combinations, of which one has `more` right answers where there is an effect.
    One of them is the entry's, or the control's that takes its place."""

    place: Place
    more: Combination
    less: Combination
    role: Literal["entry", "control"] = "entry"

    @property
    def entry(self) -> Combination:
        """The combination that the place is named by; the other lacks the defense or the attack."""
        return self.more if _place(self.more) == self.place else self.less

    @property
    def bare(self) -> Combination:
        """The other one."""
        return self.less if self.entry is self.more else self.more


def places(suite: Suite, entry: Entry) -> Iterator[Spot]:
    """All places of an entry that have a control in the suite: what a defense takes from a fine-tuner under the same
    attack, or what an attack gives back on the same release."""
    combinations = list(suite.combinations())
    for found in combinations:
        if entry.kind == "defense" and found.defense.label == entry.use.label:
            yield from _protected(found, combinations)
        elif entry.kind == "attack" and found.attack.label == entry.use.label:
            bare = _other(found, combinations, attack=CONTROL)
            if bare is not None:
                yield Spot(_place(found), found, bare)


def controls(spot: Spot, kind: Kind, combinations: Sequence[Combination]) -> Iterator[Spot]:
    """What is measured beside a place, without the entry: of a defense what random noise does there, of an attack what
    the defense does without it."""
    other, found = None, spot.entry
    if kind == "attack" and found.defense.id != CONTROL:
        other = _other(found, combinations, attack=CONTROL)
    elif kind == "defense" and found.defense.id != RANDOM:
        other = _other(found, combinations, defense=RANDOM)
    for protected in _protected(other, combinations) if other is not None else ():
        yield replace(protected, role="control")


def choose(open_: Sequence[Spot], kind: Kind, rng: random.Random, count: int | None) -> list[Spot]:
    """Random places. Where nobody says how many, a few: of a defense those without attack first; of an attack that on
    clean data, and some on protections, random noise last."""
    drawn = rng.sample(list(open_), len(open_))
    if count is not None:
        return drawn[:count]
    if kind == "defense":
        return ([s for s in drawn if s.entry.attack.id == CONTROL] or drawn)[:_PLACES]
    clean = [s for s in drawn if s.entry.defense.id == CONTROL]
    others = sorted((s for s in drawn if s not in clean), key=lambda s: s.entry.defense.id == RANDOM)
    return [*clean[:1], *others, *clean[1:]][:_PLACES]


def name_of(found: Combination) -> str:
    """The labels of a combination."""
    parts = (found.dataset, found.model, found.recipe, found.defense, found.attack)
    return " · ".join(use.label for use in parts)


def only(suite: Suite, found: Combination, draw: Seeds | None = None) -> Suite:
    """A suite with one of its combinations alone, over its seeds or, with those of a draw, over these."""
    dataset = found.dataset if draw is None else found.dataset.model_copy(update={"seed": draw.data})
    return suite.model_copy(
        update={
            "datasets": (dataset,),
            "models": (found.model,),
            "recipes": (found.recipe,),
            "defenses": (found.defense.model_copy(update={"budgets": (found.budget,)}),),
            "attacks": (found.attack,),
            "seeds": suite.seeds if draw is None else (draw.cell,),
            "skip": (),
        }
    )


def _protected(found: Combination, combinations: Sequence[Combination]) -> Iterator[Spot]:
    clean = _other(found, combinations, defense=CONTROL)
    if clean is not None:
        yield Spot(_place(found), clean, found)


def _other(
    found: Combination, combinations: Sequence[Combination], defense: str | None = None, attack: str | None = None
) -> Combination | None:
    """The combination that has a defense, or an attack, of another id in place of its own; of the same budget, but for
    a defense that has none of that."""

    def fits(other: Combination) -> bool:
        right_defense = other.defense == found.defense if defense is None else other.defense.id == defense
        right_attack = other.attack == found.attack if attack is None else other.attack.id == attack
        return other[:3] == found[:3] and right_defense and right_attack

    fitting = [other for other in combinations if fits(other)]
    same = [other for other in fitting if other.budget == found.budget]
    return next(iter(same or (fitting if defense is not None else [])), None)


def _place(found: Combination) -> Place:
    return Place(
        dataset=found.dataset.label,
        model=found.model.label,
        recipe=found.recipe.label,
        budget=BudgetRef.model_validate(found.budget.model_dump(mode="json")),
        defense=found.defense.label,
        attack=found.attack.label,
    )


# Results


class Public:
    """What the records say of a suite's combinations."""

    def __init__(self, suite: Suite, registry: Registry, results: Path, isolated: bool) -> None:
        self._suite, self._registry, self._results, self._isolated = suite, registry, results, isolated
        self._found = by_cell(read_all(record_files(results)))
        self._cells: dict[str, list[Cell]] = {}

    def cells(self, found: Combination) -> list[Cell]:
        """The cells of a combination. Raises `ArenaError` where one of its plugins cannot be described."""
        known = repr(found)
        if known not in self._cells:
            self._cells[known] = planned_cells(only(self._suite, found), self._registry, self._isolated)
            if not self._cells[known]:
                raise ArenaError(f"{name_of(found)}: one of these plugins cannot be described: `arena list` says why")
        return self._cells[known]

    def records(self, found: Combination) -> dict[int, Record]:
        """The records that are done, by seed."""
        known = {cell.asked.seed: self._found.get(cell.key) for cell in self.cells(found)}
        return {seed: record for seed, record in known.items() if record is not None and record.status == "done"}

    def effect(self, spot: Spot) -> Effect | None:
        """The effect in the records, over the seeds that both sides have; None with fewer than two."""
        return measured(self.records(spot.more), self.records(spot.less), one_draw=True)

    def decidable(self, spots: Iterable[Spot]) -> tuple[list[Spot], list[str]]:
        """The places with a public result, and what is missing of the others."""
        open_: list[Spot] = []
        missing: dict[str, None] = {}
        for spot in spots:
            if self.effect(spot) is not None:
                open_.append(spot)
            else:
                missing |= dict.fromkeys(
                    f"{len(have)} of {len(self._suite.seeds)} seeds of {name_of(side)} have a record that is done, and "
                    f"two are needed: `arena run {self._suite.id}`"
                    for side in (spot.entry, spot.bare)
                    if len(have := self.records(side)) < 2
                )
        if not open_ and not missing:
            missing["the suite skips what the entry would be compared with, its control `none`: name another suite"] = (
                None
            )
        return open_, list(missing)

    def stale(self, spots: Collection[Spot]) -> list[str]:
        """What is to be said of records that other source made."""
        records = [r for spot in spots for side in (spot.more, spot.less) for r in self.records(side).values()]
        standing, sources = Standing.read(self._results.parent), current_sources(records)
        reasons = [why for record in records if (why := standing.stale(record, sources))]
        return [f"{len(reasons)} of {len(records)} public records are stale: {reasons[0]}"] if reasons else []


def measured(more: dict[int, Record], less: dict[int, Record], one_draw: bool) -> Effect | None:
    """The effect that records have, by seed, over the seeds that are done on both sides; None with fewer than two."""
    bits = [
        (a.unpack(), b.unpack())
        for seed in sorted(more.keys() & less.keys())
        if (a := more[seed].outcome) is not None and (b := less[seed].outcome) is not None
    ]
    return effect([a for a, _ in bits], [b for _, b in bits], one_draw) if len(bits) > 1 else None
