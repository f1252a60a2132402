"""What it buys a protection to be crafted through purifiers: beside the same method without them, attack by attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells, Place
from arena.score.statistics import CONFIDENCE, NO_CONTROL, Estimate, holm
from leaderboards.tables.collect import Group, Protection, collect

PURIFIERS = "purifiers"
"""The setting of a defense that names what it is crafted through."""


@dataclass(frozen=True)
class Bought:
    """One attack: the accuracy that fine-tuning reaches under it on clean data, on the release made `without` purifiers
    and on the one made `through` them, and `bought`, the second minus the third: positive where purifiers help."""

    attack: str
    expected: bool
    """Whether the attack, or a part of it, is among the purifiers."""
    clean: Estimate
    without: Estimate
    through: Estimate
    bought: Estimate


@dataclass(frozen=True)
class Pair:
    """One task and recipe, and two releases of one method that differ in the setting `purifiers` alone, by label."""

    dataset: str
    model: str
    recipe: str
    without: str
    through: str
    purifiers: tuple[str, ...]
    attacks: list[Bought]

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.through}, {self.dataset} · {self.model}, {self.recipe}"

    def verdicts(self) -> list[str]:
        """Of every attack whether purifiers help, at 5 % for the pair as a whole (Holm)."""
        corrected = holm([one.bought.p for one in self.attacks])
        return [_verdict(one.bought, p) for one, p in zip(self.attacks, corrected, strict=True)]


def pairs(records: Sequence[Record]) -> Iterator[Pair]:
    """Every protection with purifiers that has a result, beside the one without, by task and recipe; its attacks are
    those that both have, as the boards sort them."""
    for group in collect(records) if records else []:
        cells = Cells(group.bits, None)
        for recipe in dict.fromkeys(place.recipe for place in group.records):
            for through in group.places:
                if not isinstance(through, Protection) or not (purifiers := _purifiers(group, through)):
                    continue
                without = _without(group, through)
                if without and (attacks := list(_bought(group, cells, recipe, without, through))):
                    names = (recipe, without.label, through.label)
                    yield Pair(group.dataset, group.model, *names, purifiers, attacks)


def _bought(group: Group, cells: Cells, recipe: str, without: Protection, through: Protection) -> Iterator[Bought]:
    purifiers = _purifiers(group, through)
    for place in group.places[through]:
        other = Place(without, *place[1:])
        if place.recipe != recipe or not (cells.bits[place] and cells.bits.get(other)):
            continue
        yield Bought(
            place.attack,
            any(part.id in purifiers for part in group.declared[place.attack].parts),
            cells.accuracy(cells.find(CLEAN, *place[1:]), NO_CONTROL),
            cells.accuracy(other, NO_CONTROL),
            cells.accuracy(place, NO_CONTROL),
            cells.difference(other, place, NO_CONTROL),
        )


def _without(group: Group, through: Protection) -> Protection | None:
    """The same protection without purifiers, under the same budget, of the same surrogates."""
    for one in group.places:
        if not isinstance(one, Protection) or (one.budget, one.surrogates) != (through.budget, through.surrogates):
            continue
        if not _purifiers(group, one) and _but_purifiers(group, one) == _but_purifiers(group, through):
            return one
    return None


def _purifiers(group: Group, defense: Protection) -> tuple[str, ...]:
    found = group.any_of(defense).defense.settings.get(PURIFIERS)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _but_purifiers(group: Group, defense: Protection) -> tuple[str, dict[str, Any]]:
    """What else makes it what it is."""
    own = group.any_of(defense).defense
    return own.id, {key: value for key, value in own.settings.items() if key != PURIFIERS}


def _verdict(bought: Estimate, p: float | None) -> str:
    if bought.value is None:
        return bought.undefined or ""
    if p is None:
        return "no interval"
    if p >= 1 - CONFIDENCE:
        return "cannot be told"
    return "helps" if bought.value > 0 else "harms"
