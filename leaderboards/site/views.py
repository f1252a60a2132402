"""What a board's pages show, in words and formatted numbers; the templates only lay it out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arena.score.cells import CLEAN
from leaderboards.site.listings import Listing, costs, failures, gains, noise, power, stealth, withdrawn
from leaderboards.site.numbers import (
    DASH,
    Row,
    Value,
    budget_of,
    budget_text,
    column,
    knowledge,
    points,
    rows_of,
    share,
    significant,
)

if TYPE_CHECKING:
    from leaderboards.tables.board import Board, Verification
    from leaderboards.tables.rows import Plugin


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
    attack: str
    missing: str
    accuracy: Value
    protection: Value
    retention: Value
    psnr: str
    seeds: int


@dataclass(frozen=True)
class Ranking:
    """Defenses against an attacker with a given share of clean data, best first."""

    caption: str
    rows: list[Rank]


@dataclass(frozen=True)
class Grid:
    """Defenses x attacks under one recipe: `rows` are name, knowledge and one value a column."""

    title: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, str, list[Value]]]


@dataclass(frozen=True)
class Section:
    """One dataset, model and budget."""

    title: str
    headline: str
    rankings: list[Ranking]
    retention: list[Grid]
    accuracy: list[Grid]


@dataclass(frozen=True)
class Page:
    """Everything on a board's page."""

    suite: str
    digest: str
    created: str
    resamples: int
    facts: list[tuple[str, str]]
    notes: tuple[str, ...]
    sections: list[Section]
    gains: Listing
    noise: Listing
    costs: Listing
    stealth: Listing
    failures: Listing
    withdrawn: Listing
    power: list[str]
    verifications: tuple[Verification, ...]
    plugins: tuple[Plugin, ...]
    environment: dict[str, list[str]]


def compose(board: Board) -> Page:
    """The page of a board."""
    cells, ranking = rows_of(board.cells), rows_of(board.ranking)
    return Page(
        suite=board.suite,
        digest=board.digest,
        created=board.created,
        resamples=board.resamples,
        facts=_facts(board, cells),
        notes=board.notes,
        sections=_sections(cells, ranking),
        gains=gains(cells),
        noise=noise(cells),
        costs=costs(cells),
        stealth=stealth(ranking),
        failures=failures(rows_of(board.failures)),
        withdrawn=withdrawn(board.withdrawn),
        power=[power(row) for row in rows_of(board.power)],
        verifications=board.verifications,
        plugins=board.plugins,
        environment=board.environment,
    )


def _facts(board: Board, cells: Sequence[Row]) -> list[tuple[str, str]]:
    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    budgets = sorted({budget_of(row) for row in cells if row["norm"] != "none"})
    return [
        ("Models", distinct(row["model"] for row in cells)),
        ("Datasets", distinct(f"{row['dataset']} ({row['items']} test items)" for row in cells)),
        ("Recipes", distinct(row["recipe"] for row in cells)),
        ("Defenses", distinct(row["defense"] for row in cells)),
        ("Attacks", distinct(row["attack"] for row in cells)),
        ("Budgets", "; ".join(budget_text(*budget) for budget in budgets) or "none"),
        ("Seeds", distinct(sorted({int(row["seeds"]) for row in rows_of(board.power)}))),
        ("Cells", f"{len(cells)}, of which {sum(row['seeds'] == 0 for row in cells)} failed"),
    ]


def _sections(cells: Sequence[Row], ranking: Sequence[Row]) -> list[Section]:
    by_contest: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in cells:
        by_contest[row["dataset"], row["model"]].append(row)
    ranked: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in ranking:
        ranked[row["dataset"], row["model"], budget_of(row)].append(row)
    sections = []
    for (dataset, model, budget), rows in ranked.items():
        order = {(r["defense"], r["surrogates"]): i for i, r in reversed(list(enumerate(rows)))}
        own = [r for r in by_contest[dataset, model] if r["defense"] == CLEAN or budget_of(r) == budget]
        own.sort(key=lambda r: (r["control"], order[r["defense"], r["surrogates"]]))
        levels = {row["auxiliary"]: [r for r in rows if r["auxiliary"] == row["auxiliary"]] for row in rows}
        recipes = dict.fromkeys(row["recipe"] for row in own)
        sections.append(
            Section(
                title=f"{dataset} · {model} · {budget_text(*budget)}",
                headline=_headline(levels[max(levels)]),
                rankings=[_ranking(level, one) for level, one in levels.items()],
                retention=[_retention_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
                accuracy=[_accuracy_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
            )
        )
    return sections


def _headline(rows: Sequence[Row]) -> str:
    entries = [row for row in rows if not row["control"]]
    if not entries:
        return "No protection was entered."
    top = entries[0]
    if top["robust_protection"] is None:
        return f"Nothing can be said about protection: {top['robust_protection_undefined']}."
    left = share(top, "robust_protection")
    against = f"the best attack on it is {_choice(top)}"
    if not significant(top, "robust_protection"):
        return f"No protection is shown to hold: the first, {top['defense']}, leaves {left}; {against}."
    return f"{top['defense']} denies {left} of the gain to an attacker who chooses; {against}."


def _choice(row: Row) -> str:
    if row["best_attack"] is None:
        return DASH
    attack = "no attack" if row["best_attack"] == CLEAN else row["best_attack"]
    return f"{attack}, {row['best_recipe']}"


def _ranking(level: float, rows: Sequence[Row]) -> Ranking:
    data = f"clean data for at most {100 * level:g} % of the training size" if level else "no clean data of their own"
    ends = [row[f"robust_protection{end}"] for row in rows for end in ("", "_low", "_high")]
    known = [end for end in ends if end is not None]
    axis = min([0.0, *known]), max([1.0, *known])
    most = max(row["choices"] for row in rows)
    ranks, previous = [], None
    for row in rows:
        group = None if row["group"] is None else int(row["group"])
        ranks.append(
            Rank(
                group=DASH if group is None else str(group),
                first=group != previous,
                defense=row["defense"],
                knowledge=knowledge(row),
                robust=share(row, "robust_protection"),
                whisker=_whisker(row, *axis),
                attack=_choice(row),
                missing=f"{most - row['choices']} of {most} cells missing" if row["choices"] < most else "",
                accuracy=points(row, "robust_accuracy"),
                protection=share(row, "protection"),
                retention=share(row, "robust_retention"),
                psnr=DASH if row.get("stealth_psnr") is None else f"{row['stealth_psnr']:.1f}",
                seeds=row["seeds"],
            )
        )
        previous = group
    return Ranking(f"The attacker has {data} and chooses among {most} cells.", ranks)


def _whisker(row: Row, start: float, end: float) -> Whisker | None:
    values = [row[f"robust_protection{suffix}"] for suffix in ("_low", "", "_high")]
    if None in values:
        return None
    low, point, high, zero = (round(100 * (value - start) / (end - start), 2) for value in (*values, 0.0))
    return Whisker(low, point, high, zero)


def _grid(title: str, caption: str, rows: Sequence[Row], columns: Sequence[tuple[str, str, Any]]) -> Grid:
    table: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        table.setdefault((row["defense"], knowledge(row)), {})[column(row)] = row
    missing = Value("not run", undefined=True)
    body = [
        (defense, knowledge, [show(by[key]) if key in by else missing for key, _, show in columns])
        for (defense, knowledge), by in table.items()
    ]
    return Grid(title, caption, [heading for _, heading, _ in columns], body)


def _retention_grid(recipe: str, rows: Sequence[Row]) -> Grid:
    bare = dict.fromkeys(column(r) for r in rows if r["attack"] == CLEAN)
    attacked = dict.fromkeys(column(r) for r in rows if r["attack"] != CLEAN)
    columns: list[tuple[str, str, Any]] = [
        (key, key.replace(CLEAN, "drop, no attack", 1), lambda r: points(r, "drop")) for key in bare
    ]
    columns += [(key, key, lambda r: share(r, "retention", shaded=True)) for key in attacked]
    caption = (
        "First column: points of accuracy lost to the release. Others: the share of that loss left under the attack."
    )
    return _grid(recipe, caption, rows, columns)


def _accuracy_grid(recipe: str, rows: Sequence[Row]) -> Grid:
    keys = sorted(dict.fromkeys(column(r) for r in rows), key=lambda key: not key.startswith(CLEAN))
    zero, clean = points(rows[0], "zero_shot"), points(rows[0], "clean")
    caption = f"Percent of clean test items answered right. Zero-shot: {zero}. Fine-tuned on clean data: {clean}."
    named = [(key, key.replace(CLEAN, "no attack", 1) if key.startswith(CLEAN) else key) for key in keys]
    return _grid(recipe, caption, rows, [(k, name, lambda r: points(r, "accuracy", shaded=True)) for k, name in named])
