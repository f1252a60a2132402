"""Rankings as a board's pages show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leaderboards.site.headline import choice
from leaderboards.site.numbers import DASH, Row, Value, knowledge, points, share
from leaderboards.tables.collect import counted

WORST_CASE = "worst case (oracle)"
"""What is left where the attack is chosen on test labels, which no attacker has."""


@dataclass(frozen=True)
class Whisker:
    """A point and its interval on an axis from 0 to 100, with the place of zero."""

    low: float
    point: float
    high: float
    zero: float


@dataclass(frozen=True)
class Rank:
    """One row of a ranking; `first` where a new rank group starts."""

    group: str
    first: bool
    defense: str
    knowledge: str
    robust: Value
    whisker: Whisker | None
    worst: Value
    regret: Value
    attack: str
    accuracy: Value
    protection: Value
    retention: Value
    psnr: str
    seeds: int


@dataclass(frozen=True)
class Ranking:
    """Defenses against an attacker with a given share of clean data, best first; `chooser` is the attack that chooses
    what to do, where there is one: without it the worst case is what is ranked by."""

    caption: str
    chooser: str | None
    rows: list[Rank]

    @property
    def title(self) -> str:
        """What is ranked by."""
        return WORST_CASE if self.chooser is None else f"robust protection ({self.chooser})"


@dataclass(frozen=True)
class BareRank:
    """One row of a ranking without attacks; `first` where a new rank group starts."""

    group: str
    first: bool
    defense: str
    knowledge: str
    protection: Value
    whisker: Whisker | None
    recipe: str
    psnr: str
    seeds: int


@dataclass(frozen=True)
class BareRanking:
    """Defenses where no attack was tried, best first; `recipes` where the fine-tuner chooses among several."""

    caption: str
    recipes: bool
    rows: list[BareRank]


def ranking(rows: Sequence[Row], authors: Mapping[str, str]) -> Ranking:
    axis = _axis(rows, "robust_protection")
    several = rows[0]["recipes"] > 1
    asked = min(row["choices"] for row in rows)
    choices = counted(asked, "pair of attack and recipe" if several else "attack")
    if any(row["choices"] > asked for row in rows):
        choices += ", and on some entries also among attacks that were submitted against these"
    ranks = [
        Rank(
            group=group,
            first=first,
            defense=row["defense"],
            knowledge=knowledge(row),
            robust=share(row, "robust_protection"),
            whisker=_whisker(row, "robust_protection", *axis),
            worst=share(row, "worst_case_protection"),
            regret=_unless_withheld(points(row, "regret")),
            attack=choice(row, authors),
            accuracy=_unless_withheld(points(row, "robust_accuracy")),
            protection=share(row, "protection"),
            retention=_unless_withheld(share(row, "robust_retention")),
            psnr=_psnr(row),
            seeds=row["seeds"],
        )
        for row, (group, first) in zip(rows, _groups(rows), strict=True)
    ]
    chooser = next((row["chooser"] for row in rows if row["chooser"]), None)
    caption = f"The attacker has {_data(rows[0])} and chooses among {choices}. {_said_of_groups(rows)}"
    return Ranking(caption, chooser, ranks)


def bare(rows: Sequence[Row], attacked: bool) -> BareRanking:
    """A ranking without attacks; `attacked` where attackers with more data have some."""
    axis = _axis(rows, "protection")
    recipes = rows[0]["recipes"]
    ranks = [
        BareRank(
            group=group,
            first=first,
            defense=row["defense"],
            knowledge=knowledge(row),
            protection=share(row, "protection"),
            whisker=_whisker(row, "protection", *axis),
            recipe=row["best_recipe"] or DASH,
            psnr=_psnr(row),
            seeds=row["seeds"],
        )
        for row, (group, first) in zip(rows, _groups(rows), strict=True)
    ]
    nobody = f"An attacker with {_data(rows[0])} has no attack here" if attacked else "No attack was tried"
    best = f", with the best of {recipes} recipes" if recipes > 1 else ""
    said = f"{nobody}: the fine-tuner trains on the release as it is{best}. {_said_of_groups(rows)}"
    return BareRanking(said, recipes > 1, ranks)


def _data(row: Row) -> str:
    own = "no clean data of their own"
    if row["auxiliary"]:
        own = f"clean data for at most {100 * row['auxiliary']:g} % of the training size"
    return f"attacks made with clean data of this kind, {own}" if row["in_domain"] else own


def _said_of_groups(rows: Sequence[Row]) -> str:
    if rows[0]["unfit"]:
        return "The task is unfit, so nothing is ranked."
    return "Equal group numbers cannot be told apart."


def _groups(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """The rank group of each row, and whether it is the first of it."""
    groups = [None if row["group"] is None else int(row["group"]) for row in rows]
    before = [None, *groups[:-1]]
    return [(DASH if g is None else str(g), g != b) for g, b in zip(groups, before, strict=True)]


def _psnr(row: Row) -> str:
    return DASH if row.get("stealth_psnr") is None else f"{row['stealth_psnr']:.1f}"


def _unless_withheld(value: Value) -> Value:
    """The value; a dash where it is withheld, for the reason that stands beside it."""
    return Value(DASH, undefined=True) if value.withheld else value


def _axis(rows: Sequence[Row], name: str) -> tuple[float, float]:
    ends = [row[f"{name}{end}"] for row in rows for end in ("", "_low", "_high")]
    known = [end for end in ends if end is not None]
    return min([0.0, *known]), max([1.0, *known])


def _whisker(row: Row, name: str, start: float, end: float) -> Whisker | None:
    values = [row[f"{name}{suffix}"] for suffix in ("_low", "", "_high")]
    if None in values:
        return None
    low, point, high, zero = (round(100 * (value - start) / (end - start), 2) for value in (*values, 0.0))
    return Whisker(low, point, high, zero)
