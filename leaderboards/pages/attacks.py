"""The page ``attacks.md``: what the attacks of one suite cost on clean data, and what they leave of each protection."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arena.controls import ALONE
from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells
from arena.score.statistics import CONFIDENCE, NO_BASELINE, NO_PROTECTION, holm
from leaderboards.pages import EvidencePage, SuiteRecords
from leaderboards.site.findings import Figure, Figures, filled
from leaderboards.site.numbers import (
    Row,
    budget_of,
    budget_text,
    column,
    knowledge,
    meaning_heads,
    meanings,
    points,
    rows_of,
    share,
)
from leaderboards.site.origin import origin
from leaderboards.site.render import fill
from leaderboards.tables.board import Board, build
from leaderboards.tables.collect import collect
from leaderboards.tables.rows import estimate_row, where


@dataclass(frozen=True)
class Claim:
    """What was published about an attack on a protection: that it restores accuracy, or that it does not."""

    attack: str
    defense: str
    restores: bool
    source: str


PUBLISHED = {
    "em": (
        20.8,
        {"grayscale": 92.0, "jpeg": 80.7, "ueraser": 93.6, "diffpure": 75.6, "adv-train": 82.5, "vae": 88.8}
        | {"eclipse": 82.1, "le-jcdp": 90.7, "bridgepure": 93.6, "coin": 19.5},
    ),
    "rem": (17.5, {"grayscale": 92.3, "jpeg": 85.4, "ueraser": 92.4, "diffpure": 82.4, "adv-train": 77.5}),
    "tap": (6.3, {"grayscale": 11.0, "jpeg": 84.1, "ueraser": 79.1, "diffpure": 87.8, "adv-train": 79.9}),
    "lsp": (13.1, {"grayscale": 64.7, "jpeg": 80.1, "ueraser": 92.8, "diffpure": 76.9, "adv-train": 81.4}),
    "ar": (11.7, {"grayscale": 35.2, "jpeg": 84.8, "ueraser": 90.1, "diffpure": 88.6, "adv-train": 81.2}),
    "ops": (14.7, {"grayscale": 19.9, "jpeg": 78.5, "ueraser": 78.0, "diffpure": 66.2, "adv-train": 15.0}),
}
"""Accuracy of a ResNet-18 on CIFAR-10 by protection, without attack and under each."""
REASONS = {
    ("grayscale", "em"): "much of the noise is in luminance and stays, and models that were tuned on gray pictures are "
    "asked about pictures in colour"
}
"""Why an attack does here not what was published, where that was looked into."""
_NOTHING = 10
"""Points restored up to which a published attack is held not to restore."""
CLAIMS = (
    *(
        Claim(attack, defense, after - before > _NOTHING, f"CIFAR-10, accuracy {before} to {after}")
        for defense, (before, under) in PUBLISHED.items()
        for attack, after in under.items()
    ),
    *(
        Claim(attack, defense, False, "near no-op against word triggers")
        for attack in ("punct", "case", "whitespace")
        for defense in ("mem", "mmguard-bph", "mmguard-crs")
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A claim met by the cell that tests it; `p` is that of the accuracy restored being zero, corrected for all claims
    that are tested together (Holm)."""

    claim: Claim
    row: Row
    p: float | None

    @property
    def words(self) -> str:
        """Whether the accuracy restored agrees with the claim, and if not, why where that is known."""
        if self.row.get("retention_undefined") == NO_PROTECTION:
            return "cannot be tried: it is not shown that the release protects here"
        if self.p is None:
            return "no interval"
        shown, restored = self.p < 1 - CONFIDENCE, self.row["restored"] > 0
        if self.claim.restores and not shown:
            return "cannot be told"
        if self.claim.restores == (shown and restored):
            return "agrees"
        why = REASONS.get((self.claim.attack, self.claim.defense))
        return f"disagrees: {why}" if why else "disagrees"


@dataclass(frozen=True)
class Arena:
    """One dataset, model, recipe and budget: the cells of the clean control, and those of each protection; and those of
    the attacker's own clean data alone, one for each share of them."""

    title: str
    clean: list[Row]
    alone: list[Row]
    protections: list[list[Row]]
    ranking: list[Row]

    def verdicts(self) -> list[Verdict]:
        """The claims that were tested here."""
        cells = {(r["attack"], r["defense"]): r for rows in self.protections for r in rows}
        found = [(c, cells[c.attack, c.defense]) for c in CLAIMS if (c.attack, c.defense) in cells]
        corrected = holm([row["restored_p"] for _, row in found])
        return [Verdict(claim, row, p) for (claim, row), p in zip(found, corrected, strict=True)]

    @property
    def choosers(self) -> list[str]:
        """Attacks that choose what to do by what the attacker has."""
        return sorted({row["chooser"] for row in self.ranking if row["chooser"]})

    @property
    def unfit(self) -> str | None:
        """Why the task is not ranked."""
        return next((row["unfit"] for row in self.ranking), None)


class AttacksPage(EvidencePage):
    """What each attack costs on clean data, what it leaves of each protection, and which of it agrees with others.

    In its findings, in points, with `defense` and `attack` as the suite labels them:

    - ``accuracy(defense, attack="none")``: accuracy after fine-tuning;
    - ``restored(defense, attack)``: what a fine-tuner gains by the attack, on a release of that defense;
    - ``cost(attack)``: what the attack costs on clean data;
    - ``seeds(defense, attack)``: the lowest and the highest accuracy of a single seed, a list.

    The first three give a list where a name is a list of them. Columns of the suite's board, such as ``model="..."``,
    tell cells apart that share these names.
    """

    suites = ("attacks",)
    optional = ("attacks-more", "autopurify")
    of_parts = True
    findings = Path(__file__).parents[1] / "findings" / "2026-11-attacks.md"

    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        return page([records[suite] for suite in (*self.suites, *self.optional) if suite in records], findings)


def page(suites: Sequence[Sequence[Record]], findings: Path | None) -> str:
    """The page from the records of one suite or several, each compared within itself, with the prose of a file of
    findings, which has the cells of attacks that several suites have from the first."""
    boards = [build(records) for records in suites]
    found = [_cells(board, records) for board, records in zip(boards, suites, strict=True)]
    attacks: set[str] = set()
    cells: list[Row] = []
    for rows in found:
        cells += [row for row in rows if row["attack"] not in attacks]
        attacks |= {row["attack"] for row in rows}
    return fill(
        "attacks.md.j2",
        origin=origin([records[0].suite.id for records in suites], suites[0]),
        findings=_prose(cells, findings),
        arenas=[
            arena
            for board, rows in zip(boards, found, strict=True)
            for arena in _arenas(rows, rows_of(board.ranking), _prefix(board, boards))
        ],
        power=[row | {"suite": _prefix(board, boards)} for board in boards for row in rows_of(board.power)],
        failures=sum(len(board.failures) for board in boards),
        bare=CLEAN,
        column=column,
        knowledge=knowledge,
        meaning_heads=meaning_heads,
        meanings=meanings,
        points=points,
        share=share,
    )


def arenas(records: Sequence[Record]) -> list[Arena]:
    """What the records of one suite say, a dataset, model, recipe and budget at a time."""
    board = build(records)
    return _arenas(_cells(board, records), rows_of(board.ranking))


def _cells(board: Board, records: Sequence[Record]) -> list[Row]:
    restored = _restored(records)
    return [row | restored[_key(row)] for row in rows_of(board.cells)]


def _prefix(board: Board, boards: Sequence[Board]) -> str:
    """What is said before things of a suite that is not the first."""
    return "" if board is boards[0] else f"{board.suite}: "


def _arenas(cells: Sequence[Row], ranking: Sequence[Row], prefix: str = "") -> list[Arena]:
    keys = ("dataset", "model", "recipe")
    found = []
    for place in dict.fromkeys((*(r[k] for k in keys), budget_of(r)) for r in cells if r["defense"] != CLEAN):
        *names, budget = place
        every = [r for r in cells if [r[k] for k in keys] == names]
        here = [r for r in every if r["attack"] != ALONE]
        own = [r for r in here if r["defense"] != CLEAN and budget_of(r) == budget]
        defenses = dict.fromkeys((r["defense"], r["surrogates"]) for r in own)
        found.append(
            Arena(
                prefix + " · ".join([*names, budget_text(*budget)]),
                [r for r in here if r["defense"] == CLEAN],
                [r for r in every if r["defense"] == CLEAN and r["attack"] == ALONE],
                [[r for r in own if (r["defense"], r["surrogates"]) == defense] for defense in defenses],
                [r for r in ranking if [r["dataset"], r["model"]] == names[:2] and budget_of(r) == budget],
            )
        )
    return found


def _prose(cells: Sequence[Row], findings: Path | None) -> str:
    if findings is None:
        return ""
    figures = Figures(cells, 100)

    def seeds(defense: str, attack: str, **more: str) -> list[Figure]:
        return [figures.one(f"seed_{end}", defense=defense, attack=attack, **more) for end in ("lowest", "highest")]

    return filled(
        findings,
        accuracy=figures.function("accuracy", "defense", "attack", attack=CLEAN),
        restored=figures.function("restored", "defense", "attack"),
        cost=figures.function("attack_cost", "attack", defense=CLEAN),
        seeds=seeds,
    )


def _restored(records: Sequence[Record]) -> dict[Hashable, Row]:
    """Columns by cell: accuracy minus that of the same release without attack, paired; and the range over seeds."""
    found: dict[Hashable, Row] = {}
    for group in collect(records):
        cells = Cells(group.bits, None)
        for place in group.records:
            bare = cells.find(place.defense, CLEAN, place.recipe, place.auxiliary)
            difference = cells.difference(place if cells.bits[place] else None, bare, NO_BASELINE)
            seeds = [float(bits.mean()) for bits in cells.bits[place].values()]
            ends = {"seed_lowest": min(seeds, default=None), "seed_highest": max(seeds, default=None)}
            found[_key(where(group, place))] = estimate_row("restored", difference) | ends
    return found


def _key(row: Row) -> Hashable:
    names = ("dataset", "model", "recipe", "attack", "auxiliary", "defense", "surrogates")
    return *(row[name] for name in names), budget_of(row)
