"""The page ``mmguard.md``: what two suites measured about MMGuard, and how it compares with what its paper reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells, Place
from arena.score.statistics import CONFIDENCE, NO_BASELINE, Estimate, holm
from leaderboards.pages import EvidencePage, SuiteRecords
from leaderboards.site.findings import Figures, filled
from leaderboards.site.numbers import DASH, Row, points
from leaderboards.site.origin import origin
from leaderboards.site.render import fill
from leaderboards.tables.collect import Group, Protection, collect, surrogates
from leaderboards.tables.rows import estimate_row

BASE = "mmguard-bph"


@dataclass(frozen=True)
class Claim:
    """A sign that the paper reports: `stronger` leaves the fine-tuner less accuracy than `weaker` does.

    The two are labels of one suite, with the image budget where it differs from the page's; `source` says where.
    """

    stronger: str
    weaker: str
    source: str


MAIN_CLAIMS = (
    *(
        Claim(v, CLEAN, "sec. 6: each variant protects")
        for v in (BASE, "mmguard-crs", "mmguard-bph-max", "mmguard-crs-max")
    ),
    Claim(BASE, "mmguard-multimodal", "drop 5.0 against 2.8"),
    Claim("mmguard-crs", "mmguard-multimodal", "drop 4.9 against 2.8"),
    Claim("mmguard-multimodal", "mmguard-image", "drop 2.8 against 2.4"),
    Claim("mmguard-multimodal", "mmguard-text", "drop 2.8 against 2.5"),
    Claim(BASE, "mmguard-image", "drop 5.0 against 2.4"),
    Claim(BASE, "mmguard-text", "drop 5.0 against 2.5"),
    Claim("mmguard-bph-max", BASE, "white-box: 58 against 78 left"),
    Claim("mmguard-crs-max", "mmguard-crs", "white-box: 62 against 73 left"),
)
ABLATION_CLAIMS = (
    Claim(BASE, "Q = 0", "65 against 73 left"),
    Claim(BASE, "K = 3", "the first one or two layers work best"),
    Claim(BASE, "without binding", "66 against 70 left"),
    Claim(BASE, "without trigger", "66 against 69 left"),
    Claim(BASE, "without perturbation", "66 against 72 left"),
    Claim(BASE, "eps_x = 2/255", "64 to 66 against 74 to 78 left"),
    Claim("eps_x = 16/255", "eps_x = 8/255", "46 to 48 against 64 to 66 left"),
)
RIVALS = ("em", "mem", "random", "random-words", "answer-word")
"""What the paper does not compare with."""


@dataclass(frozen=True)
class Arm:
    """One protection in one contest, over its seeds."""

    label: str
    place: Place
    records: Sequence[Record]
    accuracy: Estimate
    drop: Estimate

    def mean(self, part: str, name: str) -> float | None:
        """Mean over seeds of a number of `stealth` or `diagnostics`; None where there is none."""
        values = [(getattr(r, part) or {}).get(name) for r in self.records]
        known = [v for v in values if v is not None]
        return fmean(known) if known else None

    @property
    def knowledge(self) -> str:
        """What the defender knew of the attacker's model; a dash for controls."""
        return self.records[0].knowledge if surrogates(self.records[0]) else DASH

    @property
    def seconds(self) -> float | None:
        """Mean cost of protecting a sample, in seconds."""
        costs = [r.cost.protect.seconds_per_sample for r in self.records if r.cost.protect]
        return fmean(costs) if costs else None

    @property
    def curve(self) -> list[float | None]:
        """The fine-tuner's mean training loss by epoch, in nats; None where a seed's was not finite."""
        by_epoch = zip(*([e.loss for e in r.epochs] for r in self.records), strict=True)
        return [None if None in losses else fmean(x for x in losses if x is not None) for losses in by_epoch]


@dataclass(frozen=True)
class Verdict:
    """A claim met by the data; `p` is that of the difference being zero, corrected for all claims that are tested
    together (Holm)."""

    claim: Claim
    difference: Estimate
    p: float | None

    @property
    def words(self) -> str:
        """Whether the difference agrees with the claim."""
        if self.difference.value is None or self.p is None:
            return self.difference.undefined or "no interval"
        if self.p >= 1 - CONFIDENCE:
            return "cannot be told"
        return "agrees" if self.difference.value > 0 else "disagrees"


class Comparison:
    """The arms of one model at one image budget in 1/255, or at any; the unprotected control is in each."""

    def __init__(self, group: Group, cells: Cells, places: Sequence[Place], image: float | None) -> None:
        self.image = image
        self.title = group.model + ("" if image is None else f", {image:g}/255")
        self.model, self.items, self.seeds = group.model, group.items, len(group.seeds)
        self._cells = cells
        self.zero_shot = cells.zero_shot
        self.clean = next(p for p in group.places[CLEAN])
        self.arms = {_label(p): self._arm(group, p) for p in [self.clean, *places]}
        found = [self._detectable(arm) for arm in self.arms.values() if arm.place != self.clean]
        self.epochs = max(len(arm.curve) for arm in self.arms.values())
        self.power = median(found) if found else None

    def _arm(self, group: Group, place: Place) -> Arm:
        records = [r for r in group.records[place].values() if r.outcome is not None]
        drop = self._cells.difference(self.clean, place, NO_BASELINE)
        return Arm(_label(place), place, records, self._cells.accuracy(place, NO_BASELINE), drop)

    def _detectable(self, arm: Arm) -> float:
        return self._cells.minus(self.clean, arm.place, self._cells.common(self.clean, arm.place)).error.detectable

    def difference(self, stronger: str, weaker: str) -> Estimate:
        """Accuracy left by `weaker` minus that left by `stronger`, paired."""
        left, right = (self.arms[label].place if label in self.arms else None for label in (weaker, stronger))
        return self._cells.difference(left, right, "not run")

    def verdicts(self, claims: Sequence[Claim]) -> list[Verdict]:
        """The claims whose two arms were run here."""
        tested = [c for c in claims if {c.stronger, c.weaker} <= self.arms.keys()]
        found = [self.difference(c.stronger, c.weaker) for c in tested]
        corrected = holm([difference.p for difference in found])
        return [Verdict(*verdict) for verdict in zip(tested, found, corrected, strict=True)]


def comparisons(records: Sequence[Record], split_budgets: bool) -> list[Comparison]:
    """One a model, and where `split_budgets` one a model and image budget."""
    found = []
    for group in collect(records):
        cells = Cells(group.bits, group.zero_shot.unpack() if group.zero_shot else None)
        protections = [p for p in group.records if isinstance(p.defense, Protection) and cells.bits[p]]
        budgets = sorted({p.defense.budget.image for p in protections if isinstance(p.defense, Protection)})
        for budget in budgets if split_budgets else [None]:
            of_budget = [p for p in protections if budget in (None, p.defense.budget.image)]  # type: ignore[attr-defined]
            found.append(Comparison(group, cells, of_budget, budget))
    return found


class MmguardPage(EvidencePage):
    """What two suites measured about MMGuard and its relatives, and how it compares with what its paper reports.

    In its findings, with `arm` as the tables call it:

    - ``accuracy(arm)`` and ``drop(arm)``: in points;
    - ``gap(arm)``: accuracy left beyond that of the variant `BASE`, in points;
    - ``psnr(arm)``, ``perplexity(arm)`` and ``bleu(arm)``: means of the stealth measured;
    - ``eta(arm)`` and ``moved(arm)``: means of the trigger's eta, and of the attention that the trigger moved;
    - ``below_clean(arm)``: the last training loss on clean data divided by that on the release;
    - ``ablations``: whether that suite was run.

    What tells arms of one name apart goes in by name: ``suite`` (``main`` or ``ablations``; unless given the latter for
    `gap`, else the former), ``model``, and ``image``, the budget in 1/255. A list where one of the values is a list.
    """

    suites = ("mmguard",)
    optional = ("mmguard-ablations",)
    findings = Path(__file__).parents[1] / "findings" / "2026-11-mmguard.md"

    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        return page(records["mmguard"], records.get("mmguard-ablations", ()), findings)


def page(main: Sequence[Record], ablations: Sequence[Record], findings: Path | None) -> str:
    """The page from the records of the suites `mmguard` and `mmguard-ablations`, with the prose of a file of findings.

    There may be no ablations.
    """
    variants = comparisons(main, split_budgets=True)
    changes = comparisons(ablations, split_budgets=False) if ablations else []
    return fill(
        "mmguard.md.j2",
        origin=origin(("mmguard", "mmguard-ablations"), main),
        main=variants,
        ablations=changes,
        findings=_prose(variants, changes, findings),
        main_claims=MAIN_CLAIMS,
        ablation_claims=ABLATION_CLAIMS,
        rivals=RIVALS,
        strongest_bound=_strongest_bound([*variants, *changes]),
        base=BASE,
        points=_points,
        number=_number,
        losses=lambda arm: [_number(loss) for loss in arm.curve],
    )


def _strongest_bound(found: Sequence[Comparison]) -> float | None:
    """The largest mean of the bounds of theorem 5.1; None where no protection reports any."""
    names = ("trigger-bound", "perturbation-bound")
    bounds = [arm.mean("diagnostics", name) for one in found for arm in one.arms.values() for name in names]
    return max((bound for bound in bounds if bound is not None), default=None)


def _prose(main: Sequence[Comparison], ablations: Sequence[Comparison], findings: Path | None) -> str:
    if findings is None:
        return ""
    suites = ("main", main), ("ablations", ablations)
    rows = [_quoted(suite, one, arm) for suite, found in suites for one in found for arm in one.arms.values()]
    points, numbers = Figures(rows, 100), Figures(rows)
    plain = {name: numbers.function(name, "arm", suite="main") for name in (*_MEANS, "below_clean")}
    return filled(
        findings,
        accuracy=points.function("accuracy", "arm", suite="main"),
        drop=points.function("drop", "arm", suite="main"),
        gap=points.function("gap", "arm", suite="ablations"),
        ablations=bool(ablations),
        **plain,
    )


_MEANS = {
    "psnr": ("stealth", "psnr"),
    "perplexity": ("stealth", "perplexity_ratio"),
    "bleu": ("stealth", "bleu"),
    "eta": ("diagnostics", "trigger-eta"),
    "moved": ("diagnostics", "trigger-measured"),
}


def _quoted(suite: str, comparison: Comparison, arm: Arm) -> Row:
    """The numbers of an arm by the names that findings call them."""
    row: Row = {"suite": suite, "model": comparison.model, "image": comparison.image, "arm": arm.label}
    row |= estimate_row("accuracy", arm.accuracy) | estimate_row("drop", arm.drop)
    row |= estimate_row("gap", comparison.difference(BASE, arm.label))
    row |= {name: arm.mean(*where) for name, where in _MEANS.items()}
    clean, own = (one.curve[-1] if one.curve else None for one in (comparison.arms[CLEAN], arm))
    return row | {"below_clean": clean / own if clean and own else None}


def _label(place: Place) -> str:
    return place.defense.label if isinstance(place.defense, Protection) else CLEAN


def _points(estimate: Estimate) -> str:
    """A score in points, with its interval."""
    return str(points(estimate_row("score", estimate), "score"))


def _number(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{digits}f}"
