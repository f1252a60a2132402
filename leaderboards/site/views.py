"""What a board's pages show, in words and formatted numbers; the templates only lay it out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arena.controls import ALONE
from arena.score.cells import CLEAN
from leaderboards.site import rankings, submitted
from leaderboards.site.headline import headline, withheld
from leaderboards.site.listings import (
    Cause,
    Listing,
    causes,
    chosen_recipes,
    costs,
    gains,
    left_out,
    noise,
    own_data,
    power,
    stealth,
    tasks,
    withdrawn,
    words,
)
from leaderboards.site.numbers import (
    Row,
    Value,
    budget_of,
    budget_text,
    column,
    knowledge,
    points,
    rows_of,
    share,
)
from leaderboards.site.rankings import BareRanking, Ranking
from leaderboards.tables.collect import counted

if TYPE_CHECKING:
    from leaderboards.tables.board import Board, Verification
    from leaderboards.tables.rows import Plugin


@dataclass(frozen=True)
class Grid:
    """Defenses x attacks under one recipe: `rows` are name, knowledge and one value a column."""

    title: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, str, list[Value]]]


@dataclass(frozen=True)
class Section:
    """One dataset, model and budget; `attacked` where any attack was tried, `bare` are rankings without attack."""

    title: str
    headline: str
    attacked: bool
    rankings: list[Ranking]
    bare: list[BareRanking]
    retention: list[Grid]
    accuracy: list[Grid]


@dataclass(frozen=True)
class Page:
    """Everything on a board's page."""

    suite: str
    digest: str
    created: str
    facts: list[tuple[str, str]]
    notes: tuple[str, ...]
    sections: list[Section]
    gains: Listing
    noise: Listing
    words: Listing
    own_data: Listing
    costs: Listing
    left_out: Listing
    chosen_recipes: Listing
    tasks: Listing
    stealth: Listing
    failed: str
    failures: list[Cause]
    withdrawn: Listing
    submissions: Listing
    history: Listing
    power: list[str]
    verifications: tuple[Verification, ...]
    plugins: tuple[Plugin, ...]
    environment: dict[str, list[str]]
    attacked: bool
    withheld: bool
    choosers: list[str]


def compose(board: Board) -> Page:
    """The page of a board."""
    cells, ranking = rows_of(board.cells), rows_of(board.ranking)
    tally, sections = board.tally, _sections(cells, ranking, submitted.authors(board.submissions))
    return Page(
        suite=board.suite,
        digest=board.digest,
        created=board.created,
        facts=_facts(board, cells),
        notes=board.notes,
        sections=sections,
        gains=gains(cells),
        noise=noise(cells),
        words=words(cells),
        own_data=own_data(cells),
        costs=costs(cells),
        left_out=left_out(cells),
        chosen_recipes=chosen_recipes(cells),
        tasks=tasks(rows_of(board.power)),
        stealth=stealth(ranking),
        failed=f"{tally.failed} of {counted(tally.cells, 'cell')} failed.",
        failures=causes(rows_of(board.failures)),
        withdrawn=withdrawn(board.withdrawn),
        submissions=submitted.entries(board.submissions),
        history=submitted.history(board.submissions),
        power=[power(row) for row in rows_of(board.power)],
        verifications=board.verifications,
        plugins=board.plugins,
        environment=board.environment,
        attacked=any(section.attacked for section in sections),
        withheld=any(withheld(row, name) for row in ranking for name in ("robust_protection", "protection")),
        choosers=sorted({row["chooser"] for row in ranking if row["chooser"]}),
    )


def _facts(board: Board, cells: Sequence[Row]) -> list[tuple[str, str]]:
    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    tally = board.tally
    missing = f" and {tally.missing} {'has' if tally.missing == 1 else 'have'} no record" if tally.missing else ""
    budgets = sorted({budget_of(row) for row in cells if row["norm"] != "none"})
    known = "; ".join(f"{attack}: {why}" for attack, why in board.in_domain.items())
    return [
        ("Models", distinct(row["model"] for row in cells)),
        ("Datasets", distinct(f"{row['dataset']} ({counted(row['items'], 'test item')})" for row in cells)),
        ("Recipes", distinct(row["recipe"] for row in cells)),
        ("Defenses", distinct(row["defense"] for row in cells)),
        ("Attacks", distinct(row["attack"] for row in cells)),
        *([("Made with clean data of this kind", known)] if known else []),
        ("Budgets", "; ".join(budget_text(*budget) for budget in budgets) or "none"),
        ("Seeds", distinct(sorted({int(row["seeds"]) for row in rows_of(board.power)}))),
        ("Cells", f"{tally.cells}, of which {tally.failed} failed{missing}"),
    ]


def _sections(cells: Sequence[Row], ranking: Sequence[Row], authors: Mapping[str, str]) -> list[Section]:
    by_contest: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in cells:
        by_contest[row["dataset"], row["model"]].append(row)
    ranked: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in ranking:
        ranked[row["dataset"], row["model"], budget_of(row)].append(row)
    sections = []
    for (dataset, model, budget), rows in ranked.items():
        attacked = any(row["attacked"] for row in rows)
        order = {(r["defense"], r["surrogates"]): i for i, r in reversed(list(enumerate(rows)))}
        own = [r for r in by_contest[dataset, model] if r["defense"] == CLEAN or budget_of(r) == budget]
        if not attacked:  # the clean control may have been attacked for another budget
            own = [r for r in own if r["attack"] == CLEAN]
        own.sort(key=lambda r: (r["control"], order[r["defense"], r["surrogates"]]))
        levels: dict[tuple[bool, float], list[Row]] = defaultdict(list)
        for row in rows:
            levels[row["in_domain"], row["auxiliary"]].append(row)
        recipes = dict.fromkeys(row["recipe"] for row in own)
        sections.append(
            Section(
                title=f"{dataset} · {model} · {budget_text(*budget)}",
                headline=headline(levels[max(levels)], authors),
                attacked=attacked,
                rankings=[rankings.ranking(one, authors) for one in levels.values() if one[0]["attacked"]],
                bare=[rankings.bare(one, attacked) for one in levels.values() if not one[0]["attacked"]],
                retention=[_retention_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
                accuracy=[_accuracy_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
            )
        )
    return sections


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
    attacked = dict.fromkeys(column(r) for r in rows if r["attack"] not in (CLEAN, ALONE))
    columns: list[tuple[str, str, Any]] = [
        (key, key.replace(CLEAN, "drop, no attack", 1), lambda r: points(r, "drop")) for key in bare
    ]
    columns += [(key, key, lambda r: share(r, "retention", shaded=True)) for key in attacked]
    caption = "Points of accuracy lost to the release."
    if attacked:
        caption = f"First column: p{caption[1:]} Others: the share of that loss left under the attack."
    return _grid(recipe, caption, rows, columns)


def _accuracy_grid(recipe: str, rows: Sequence[Row]) -> Grid:
    keys = sorted(dict.fromkeys(column(r) for r in rows), key=lambda key: not key.startswith(CLEAN))
    zero, clean = points(rows[0], "zero_shot"), points(rows[0], "clean")
    caption = f"Percent of clean test items answered right. Zero-shot: {zero}. Fine-tuned on clean data: {clean}."
    named = [(key, key.replace(CLEAN, "no attack", 1) if key.startswith(CLEAN) else key) for key in keys]
    return _grid(recipe, caption, rows, [(k, name, lambda r: points(r, "accuracy", shaded=True)) for k, name in named])
