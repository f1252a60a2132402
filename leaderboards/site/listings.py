"""The plain tables of a board: controls, costs of attacks, stealth, withdrawn entries; and why cells failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arena.controls import ALONE
from arena.score.cells import CLEAN
from arena.score.statistics import CONFIDENCE, holm
from leaderboards.site.numbers import (
    DASH,
    Row,
    budget_of,
    budget_text,
    column,
    knowledge,
    meaning_heads,
    meanings,
    points,
    share,
    significant,
)
from leaderboards.tables.collect import counted

if TYPE_CHECKING:
    from leaderboards.tables.board import Withdrawn


@dataclass(frozen=True)
class Listing:
    """A plain table."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Cause:
    """Cells that failed in one kind of stage with one error: how many, and which."""

    count: str
    stage: str
    error: str
    cells: str


def gains(cells: Sequence[Row]) -> Listing:
    """What clean fine-tuning gains: the control that makes a cell worth anything."""
    tasks: dict[tuple[str, ...], Row] = {}
    for row in cells:
        tasks.setdefault((row["dataset"], row["model"], row["recipe"]), row)
    rows = []
    for (where, row), shown in zip(tasks.items(), _significant(tasks.values(), "gain"), strict=True):
        verdict = "significant" if shown else "not significant: these cells test nothing"
        scores = [str(points(row, "zero_shot")), str(points(row, "clean")), str(points(row, "gain", signed=True))]
        rows.append([*where, *scores, verdict])
    return Listing(["dataset", "model", "recipe", "zero-shot", "clean", "gain", "verdict"], rows)


def noise(cells: Sequence[Row]) -> Listing:
    """What random noise of the same size does."""
    controls = [row for row in cells if row["control"] and row["defense"] != CLEAN and row["attack"] == CLEAN]
    found = [row for row in controls if not _changes_questions(row)]
    rows = []
    for row, shown in zip(found, _significant(found, "drop"), strict=True):
        verdict = "lowers accuracy" if shown else "protects nothing, as it should"
        if row["drop_low"] is None:
            verdict = "no interval"
        where = [row["dataset"], row["model"], row["recipe"], budget_text(*budget_of(row))]
        rows.append([*where, str(points(row, "drop", signed=True)), verdict])
    return Listing(["dataset", "model", "recipe", "budget", "drop by random noise", "verdict"], rows)


def _significant(rows: Iterable[Row], name: str) -> list[bool]:
    """Which of a table's scores are above zero, at 5 % for all of them together."""
    listed = list(rows)
    corrected = holm([row[f"{name}_p"] for row in listed])
    return [
        significant(row, name) and p is not None and p < 1 - CONFIDENCE
        for row, p in zip(listed, corrected, strict=True)
    ]


def left_out(cells: Sequence[Row]) -> Listing:
    """Attacks that cost too much on clean data to be anybody's choice."""
    rows = [
        [row["dataset"], row["model"], row["recipe"], column(row), str(row["left_out"])]
        for row in cells
        if row["defense"] == CLEAN and row["left_out"]
    ]
    return Listing(["dataset", "model", "recipe", "attack", "why"], rows)


def chosen_recipes(cells: Sequence[Row]) -> Listing:
    """What was chosen where the recipe is a choice of the fine-tuner."""
    rows = [
        [row["dataset"], row["model"], row["recipe"], row["defense"], budget_text(*budget_of(row)), column(row), chosen]
        for row in cells
        if (chosen := row["chosen_recipes"])
    ]
    return Listing(["dataset", "model", "sweep", "defense", "budget", "attack", "chosen (seeds)"], rows)


def tasks(power: Sequence[Row]) -> Listing:
    """How hard each task is, by its controls."""

    def of(row: Row, name: str) -> str:
        return DASH if row[name] is None else f"{100 * row[name]:.1f}"

    names = ("clean", "gain", "noise_floor", "headroom", "minimum_detectable_difference")
    rows = [
        [
            *(row["dataset"], row["model"], row["recipe"] or DASH, *(of(row, name) for name in names)),
            f"unfit: {row['unfit']}" if row["unfit"] else "ranked",
        ]
        for row in power
    ]
    titles = ["clean", "gain", "drop by random noise", "room above clean", "smallest difference", "verdict"]
    return Listing(["dataset", "model", "best recipe", *titles], rows)


def words(cells: Sequence[Row]) -> Listing:
    """What the words do that protections insert, beside words that are about nothing and the answer itself."""
    columns = ["dataset", "model", "recipe", "budget", "defense", "knowledge"]
    rows = [
        [
            *(row["dataset"], row["model"], row["recipe"], budget_text(*budget_of(row))),
            *(row["defense"], knowledge(row)),
            DASH if (leak := row.get("stealth_answer_leak")) is None else f"{100 * leak:.0f} %",
            str(points(row, "drop", signed=True)),
            str(points(row, "over_random_words", signed=True)),
        ]
        for row in sorted(cells, key=lambda row: not row["control"])
        if row["attack"] == CLEAN and _changes_questions(row)
    ]
    return Listing([*columns, "answer leak", "drop", "over random words"], rows)


def _changes_questions(row: Row) -> bool:
    return bool(row.get("stealth_edit_distance"))


def own_data(cells: Sequence[Row]) -> Listing:
    """What a release adds to the clean data that attackers have of their own, with the retention beside it."""
    alone = {
        (row["dataset"], row["model"], row["recipe"], row["auxiliary"]): row
        for row in sorted(cells, key=lambda row: row["defense"] == CLEAN)
        if row["attack"] == ALONE
    }
    rows = []
    for row in cells:
        place = row["dataset"], row["model"], row["recipe"], row["auxiliary"]
        if row["auxiliary"] and row["attack"] not in (CLEAN, ALONE):
            control = alone.get(place)
            rows.append(
                [
                    *(row["dataset"], row["model"], row["recipe"], column(row), row["defense"], knowledge(row)),
                    DASH if control is None else str(points(control, "accuracy")),
                    str(points(row, "accuracy")),
                    str(points(row, "release_adds", signed=True)),
                    str(share(row, "retention")),
                ]
            )
    columns = ["dataset", "model", "recipe", "attack", "defense", "knowledge"]
    return Listing([*columns, "own data alone", "with the release", "release adds", "retention"], rows)


def costs(cells: Sequence[Row]) -> Listing:
    """What each attack costs on clean data, and in the meaning of its questions where that was measured."""
    found = [row for row in cells if row["defense"] == CLEAN and row["attack"] not in (CLEAN, ALONE)]
    heads = meaning_heads(found)
    rows = [
        [
            row["dataset"],
            row["model"],
            row["recipe"],
            column(row),
            str(points(row, "clean_attacked")),
            str(points(row, "attack_cost", signed=True)),
            *meanings(row, heads),
        ]
        for row in found
    ]
    return Listing(
        ["dataset", "model", "recipe", "attack", "clean data under it", "attack cost", *heads.values()], rows
    )


def stealth(ranking: Sequence[Row]) -> Listing:
    """What the harness measured on each defense's releases, and seconds to protect."""
    measured = [key for key in (ranking[0] if ranking else {}) if key.startswith("stealth_")]
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in ranking:
        where = row["dataset"], row["model"], row["defense"], knowledge(row), budget_text(*budget_of(row))
        seconds = row["protect_seconds_per_sample"]
        values = [*(row[key] for key in measured), seconds]
        if row["defense"] != CLEAN:
            rows.setdefault(where, [*where, *(DASH if value is None else f"{value:.3g}" for value in values)])
    names = [key.removeprefix("stealth_").replace("_", " ") for key in measured]
    columns = ["dataset", "model", "defense", "knowledge", "budget", *names, "s / sample"]
    return Listing(columns, list(rows.values()))


def causes(failures: Sequence[Row]) -> list[Cause]:
    """Cells that failed, by the kind of their stage and the first line of the error; what most failed of first."""
    crafted = defaultdict(set)
    for row in failures:
        crafted[row["defense"]].add(row["surrogates"])
    found: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    for row in failures:
        several = len(crafted[row["defense"]]) > 1
        defense = f"{row['defense']} of {row['surrogates']}" if several else row["defense"]
        place = f"{row['model']} on {row['dataset']}, {budget_text(*budget_of(row))}"
        stage = row["stage"].partition(" ")[0]
        found[stage, row["error"]].append((place, defense, column(row), row["recipe"], str(row["seed"])))
    return [
        Cause(counted(len(cells), "cell"), stage, error or "no message", _compact(cells))
        for (stage, error), cells in sorted(found.items(), key=lambda one: -len(one[1]))
    ]


def _compact(cells: Iterable[tuple[str, ...]]) -> str:
    """Cells, each a place, defense, attack, recipe and seed, as few products of these."""
    products: list[tuple[tuple[str, ...], ...]] = [tuple((name,) for name in cell) for cell in cells]
    for axis in (4, 2, 1, 3, 0):
        merged: dict[tuple[tuple[str, ...], ...], list[str]] = {}
        for one in products:
            merged.setdefault(one[:axis] + one[axis + 1 :], []).extend(one[axis])
        products = [(*others[:axis], tuple(dict.fromkeys(names)), *others[axis:]) for others, names in merged.items()]
    by_place: dict[str, list[str]] = defaultdict(list)
    for places, *names, seeds in products:
        by_place[" and ".join(places)].append(f"{' x '.join(map(', '.join, names))}, {_seeds(seeds)}")
    return ". ".join(f"{places}: {'; '.join(listed)}" for places, listed in by_place.items())


def _seeds(seeds: Sequence[str]) -> str:
    numbers = sorted(int(seed) for seed in seeds)
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and numbers == list(range(first, last + 1)):
        return f"seeds {first} to {last}"
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(map(str, numbers))}"


def withdrawn(entries: Sequence[Withdrawn]) -> Listing:
    """What is kept off the board, and why."""
    return Listing(["plugin", "version", "reason"], [[one.id, one.version, one.reason] for one in entries])


def power(row: Row) -> str:
    """What a contest can detect, in a sentence."""
    size = f"{counted(row['items'], 'test item')} and {counted(row['seeds'], 'seed')}"
    where = f"{row['model']} on {row['dataset']}, {size}"
    difference = row["minimum_detectable_difference"]
    if difference is None:
        return f"{where}: no cell has an interval, so nothing can be detected."
    return (
        f"{where}: differences in accuracy below {100 * difference:.1f} points are missed more than one time in five."
    )
