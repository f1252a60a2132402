"""The page ``stage.md``: the bars of tasks and attacks, what was measured of them, and what was published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arena.lvlm.zoo.card import LEAST, MOST_LOST, WHY, shipped_scores
from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells, Place
from arena.score.statistics import FAILED, NO_CONTROL, Estimate
from leaderboards.pages import EvidencePage, SuiteRecords
from leaderboards.pages.attacks import Arena, arenas
from leaderboards.site.numbers import Value, column, points
from leaderboards.site.origin import origin
from leaderboards.site.render import fill
from leaderboards.tables.collect import Group, collect
from leaderboards.tables.fitness import CostBar, bars
from leaderboards.tables.rows import estimate_row, where

NOT_YET = "not measured yet"


@dataclass(frozen=True)
class Held:
    """One bar, or one attack that has none, and what was measured: accuracy of `what` is no attack, else its cost."""

    what: str
    least: float | None
    most: float | None
    measured: Estimate
    accuracy: Estimate
    why: str = ""

    @property
    def bar(self) -> str:
        """The bar in words."""
        if self.most is None:
            return "none"
        if self.least is None:
            return f"at most {100 * self.most:.0f} points"
        return f"{100 * self.least:.0f} to {100 * self.most:.0f} %"

    @property
    def shown(self) -> Value:
        """What is held against the bar."""
        return points(estimate_row("n", self.measured), "n", signed=self.least is None)

    @property
    def verdict(self) -> str:
        """Whether the bar is met, by the estimate; and whether the interval holds both."""
        value = self.measured.value
        if value is None:
            return self.measured.undefined or NOT_YET
        if self.most is None:
            return "no bar"
        over = round(value, 9) - self.most
        under = 0.0 if self.least is None else self.least - round(value, 9)
        low, high = self.measured.low, self.measured.high
        ends = [end for end in (self.least, self.most) if end is not None]
        close = low is not None and high is not None and any(low < end < high for end in ends)
        doubt = ", and the interval holds the bar" if close else ""
        if max(over, under) <= 0:
            return f"met{doubt}"
        return f"missed by {100 * max(over, under):.1f} points{doubt}{': ' if self.why else ''}{self.why}"


@dataclass(frozen=True)
class Task:
    """One dataset, model and recipe: its bars, how many are met, and the model before fine-tuning."""

    title: str
    held: list[Held]
    zero_shot: Estimate

    @property
    def tally(self) -> str:
        """How many bars are met, missed, and not measured."""
        with_bar = [one for one in self.held if one.most is not None]
        met = sum(one.verdict.startswith("met") for one in with_bar)
        missed = sum(one.verdict.startswith("missed") for one in with_bar)
        left = len(with_bar) - met - missed
        return f"{met} of {len(with_bar)} bars met, {missed} missed" + (f", {left} {NOT_YET}" if left else "")


class StagePage(EvidencePage):
    """The bars of the models before fine-tuning, as their cards state them; those of `leaderboards/bars.yaml`, what the
    controls of the suite `stage` reach, and for each bar that is missed why; where the suite `attacks` was run, the
    contrasts that were published.

    Of records that are not complete it shows what is there.
    """

    suites = ("stage",)
    optional = ("attacks",)
    of_parts = True

    def make(self, records: SuiteRecords, findings: object) -> str:
        own = records["stage"]
        found = arenas(records["attacks"]) if "attacks" in records else []
        return fill(
            "stage.md.j2",
            origin=origin(["stage", *self.optional] if found else ["stage"], own),
            models=bars().models,
            base=list(_base()),
            known=WHY.values(),
            tasks=list(tasks(own)),
            contrasts=[arena for arena in found if arena.verdicts()],
            said=said,
            points=lambda estimate: points(estimate_row("n", estimate), "n"),
        )


def _base() -> Iterator[list[str]]:
    """A row for each bar of the models before fine-tuning: what is asked, the bar, and each model's number."""
    cards = shipped_scores()
    scores = [cards[model] for model in bars().models]
    for kind in scores[0].kinds:
        reached = [one.kinds[kind] for one in scores]
        yield [f"questions: {kind}", f"at least {100 * LEAST:.0f} %", *(_said(x, x >= LEAST) for x in reached)]
    for name, most in MOST_LOST.items():
        lost = [one.lost[name] for one in scores]
        yield [f"lost: {name}", f"at most {100 * most:.0f} points", *(_said(x, x <= most) for x in lost)]


def _said(share: float, met: bool) -> str:
    return f"{100 * share:.1f}" + ("" if met else ", missed")


def tasks(records: Sequence[Record]) -> Iterator[Task]:
    """Every task of the records, by dataset, model and recipe."""
    for group in collect(records):
        cells = Cells(group.bits, group.zero_shot.unpack() if group.zero_shot else None)
        for recipe in dict.fromkeys(place.recipe for place in group.records if place.defense == CLEAN):
            held = list(_held(group, cells, recipe))
            yield Task(f"{group.model} on {group.dataset}, {recipe}", held, cells.zero_shot)


def _held(group: Group, cells: Cells, recipe: str) -> Iterator[Held]:
    band, judged = bars().accuracy, next(iter(group)).model.id in bars().models
    bare = cells.find(CLEAN, CLEAN, recipe, 0.0)
    clean = cells.accuracy(bare, NOT_YET)
    least, most = (band.least, band.most) if judged else (None, None)
    yield Held("no attack", least, most, clean, clean)
    there = [p for p in group.records if p[:2] != (CLEAN, CLEAN) and (p.defense, p.recipe) == (CLEAN, recipe)]
    own = {place: next((b for b in bars().costs if b.is_of(_asked(group, place))), None) for place in there}
    for bar in bars().costs if judged else ():
        places: list[Place | None] = [place for place in there if own[place] == bar] or [None]
        for place in places:
            name = bar.name if place is None else column(where(group, place))
            why = "" if place is None else bar.why.get(_asked(group, place).recipe.id, "")
            yield _cost(cells, bare, place, name, bar, why)
    for place in there:
        if own[place] is None or not judged:
            yield _cost(cells, bare, place, column(where(group, place)))


def _asked(group: Group, place: Place) -> Record:
    return next(iter(group.records[place].values()))


def _cost(
    cells: Cells, bare: Place | None, place: Place | None, name: str, bar: CostBar | None = None, why: str = ""
) -> Held:
    done = place if place is not None and cells.bits[place] else None
    missing = NO_CONTROL if bare is None else NOT_YET if place is None else FAILED
    cost, accuracy = cells.difference(bare, done, missing), cells.accuracy(done, NOT_YET)
    return Held(name, None, bar.most if bar else None, cost, accuracy, why)


def said(arena: Arena) -> list[list[object]]:
    """The published contrasts of an arena as rows of a table."""
    return [
        [v.claim.attack, v.claim.defense, v.claim.source, points(v.row, "restored", signed=True), v.words]
        for v in arena.verdicts()
    ]
