"""What a board's pages show, in words and formatted numbers; the templates only lay it out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arena.score.cells import CLEAN
from leaderboards.site import submitted
from leaderboards.site.listings import Cause, Listing, causes, costs, gains, noise, power, stealth, withdrawn
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
from leaderboards.tables.collect import counted
from leaderboards.tables.coverage import NO_ATTACK, WITHHELD

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
    costs: Listing
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
        costs=costs(cells),
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
        withheld=any(_withheld(row, name) for row in ranking for name in ("robust_protection", "protection")),
    )


def _facts(board: Board, cells: Sequence[Row]) -> list[tuple[str, str]]:
    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    tally = board.tally
    missing = f" and {tally.missing} {'has' if tally.missing == 1 else 'have'} no record" if tally.missing else ""
    budgets = sorted({budget_of(row) for row in cells if row["norm"] != "none"})
    return [
        ("Models", distinct(row["model"] for row in cells)),
        ("Datasets", distinct(f"{row['dataset']} ({counted(row['items'], 'test item')})" for row in cells)),
        ("Recipes", distinct(row["recipe"] for row in cells)),
        ("Defenses", distinct(row["defense"] for row in cells)),
        ("Attacks", distinct(row["attack"] for row in cells)),
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
        levels = {row["auxiliary"]: [r for r in rows if r["auxiliary"] == row["auxiliary"]] for row in rows}
        recipes = dict.fromkeys(row["recipe"] for row in own)
        sections.append(
            Section(
                title=f"{dataset} · {model} · {budget_text(*budget)}",
                headline=_headline(levels[max(levels)], authors),
                attacked=attacked,
                rankings=[_ranking(level, one, authors) for level, one in levels.items() if one[0]["attacked"]],
                bare=[_bare(level, one, attacked) for level, one in levels.items() if not one[0]["attacked"]],
                retention=[_retention_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
                accuracy=[_accuracy_grid(recipe, [r for r in own if r["recipe"] == recipe]) for recipe in recipes],
            )
        )
    return sections


def _headline(rows: Sequence[Row], authors: Mapping[str, str]) -> str:
    """What the first entry that is complete leaves to an attacker; `rows` are best first, `authors` those of submitted
    attacks."""
    entries = [row for row in rows if not row["control"]]
    if not entries:
        return "No protection was entered."
    name = "robust_protection" if entries[0]["attacked"] else "protection"
    top = next((row for row in entries if row[name] is not None), None)
    if top is None:
        return _nothing(entries, name)
    left, shown = share(top, name), significant(top, name)
    if name == "protection":
        denied = f"denies {left} of the gain (protection, {NO_ATTACK}{_best_recipe(top)})."
        said = f"{top['defense']} {denied}"
        if not shown:
            said = f"No protection is shown to hold: the first, {top['defense']}, {denied}"
    else:
        against = f"the best attack on it is {_choice(top, authors)}"
        said = f"{top['defense']} denies {left} of the gain to an attacker who chooses; {against}."
        if not shown:
            said = f"No protection is shown to hold: the first, {top['defense']}, leaves {left}; {against}."
    names = _names([row for row in entries if _withheld(row, name)], entries)
    return f"{said} Not ranked, since cells failed or have no record: {names}." if names else said


def _nothing(entries: Sequence[Row], name: str) -> str:
    """Why no entry can be said to protect."""
    reasons: dict[str, list[Row]] = defaultdict(list)
    for row in entries:
        reasons[row[f"{name}_undefined"]].append(row)
    complete = [reason for reason in reasons if not reason.startswith(WITHHELD)]
    if len(reasons) == len(complete) == 1:
        return f"Nothing can be said about protection: {complete[0]}."
    listed = [f"{_names(rows, entries)}: {reason.removeprefix(WITHHELD)}" for reason, rows in reasons.items()]
    since = "" if complete else ", since no entry is complete"
    return f"Nothing can be said about protection{since}. {'; '.join(listed)}."


def _names(rows: Sequence[Row], entries: Sequence[Row]) -> str:
    """Names of entries, with what they were crafted on where that alone tells them from others."""
    used = Counter(row["defense"] for row in entries)
    return ", ".join(f"{r['defense']}, {knowledge(r)}" if used[r["defense"]] > 1 else r["defense"] for r in rows)


def _withheld(row: Row, name: str) -> bool:
    return (row[f"{name}_undefined"] or "").startswith(WITHHELD)


def _best_recipe(row: Row) -> str:
    return f"; the best recipe is {row['best_recipe']}" if row["recipes"] > 1 else ""


def _choice(row: Row, authors: Mapping[str, str]) -> str:
    if row["best_attack"] is None:
        return DASH
    attack = "no attack" if row["best_attack"] == CLEAN else row["best_attack"]
    by = f" by {authors[attack]}" if attack in authors else ""
    return f"{attack}{by}, {row['best_recipe']}"


def _ranking(level: float, rows: Sequence[Row], authors: Mapping[str, str]) -> Ranking:
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
            attack=_choice(row, authors),
            accuracy=_unless_withheld(points(row, "robust_accuracy")),
            protection=share(row, "protection"),
            retention=_unless_withheld(share(row, "robust_retention")),
            psnr=_psnr(row),
            seeds=row["seeds"],
        )
        for row, (group, first) in zip(rows, _groups(rows), strict=True)
    ]
    return Ranking(f"The attacker has {_data(level)} and chooses among {choices}.", ranks)


def _bare(level: float, rows: Sequence[Row], attacked: bool) -> BareRanking:
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
    nobody = f"An attacker with {_data(level)} has no attack here" if attacked else "No attack was tried"
    best = f", with the best of {recipes} recipes" if recipes > 1 else ""
    return BareRanking(f"{nobody}: the fine-tuner trains on the release as it is{best}.", recipes > 1, ranks)


def _data(level: float) -> str:
    return f"clean data for at most {100 * level:g} % of the training size" if level else "no clean data of their own"


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
