"""The page ``protections.md``: what each protection takes without an attack, and what of it its control takes too."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from arena.controls import ANSWER_WORD, CONTROLS, RANDOM, RANDOM_WORDS
from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells, Place
from arena.score.statistics import CONFIDENCE, FAILED, NO_CONTROL, NO_SEEDS, Answers, Estimate, holm
from arena.suites.schema import Suite
from arena.suites.shipped import find_suite
from leaderboards.pages import EvidencePage, SuiteRecords
from leaderboards.pages.attacks import PUBLISHED, arenas
from leaderboards.pages.mmguard import Arm
from leaderboards.pages.stage import said
from leaderboards.site.findings import Figures, filled
from leaderboards.site.numbers import DASH, budget_text, points, share
from leaderboards.site.origin import origin
from leaderboards.site.render import fill
from leaderboards.tables.adaptive import Pair, pairs
from leaderboards.tables.collect import Group, Protection, collect, counted
from leaderboards.tables.credit import answer_word, random_noise, random_words
from leaderboards.tables.fitness import Fitness
from leaderboards.tables.rows import estimate_row

CIFAR = 94.7
"""Accuracy of a ResNet-18 on clean CIFAR-10 where `PUBLISHED` was measured."""


@dataclass(frozen=True)
class Claim:
    """What was published of a protection: that it takes accuracy, or that it takes none, and where. `taken` is the
    share of the clean accuracy that it took there; None where that is not comparable or not known here."""

    protects: bool
    source: str
    taken: float | None = None


CLAIMS = {
    RANDOM: Claim(False, "noise of the same size protects nothing"),
    RANDOM_WORDS: Claim(False, "words about nothing protect nothing"),
    ANSWER_WORD: Claim(True, "the cheapest shortcut there is"),
    **{
        defense: Claim(True, f"CIFAR-10, accuracy {CIFAR} to {left}", 1 - left / CIFAR)
        for defense, (left, _) in PUBLISHED.items()
    },
    "em-class": Claim(True, "Huang 2021"),
    "sem": Claim(True, "Liu 2024"),
    "hypo": Claim(True, "Tao 2021"),
    "ntga": Claim(True, "Yuan 2021"),
    "tue": Claim(True, "Ren 2023"),
    "uc": Claim(True, "Zhang 2023"),
    "bait": Claim(True, "Li 2026"),
    "vtg": Claim(True, "Li 2025"),
    "cuda": Claim(True, "CIFAR-10, accuracy of 25.5 left"),
    "t2ue": Claim(True, "arXiv 2508.03091"),
    "text-em": Claim(True, "Li 2023"),
    "regtext": Claim(True, "arXiv 2411.08506"),
    "pil": Claim(True, "arXiv 2601.19967"),
    "dune": Claim(True, "arXiv 2605.01718"),
    "mi-ue": Claim(True, "arXiv 2603.03725"),
    "mem": Claim(True, "Liu 2024b"),
    "mmguard-bph": Claim(True, "arXiv 2605.14291: drop of 5.0 points"),
    "mmguard-crs": Claim(True, "arXiv 2605.14291: drop of 4.9 points"),
}
"""By the id of the defense. `feature-target`, `anti-finetune` and `style-eot` are published for generators of pictures:
nothing is claimed there of what is measured here."""


@dataclass(frozen=True)
class Share:
    """What a defense takes, in three parts, over the seeds that all have that it is computed from.

    `control` is what the control called `name` takes: random words, or random noise where no question changes;
    `spelled` what the answers take beyond that which stand in the questions; `left` the rest. Their sum is the drop.
    """

    name: str
    control: Estimate
    spelled: Estimate
    left: Estimate


@dataclass(frozen=True)
class Line(Arm):
    """One defense on one task; `share` is None of a control, which is credited with nothing."""

    claim: Claim | None = None
    share: Share | None = None

    @property
    def budget(self) -> str:
        """The budget in words, a dash without one."""
        return budget_text(*self.place.defense.budget) if isinstance(self.place.defense, Protection) else DASH

    @property
    def seeds(self) -> int:
        """How many seeds have a result."""
        return len(self.records)

    @property
    def judged(self) -> Estimate:
        """What the claim is about: what is left when the control is credited, of controls the drop."""
        return self.drop if self.share is None else self.share.left


@dataclass(frozen=True)
class Task:
    """One dataset, model and recipe."""

    dataset: str
    model: str
    recipe: str
    items: int
    zero_shot: Estimate
    clean: Estimate
    unfit: str | None
    """Why protections cannot be told apart on it; None where they can, and where no bars are held against it."""
    lines: list[Line]
    lacking: list[str]
    """What the suite asks for and has no result of, or not of every seed, in words."""

    @property
    def title(self) -> str:
        """What it is called."""
        return f"{self.dataset} · {self.model}, {self.recipe}"

    def verdicts(self) -> list[str]:
        """Of every line, whether it agrees with its claim; p values are corrected for all claims of the task."""
        corrected = holm([line.judged.p if line.claim else None for line in self.lines])
        return [self._verdict(line, p) for line, p in zip(self.lines, corrected, strict=True)]

    def _verdict(self, line: Line, p: float | None) -> str:
        if line.claim is None:
            return DASH
        source = line.claim.source
        if line.judged.value is None:
            return f"{line.judged.undefined} ({source})"
        taken = _of(line.drop.value, self.clean.value)
        there = "" if line.claim.taken is None else f", {100 * line.claim.taken:.0f} % there"
        said = f": takes {taken}{there} ({source})"
        if self.unfit:
            return f"cannot be told{said}"
        if p is None:
            return f"no interval{said}"
        shown, above = p < 1 - CONFIDENCE, line.judged.value > 0
        if line.claim.protects:
            return (("agrees" if above else "disagrees") if shown else "cannot be told") + said
        return ("disagrees" if shown and above else "agrees") + said


class ProtectionsPage(EvidencePage):
    """What each protection of the suites takes without an attack, what of that its control takes too, how much it
    shows, what it costs, and whether that agrees with what was published; the contrasts that were published of them
    under attacks, where the suite has these; and what it buys to craft one through purifiers.

    Of records that are not complete it shows what is there, and says what is not. In its findings, with `protection` as
    the tables call it, ``accuracy(protection, dataset=..., model=...)`` is what is left in points, ``drop(...)`` what
    is taken; of the suite `adaptive` ``bought(protection, attack)`` is how much less the one that is crafted through
    purifiers leaves; a list where one of the values is a list.
    """

    suites = ("protections",)
    digits, adaptive = "protections-digits", "adaptive"
    optional = (digits, adaptive)
    of_parts = True
    findings = Path(__file__).parents[1] / "findings" / "2026-11-protections.md"

    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        there = [suite for suite in (*self.suites, *self.optional) if suite in records]
        alone = [suite for suite in there if suite != self.adaptive]
        found = [task for suite in alone for task in tasks(records[suite], find_suite(suite))]
        attacked = arenas(records[self.digits]) if self.digits in records else []
        bought = list(pairs(records.get(self.adaptive, ())))
        return fill(
            "protections.md.j2",
            origin=origin(there, records[there[0]]),
            findings="" if findings is None else filled(findings, **_figures(found, bought)),
            tasks=sorted(found, key=lambda task: task.unfit is not None),
            without=[task for suite in alone for task in _without(records[suite], find_suite(suite))],
            contrasts=[arena for arena in attacked if arena.verdicts()],
            pairs=bought,
            said=said,
            points=_points,
            number=_number,
            percent=lambda share: DASH if share is None else f"{100 * share:.0f} %",
        )


def _figures(found: Sequence[Task], bought: Sequence[Pair]) -> dict[str, Callable[..., object]]:
    """What findings may quote."""
    alone = Figures(
        (
            {"dataset": task.dataset, "model": task.model, "protection": line.label}
            | estimate_row("accuracy", line.accuracy)
            | estimate_row("drop", line.drop)
            for task in found
            for line in task.lines
        ),
        100,
    )
    attacked = Figures(
        (
            {"dataset": pair.dataset, "model": pair.model, "protection": pair.through, "attack": one.attack}
            | estimate_row("bought", one.bought)
            for pair in bought
            for one in pair.attacks
        ),
        100,
    )
    quoted = {name: alone.function(name, "protection") for name in ("accuracy", "drop")}
    return quoted | {"bought": attacked.function("bought", "protection", "attack")}


def tasks(records: Sequence[Record], suite: Suite) -> Iterator[Task]:
    """Every task of the records of a suite, by dataset, model and recipe."""
    for group in collect(records):
        cells = Cells(group.bits, group.zero_shot.unpack() if group.zero_shot else None)
        for recipe in dict.fromkeys(place.recipe for place in group.records if place.attack == CLEAN):
            here = [p for p in group.records if (p.attack, p.recipe) == (CLEAN, recipe)]
            clean = cells.find(CLEAN, CLEAN, recipe, 0.0)
            credit = Credit(group, cells, clean)
            yield Task(
                group.dataset,
                group.model,
                recipe,
                group.items,
                cells.zero_shot,
                cells.accuracy(clean, NO_CONTROL),
                Fitness(group).unfit,
                [credit.line(place) for place in here if cells.bits[place]],
                list(_lacking(group, here, suite)),
            )


class Credit:
    """What the controls of one task are credited with of each protection."""

    def __init__(self, group: Group, cells: Cells, clean: Place | None) -> None:
        self._group, self._cells, self._clean = group, cells, clean
        self._words, self._answers, self._noise = random_words(group), answer_word(group), random_noise(group)

    def line(self, place: Place) -> Line:
        """A defense that has a result."""
        records = [r for r in self._group.records[place].values() if r.outcome is not None]
        drop = self._cells.difference(self._clean, place, NO_CONTROL)
        own = records[0].defense
        line = Line(own.label, place, records, self._cells.accuracy(place, FAILED), drop, CLAIMS.get(own.id))
        if own.id in CONTROLS:
            return line
        words = place.defense in self._words
        share = self._of_words(line) if words else self._of_noise(line)
        return replace(line, share=share)

    def _of_noise(self, line: Line) -> Share:
        control = self._strongest(self._noise, line.place)
        name = _named(RANDOM, control, line.place)
        return self._share(line, name, control, control, 0.0, Estimate(undefined=DASH))

    def _of_words(self, line: Line) -> Share:
        control = self._strongest(self._words, line.place)
        leak = line.mean("stealth", "answer_leak")
        if not leak:
            return self._share(line, RANDOM_WORDS, control, control, 0.0, Estimate(0.0))
        told = self._strongest(self._answers, line.place)
        return self._share(line, f"{RANDOM_WORDS}, {ANSWER_WORD} for {100 * leak:.0f} %", control, told, leak)

    def _share(
        self,
        line: Line,
        name: str,
        control: Place | None,
        told: Place | None,
        leak: float,
        spelled: Estimate | None = None,
    ) -> Share:
        """The parts, where a share `leak` of the samples is credited to the control `told` instead of `control`."""
        cells, clean, place = self._cells, self._clean, line.place
        if clean is None or control is None or told is None:
            nothing = Estimate(undefined=NO_CONTROL if clean is None else f"no control {name}")
            return Share(name, nothing, spelled or nothing, nothing)
        if not (seeds := cells.common(clean, control, told, place)):
            nothing = Estimate(undefined=NO_SEEDS)
            return Share(name, nothing, spelled or nothing, nothing)
        beyond = Answers(leak * cells.minus(control, told, seeds).values, (-leak, leak))
        left = cells.minus(control, place, seeds) - beyond
        return Share(name, cells.paired(clean, control, seeds), spelled or beyond.estimate(), left.estimate())

    def _strongest(self, controls: Mapping[Hashable, Sequence[Hashable]], place: Place) -> Place | None:
        """Of several controls the one that takes most."""
        found = [self._cells.find(control, *place[1:]) for control in controls[place.defense]]
        there = [one for one in found if one is not None]
        return min(there, key=lambda one: self._cells.accuracy(one, FAILED).value or 0.0, default=None)


def _named(name: str, control: Place | None, place: Place) -> str:
    """What to call a control, with its budget for pictures where that is another."""
    own, of = (None if one is None else one.defense for one in (control, place))
    if isinstance(own, Protection) and isinstance(of, Protection) and own.budget[:2] != of.budget[:2]:
        return f"{name} of {budget_text(*own.budget).split(',')[0]}"
    return name


def _without(records: Sequence[Record], suite: Suite) -> Iterator[str]:
    """Tasks of the suite that have no record at all."""
    known = {(record.dataset.id, record.model.id) for record in records}
    for dataset, model in product(suite.datasets, suite.models):
        if (dataset.id, model.id) not in known:
            yield f"{dataset.id} · {model.id}"


def _lacking(group: Group, places: Sequence[Place], suite: Suite) -> Iterator[str]:
    """What has no result of any seed, and what not of all."""
    done: dict[str, int] = {}
    failed: dict[str, int] = {}
    for place in places:
        outcomes = [record.outcome for record in group.records[place].values()]
        label, good = group.any_of(place.defense).defense.label, sum(one is not None for one in outcomes)
        done[label] = min(good, done.get(label, good))
        failed[label] = failed.get(label, 0) + len(outcomes) - good
    wanted = len(suite.seeds)
    labels = list(dict.fromkeys([*(use.label for use in suite.defenses), *done]))
    if missing := [label for label in labels if not done.get(label)]:
        yield f"without a result: {', '.join(missing)}"
    if fewer := [f"{label} ({done[label]})" for label in labels if 0 < done.get(label, 0) < wanted]:
        yield f"of fewer than {counted(wanted, 'seed')}: {', '.join(fewer)}"
    if bad := [f"{label} ({counted(count, 'seed')})" for label, count in failed.items() if count]:
        yield f"failed: {', '.join(bad)}"


def _of(part: float | None, whole: float | None) -> str:
    """A part of the accuracy in percent."""
    if part is None or not whole:
        return "an unknown part of the accuracy"
    return f"{share(estimate_row('part', Estimate(part / whole)), 'part')} of the accuracy"


def _points(estimate: Estimate, signed: bool = False) -> str:
    """A score in points, with its interval."""
    return str(points(estimate_row("score", estimate), "score", signed=signed))


def _number(value: float | None, digits: int = 1) -> str:
    return DASH if value is None else f"{value:.{digits}f}"
