"""The page ``transfer.md``: what is left of protections on models that their owner did not craft on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from arena.records.schema import Record
from arena.score.cells import CLEAN, Cells, Seeds
from arena.score.statistics import Answers, Estimate, pooled
from leaderboards.pages import EvidencePage, SuiteRecords
from leaderboards.site.findings import Figures, filled
from leaderboards.site.numbers import DASH, Row, budget_of, budget_text, points, rows_of
from leaderboards.site.origin import origin
from leaderboards.site.render import fill
from leaderboards.tables.board import build
from leaderboards.tables.collect import Budget, Group, collect, defense_names, surrogates
from leaderboards.tables.rows import estimate_row, is_control

LEVELS = ("white-box", "gray-box", "black-box")


@dataclass(frozen=True)
class Matrix:
    """One protection: a row for each set of models it was crafted on, a column for each that was fine-tuned.

    A row begins with the names of the models that it stands for.
    """

    name: str
    rows: list[list[str]]


@dataclass(frozen=True)
class Mean:
    """The drop of one protection over all its cells of one level of knowledge."""

    name: str
    surrogates: int
    level: str
    cells: int
    drop: Row


@dataclass(frozen=True)
class Arena:
    """One dataset, recipe and budget on all models."""

    title: str
    models: list[str]
    controls: list[Row]
    matrices: list[Matrix]
    means: list[Mean]


class TransferPage(EvidencePage):
    """What is left on the models that a protection was crafted on, on others of their family, and on other families.

    In its findings, in points, with `protection` as the matrices are titled, and `surrogates` as their rows begin:

    - ``drop(protection, surrogates, model)``: accuracy lost, against fine-tuning on clean data;
    - ``drops(...)``: the same of all cells that have the given values, such as ``knowledge="black-box"``, a list;
    - ``mean_drop(protection, knowledge, surrogates=1)``: the mean over all cells that were crafted on so many models.
    """

    suites = ("transfer",)
    findings = Path(__file__).parents[1] / "findings" / "2026-11-transfer.md"

    def make(self, records: SuiteRecords, findings: Path | None) -> str:
        return page(records["transfer"], findings)


def page(records: Sequence[Record], findings: Path | None) -> str:
    """The page from the records of one suite, with the prose of a file of findings.

    Cells under attack are left to the suite's board.
    """
    board = build(records)
    cells = [row for row in rows_of(board.cells) if row["attack"] == CLEAN]
    contests = [(group, Cells(group.bits, None)) for group in collect(records)]
    names = defense_names(records)
    arenas = []
    for place in dict.fromkeys(
        (r["dataset"], r["recipe"], Budget(*budget_of(r))) for r in cells if r["defense"] != CLEAN
    ):
        dataset, recipe, budget = place
        here = [r for r in cells if (r["dataset"], r["recipe"]) == (dataset, recipe)]
        own = [r for r in here if r["surrogates"] and not r["control"] and budget_of(r) == budget]
        models = list(dict.fromkeys(r["model"] for r in here))
        arenas.append(
            Arena(
                f"{dataset} · {recipe} · {budget_text(*budget)}",
                models,
                [r for r in here if r["defense"] == CLEAN or (r["control"] and budget_of(r) == budget)],
                [
                    Matrix(name, list(_rows([r for r in own if names[r["defense"]] == name], models)))
                    for name in dict.fromkeys(names[r["defense"]] for r in own)
                ],
                list(_means([c for c in contests if c[0].dataset == dataset], names, recipe, budget)),
            )
        )
    return fill(
        "transfer.md.j2",
        origin=origin(TransferPage.suites, records),
        findings=_prose(cells, names, arenas, findings),
        arenas=arenas,
        power=rows_of(board.power),
        failures=len(board.failures),
        points=points,
    )


def _prose(cells: Sequence[Row], names: Mapping[str, str], arenas: Sequence[Arena], findings: Path | None) -> str:
    if findings is None:
        return ""
    drops = Figures([row | {"protection": names.get(row["defense"])} for row in cells if row["surrogates"]], 100)
    means = [
        {"protection": mean.name, "surrogates": mean.surrogates, "knowledge": mean.level, **mean.drop}
        for arena in arenas
        for mean in arena.means
    ]
    return filled(
        findings,
        drop=drops.function("drop", "protection", "surrogates", "model"),
        drops=partial(drops.every, "drop"),
        mean_drop=Figures(means, 100).function("drop", "protection", "knowledge", surrogates=1),
    )


def _rows(rows: Sequence[Row], models: Sequence[str]) -> Iterator[list[str]]:
    for crafted_on in dict.fromkeys(r["surrogates"] for r in rows):
        found = {r["model"]: f"{points(r, 'drop')}, {r['knowledge']}" for r in rows if r["surrogates"] == crafted_on}
        yield [crafted_on, *(found.get(model, DASH) for model in models)]


def _means(
    contests: Sequence[tuple[Group, Cells]], names: Mapping[str, str], recipe: str, budget: Budget
) -> Iterator[Mean]:
    """Means by protection, number of surrogates and knowledge.

    Items and seeds are the same on every model, so that drops may be added item by item.
    """
    drops: dict[tuple[str, int, str], list[tuple[Seeds, Answers]]] = {}
    for group, cells in contests:
        for place, by_seed in group.records.items():
            if not cells.bits[place] or (place.attack, place.recipe) != (CLEAN, recipe):
                continue
            if is_control(group, place.defense):
                continue
            one = next(iter(by_seed.values()))
            clean = cells.find(CLEAN, CLEAN, recipe, place.auxiliary)
            if clean is not None and surrogates(one) and getattr(place.defense, "budget", None) == budget:
                key = names[one.defense.label], len(surrogates(one)), one.knowledge
                if seeds := cells.common(clean, place):
                    drops.setdefault(key, []).append((seeds, cells.minus(clean, place, seeds)))
    for (name, models, level), values in sorted(drops.items(), key=lambda d: (*d[0][:2], LEVELS.index(d[0][2]))):
        yield Mean(name, models, level, len(values), estimate_row("drop", _mean(values)))


def _mean(drops: Sequence[tuple[Seeds, Answers]]) -> Estimate:
    if len({seeds for seeds, _ in drops}) > 1:  # a cell of theirs has failed
        return Estimate(undefined="not the same seeds everywhere")
    return pooled([answers for _, answers in drops]).estimate()
