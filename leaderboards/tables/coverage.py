"""Which cells an entry of a board must have before anything is said of it that depends on all of them.

A protection is as strong as the attack that hurts it most, and an attack that failed on it, or was not run on it, may
be that one. So what depends on all attacks is withheld where a cell failed or has no record.

An attack that somebody submitted against some entries is asked for of these alone: it can lower their numbers, and the
others are neither withheld nor better for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from arena.controls import ALONE
from arena.score.attacked import Attacked, Robust
from arena.score.cells import CLEAN, Place
from arena.score.statistics import Estimate
from leaderboards.tables.collect import Budget, Group, counted

WITHHELD = "withheld: "
"""How the reason begins why a number is not stated that could be computed from the cells that are there."""

NO_ATTACK = "no attack tried"


class Choice(NamedTuple):
    """What an attacker can choose: attack, recipe, and clean data of their own as a share of the training size."""

    attack: str
    recipe: str
    auxiliary: float


class Coverage:
    """The choices of the attackers of one contest, and what each entry lacks of them.

    Where the cells that were asked for are known, the choices under a budget are what was asked of its entries; else
    what any of its entries or the clean control has a record of. Each must be there for every seed of the contest.
    `levels` are the shares of clean data that attackers have at most, rising. Attacks that are `left_out`, each with a
    recipe, are nobody's choice.
    """

    def __init__(self, group: Group, left_out: Collection[tuple[str, str]] = frozenset()) -> None:
        self._left_out = left_out
        asked = {seed for cells in group.asked.values() for seed in cells}
        self.seeds = sorted(asked.union(group.seeds))
        self._done: dict[Hashable, dict[Choice, dict[int, bool]]] = defaultdict(lambda: defaultdict(dict))
        for place, records in group.records.items():
            seeds = self._done[place.defense][_choice(place)]
            for seed, record in records.items():
                seeds[seed] = seeds.get(seed, False) or record.outcome is not None
        known: Iterable[Place] = group.asked or [place for place in group.records if place not in group.submitted]
        wanted = [place for place in known if place.attack != ALONE]  # which is no choice of an attacker
        self._submitted: dict[Hashable, set[Choice]] = defaultdict(set)
        for place in group.submitted:
            self._submitted[place.defense].add(_choice(place))
        self.levels = sorted({place.auxiliary for place in wanted})
        self._wanted: dict[Hashable, set[Choice]] = defaultdict(set)
        for place in wanted:
            self._wanted[place.defense].add(_choice(place))
        self._of_budget: dict[Budget, list[Choice]] = {}
        self._clean_counts = not group.asked

    @property
    def defenses(self) -> list[Hashable]:
        """All entries, with those of which nothing has a record."""
        return list(dict.fromkeys((*self._done, *self._wanted)))

    def choices(self, budget: Budget, level: float, defense: Hashable = None) -> list[Choice]:
        """What an attacker with at most `level` clean data can choose from, under a budget: what is asked of all
        entries, and with a `defense` the attacks that were submitted against it."""
        if budget not in self._of_budget:
            own = [of for defense, of in self._wanted.items() if getattr(defense, "budget", None) == budget]
            clean = [self._wanted.get(CLEAN, set())] if self._clean_counts or not own else []
            self._of_budget[budget] = sorted({choice for of in own + clean for choice in of})
        every = self._of_budget[budget]
        if submitted := self._submitted.get(defense):
            every = sorted(submitted.union(every))
        return [choice for choice in every if choice.auxiliary <= level and choice[:2] not in self._left_out]

    def attacked(self, budget: Budget, level: float) -> bool:
        """Whether such an attacker has any attack, on any entry."""
        entries = [None, *(of for of in self._submitted if getattr(of, "budget", None) == budget)]
        return any(choice.attack != CLEAN for of in entries for choice in self.choices(budget, level, of))

    def complete(self, robust: Robust, budget: Budget) -> Robust:
        """The scores of an entry without those that depend on a cell that failed or has no record."""
        choices = self.choices(budget, robust.auxiliary, robust.defense)
        attacked = self.attacked(budget, robust.auxiliary)
        bare = [choice for choice in choices if choice.attack == CLEAN]
        reason = self._lacking_cells(robust.defense, bare, "cell without attack" if attacked else "cell")
        if reason:
            robust = replace(robust, protection=Estimate(undefined=reason))
        if attacked:
            reason = self._lacking_choices(robust.defense, choices)
        if reason:
            robust = robust.withheld(reason)
        return robust

    def shown(self, robust: Robust, budget: Budget) -> Robust:
        """The scores of an entry, without those that are about attacks where the attacker has none."""
        if self.attacked(budget, robust.auxiliary):
            return robust
        choice = robust.worst.choice  # that of the recipe
        return replace(robust, worst=replace(Attacked.without(NO_ATTACK), choice=choice), own=None)

    def _lacking_cells(self, defense: Hashable, choices: Sequence[Choice], noun: str) -> str | None:
        """Why what depends on all these choices is withheld, by cells; None where each is done for every seed."""
        lacking = self._lacking(defense, choices)
        failed, missing = sum(one.failed for one in lacking), sum(one.missing for one in lacking)
        return _said(failed, missing, len(choices) * len(self.seeds), noun, "failed")

    def _lacking_choices(self, defense: Hashable, choices: Sequence[Choice]) -> str | None:
        """The same by choices: one that failed for any seed has failed."""
        noun = "attack" if len({choice.recipe for choice in choices}) == 1 else "pair of attack and recipe"
        lacking = [one for one in self._lacking(defense, choices) if one.failed or one.missing]
        failed = sum(one.failed > 0 for one in lacking)
        said = _said(failed, len(lacking) - failed, len(choices), noun, "failed on it")
        cells = sum(one.failed + one.missing for one in lacking)
        if cells == len(lacking) * len(self.seeds):
            return said
        return f"{said} ({cells} of {counted(len(choices) * len(self.seeds), 'cell')})"

    def _lacking(self, defense: Hashable, choices: Sequence[Choice]) -> list[_Lacking]:
        """Of each choice, how many seeds failed and how many have no record."""
        own = self._done.get(defense, {})
        by_seed = [[own.get(choice, {}).get(seed) for seed in self.seeds] for choice in choices]
        return [_Lacking(done.count(False), done.count(None)) for done in by_seed]


class _Lacking(NamedTuple):
    failed: int
    missing: int


def _said(failed: int, missing: int, total: int, noun: str, how: str) -> str | None:
    """Counts of what failed and of what has no record, of `total`; None where both are zero."""
    of_all = f" of {counted(total, noun)}"
    said = f"{failed}{of_all} {how}" if failed else ""
    if missing:
        have = "has no record" if missing == 1 else "have no record"
        said = f"{said}, {missing} {have}" if said else f"{missing}{of_all} {have}"
    return WITHHELD + said if said else None


def _choice(place: Place) -> Choice:
    """Without attack, the attacker's own data are not used: the same at any share."""
    return Choice(place.attack, place.recipe, 0.0 if place.attack == CLEAN else place.auxiliary)
