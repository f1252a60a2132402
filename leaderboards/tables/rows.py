"""Rows of a board's tables, and what its pages say beside them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from arena.controls import ALONE, ANSWER_WORD, CONTROLS, RANDOM_WORDS
from arena.records.schema import Record, StageCost
from arena.score.attacked import Attacked, Robust
from arena.score.cells import CLEAN, Place
from arena.score.contest import Contest, Scores
from arena.score.statistics import FAILED, LEAST_SEEDS, Estimate
from leaderboards.tables.collect import IN_DOMAIN, Budget, Group, Protection, counted, surrogates, taking_part
from leaderboards.tables.coverage import Coverage
from leaderboards.tables.credit import without_answer_word, without_random_words
from leaderboards.tables.fitness import Fitness
from leaderboards.tables.sweeps import Sweep, sweeps, winners

Row = dict[str, Any]

FAILURE_COLUMNS = [
    *("dataset", "model", "defense", "control", "surrogates", "knowledge", "norm", "image_budget", "text_budget"),
    *("forbid_answer_words", "attack", "auxiliary", "in_domain", "recipe", "seed", "stage", "error", "cell"),
]

_NO_BUDGET = Budget("none", 0.0, 0)
_SCORES = [f.name for f in fields(Scores) if f.name != "detectable"]
_MEANING = ("changed", "accuracy_before", "accuracy", "similarity")
_OLD = "made before plugins had processes of their own"


@dataclass(frozen=True, order=True)
class Plugin:
    """A plugin that took part; `config` is JSON."""

    kind: str
    label: str
    id: str
    version: str
    config: str
    source_digest: str
    package: str


def cell_row(group: Group, place: Place, scores: Scores, robust: Robust, fitness: Fitness) -> Row:
    """One combination: where it stands, every score, and means over seeds of stealth and cost.

    `robust` is what `shown_robust` gives of its defense, against an attacker with at most the clean data of this row.
    """
    records = [record for _, record in sorted(group.records[place].items())]
    done = [record for record in records if record.outcome is not None]
    row = where(group, place)
    left_out = fitness.left_out.get((place.attack, place.recipe))
    row |= {"items": group.items, "seeds": len(done), "failed": len(records) - len(done)}
    row["left_out"] = left_out.reason if left_out else None
    row["chosen_recipes"] = winners(group, place)
    for name in _SCORES:
        row |= estimate_row(name, getattr(scores, name))
    row |= estimate_row("robust_protection", robust.robust_protection)
    row |= estimate_row("worst_case_protection", robust.worst.protection)
    row["peak_accuracy"] = _mean(_peak(record) for record in done)
    row |= {f"stealth_{key}": value for key, value in stealth(done).items()}
    row |= {f"meaning_{key}": value for key, value in meaning(done).items()}
    for stage in ("protect", "purify", "finetune"):
        costs: list[StageCost] = [cost for r in done if (cost := getattr(r.cost, stage)) is not None]
        row[f"{stage}_seconds_per_sample"] = _mean(cost.seconds_per_sample for cost in costs)
        peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
        row[f"{stage}_peak_memory_mb"] = max(peaks, default=None)
    for key in sorted({key for record in done for key in record.diagnostics}):
        row[f"diagnostic_{key}"] = _mean(record.diagnostics.get(key) for record in done)
    return row


def shown_robust(coverage: Coverage, robust: Robust) -> Robust:
    """The scores of an entry under its own budget, without those that cannot be stated."""
    budget = robust.defense.budget if isinstance(robust.defense, Protection) else _NO_BUDGET
    return coverage.shown(coverage.complete(robust, budget), budget)


def power_row(group: Group, fitness: Fitness, detectable: float | None) -> Row:
    """How hard a contest's task is, by its controls, and what it can tell."""
    clean, gain, noise = fitness.clean, fitness.gain, fitness.noise
    return {
        **{"dataset": group.dataset, "model": group.model, "items": group.items, "seeds": len(group.seeds)},
        "recipe": fitness.recipe,
        **{"clean": clean.value, "gain": gain.value, "noise_floor": noise.value},
        "headroom": None if clean.value is None else 1 - clean.value,
        "minimum_detectable_difference": detectable,
        "unfit": fitness.unfit,
    }


def ranking_rows(
    group: Group, contest: Contest, coverage: Coverage, fitness: Fitness, robust: Sequence[Robust]
) -> Iterator[Row]:
    """One row a defense, best first, for each budget and share of clean data; the clean control is in all of them.

    Defenses and shares of which nothing has a record are there as well: their scores are withheld. Without rank groups,
    and in the order of their names, where the task is unfit.
    """
    scores = {(r.defense, r.auxiliary): r for r in robust}
    defenses = list(dict.fromkeys((*(r.defense for r in robust), *coverage.defenses)))
    budgets = sorted({defense.budget for defense in defenses if isinstance(defense, Protection)}) or [_NO_BUDGET]
    nothing = Attacked.without(FAILED)
    for budget in budgets:
        own = [d for d in defenses if d == CLEAN or (isinstance(d, Protection) and d.budget == budget)]
        for level in coverage.levels:
            if not coverage.choices(budget, level):
                continue
            found = [scores.get((d, level)) or Robust(d, level, nothing.protection, nothing) for d in own]
            ranked = [coverage.complete(r, budget) for r in found]
            if fitness.unfit:
                ranked.sort(key=lambda r: str(r.defense))
                ranks: dict[Hashable, int | None] = {}
            else:
                ranked.sort(key=lambda r: (-_or(r.robust_protection.value, float("-inf")), str(r.defense)))
                entries = [one for one in ranked if not is_control(group, one.defense)]
                ranks = dict(zip((one.defense for one in entries), contest.rank_groups(entries), strict=True))
            elsewhere = [
                d for d in defenses if isinstance(d, Protection) and d.budget != budget and (d, level) in scores
            ]
            every: dict[Hashable, Robust] = {
                d: coverage.complete(scores[d, level], d.budget) for d in elsewhere
            }  # controls of words, that is
            every |= {one.defense: one for one in ranked}
            for one in ranked:
                over = contest.over_random_words(one, every)
                place = {"group": ranks.get(one.defense), "unfit": fitness.unfit}
                yield _ranking_row(group, coverage, budget, place, one, over)


def _ranking_row(
    group: Group, coverage: Coverage, budget: Budget, place: Row, robust: Robust, over_random_words: Estimate
) -> Row:
    places = group.places.get(robust.defense, ())
    done = [r for place in places for r in group.records[place].values() if r.outcome is not None]
    choices = [c for c in coverage.choices(budget, robust.auxiliary, robust.defense) if c.recipe not in group.sweeps]
    row = {**_identity(group, robust.defense, budget), **_data(robust.auxiliary, coverage), **place}
    row |= {"attacked": coverage.attacked(budget, robust.auxiliary), "choices": len(choices)}
    row["recipes"] = len({choice.recipe for choice in choices})
    shown = coverage.shown(robust, budget)
    row |= estimate_row("robust_protection", shown.ranked.protection) | estimate_row("protection", shown.protection)
    row |= estimate_row("robust_retention", shown.ranked.retention)
    row |= estimate_row("robust_accuracy", shown.ranked.accuracy)
    row |= estimate_row("worst_case_protection", shown.worst.protection)
    row |= estimate_row("regret", shown.regret)
    row |= estimate_row("over_random_words", over_random_words)
    own = robust.own.choice if robust.own else None
    row["chooser"] = own.attack if own else None
    choice = robust.worst.choice
    row |= {"best_attack": choice.attack if choice else None, "best_recipe": choice.recipe if choice else None}
    row["seeds"] = len(robust.seeds)
    row |= {f"stealth_{key}": value for key, value in stealth(done).items()}
    row["protect_seconds_per_sample"] = _mean(r.cost.protect.seconds_per_sample for r in done if r.cost.protect)
    return row


def failure_rows(group: Group) -> Iterator[Row]:
    """One row a record that failed, with the first line of its error."""
    for place, seeds in group.records.items():
        for seed, record in sorted(seeds.items()) if place not in group.chosen else ():
            if record.failure is not None:
                yield {
                    **where(group, place),
                    "seed": seed,
                    "stage": record.failure.stage,
                    "error": next(iter(record.failure.error.strip().splitlines()), ""),
                    "cell": record.cell,
                }


def notes(group: Group) -> Iterator[str]:
    """What a reader must know first: missing controls, too few seeds, differing zero-shot runs."""
    where = f"{group.model} on {group.dataset}"
    defenses = {record.defense.id for seeds in group.records.values() for record in seeds.values()}
    if CLEAN not in defenses:
        yield f"{where}: no control defense `none`: drops, protection and retention cannot be computed."
    if "random" not in defenses:
        yield f"{where}: no control defense `random`: it is not shown that noise of the same size protects nothing."
    for words in without_random_words(group):
        budget = counted(words.text, "word") + ("" if words.forbid_answer_words else ", also of the answer")
        yield (
            f"{where}: no control defense `{RANDOM_WORDS}` under the budget of {budget}: it is not shown what as many "
            "words do that are about nothing."
        )
    if without_answer_word(group):
        yield f"{where}: no control defense `{ANSWER_WORD}`: it is not shown what the answer in the question does."
    for share in sorted(
        {p.auxiliary for p in group.records if p.auxiliary not in (0, IN_DOMAIN) and p.attack not in (CLEAN, ALONE)}
    ):
        if all((place.attack, place.auxiliary) != (ALONE, share) for place in group.records):
            yield (
                f"{where}: no control attack `{ALONE}` with clean data for {100 * share:g} % of the training size: it "
                "is not shown that the release adds anything to them."
            )
    if all(place.attack != CLEAN for place in group.records):
        yield f"{where}: no control attack `none`: drops, protection and retention cannot be computed."
    for sweep in sweeps(group):
        yield f"{where}: {_said_of(sweep)}"
    if group.zero_shot is None:
        yield f"{where}: no zero-shot score: the gain, and every score relative to it, cannot be computed."
    if len(group.seeds) < LEAST_SEEDS:
        yield (
            f"{where}: {counted(len(group.seeds), 'seed')}, of at least {LEAST_SEEDS}: intervals are missing or too "
            "narrow."
        )
    if len({record.zero_shot.correct for record in group if record.zero_shot is not None}) > 1:
        yield f"{where}: zero-shot answers differ between records of the same model and data; the latest are used."


def _said_of(sweep: Sweep) -> str:
    """What a choice among recipes costs, and what bounds it."""
    count = counted(len(sweep.recipes), "recipe")
    said = (
        f"`{sweep.name}` is the choice of a fine-tuner who trains by each of {count} and keeps the one that is best on "
        f"what they hold out of their own data: {counted(len(sweep.recipes), 'fine-tuning')} a cell. None is chosen "
        f"that is more than {100 * sweep.clean_cost:g} points worse on held-out clean data than the best of them"
    )
    if not sweep.out:
        return f"{said}; all are within that."
    return f"{said}; that leaves out {', '.join(f'`{label}`' for label in sweep.out)}."


def plugins(records: Iterable[Record]) -> tuple[Plugin, ...]:
    """Every plugin that took part, once."""
    found: dict[tuple[str, ...], Plugin] = {}
    distinct = {  # by the objects: records have most of them in common
        tuple(map(id, (r.dataset, r.model, r.defense, r.attack, r.recipe))): r for r in records
    }
    for r in distinct.values():
        for kind, label, ref in taking_part(r):
            key = kind, label, ref.source_digest, ref.version, str(ref.settings)
            if key not in found:
                config = json.dumps(ref.settings, sort_keys=True)
                package = f"{ref.origin.package} {ref.origin.version}"
                found[key] = Plugin(kind, label, ref.id, ref.version, config, ref.source_digest, package)
    return tuple(sorted(set(found.values())))


def environment(records: Sequence[Record]) -> dict[str, list[str]]:
    """Where the records were computed: each fact with all its values."""
    found: dict[str, set[str]] = defaultdict(set)
    for r in records:
        found["machine"].add(r.cost.machine)
    for e in {id(r.environment): r.environment for r in records}.values():
        found["device"].add(e.device)
        found["threads"].add(str(e.threads))
        found["git commit"].add("none" if e.git_commit is None else e.git_commit[:12] + " (dirty)" * bool(e.git_dirty))
        found["not deterministic"].update(e.nondeterminism)
        found["packages"].update(f"{name} {version}" for name, version in e.packages.items())
    for r in records:
        if r.meaning is not None and r.meaning.embedding is not None:
            found["sentence embedding"].add(r.meaning.embedding)
    return {name: sorted(values) for name, values in found.items()} | _isolation(records)


def _isolation(records: Sequence[Record]) -> dict[str, list[str]]:
    """How plugins were kept apart from what is not theirs, in how many cells; nothing where no record says."""
    counts = Counter(getattr(record.environment, "isolation", None) for record in records)
    if set(counts) <= {None}:
        return {}
    said = [f"{kind} {counted(counts[kind], 'cell')}" for kind in ("landlock", "process", "none") if counts[kind]]
    return {"isolation": ["; ".join(said + [f"none {counted(counts[None], 'cell')} ({_OLD})"] * (counts[None] > 0))]}


def stealth(records: Sequence[Record]) -> dict[str, float | None]:
    """Means over records of what the harness measured on the releases."""
    measured = [record.stealth for record in records if record.stealth is not None]
    return {key: _mean(one.get(key) for one in measured) for key in sorted({key for one in measured for key in one})}


def meaning(records: Sequence[Record]) -> dict[str, float | None]:
    """Means over records of what an attack left of the meaning of clean questions; nothing where none was measured."""
    measured = [record.meaning for record in records if record.meaning is not None]
    found = {key: _mean(getattr(one, key) for one in measured) for key in _MEANING} if measured else {}
    return {key: value for key, value in found.items() if key != "similarity" or value is not None}


def where(group: Group, place: Place) -> Row:
    """The columns by which a cell is known."""
    own = next(iter(group.records[place].values()))
    data = {"auxiliary": own.auxiliary, "in_domain": place.auxiliary == IN_DOMAIN}
    return {**_identity(group, place.defense, None), "attack": place.attack, **data, "recipe": place.recipe}


def _data(level: float, coverage: Coverage) -> Row:
    """The clean data that attackers have at most: of their own, and in what their attacks were made with."""
    finite = [one for one in coverage.levels if one <= level and one != IN_DOMAIN]
    return {"auxiliary": max(finite, default=0.0), "in_domain": level == IN_DOMAIN}


def _identity(group: Group, defense: Hashable, budget: Budget | None) -> Row:
    first = group.any_of(defense)
    own = defense.budget if isinstance(defense, Protection) else _NO_BUDGET
    norm, image, text, rule = budget or own
    return {
        "dataset": group.dataset,
        "model": group.model,
        "defense": _label(defense),
        "control": is_control(group, defense),
        "surrogates": "+".join(surrogates(first)),
        "knowledge": first.knowledge,
        "norm": norm,
        "image_budget": image,
        "text_budget": text,
        "forbid_answer_words": rule,
    }


def is_control(group: Group, defense: Hashable) -> bool:
    """Whether a defense is what others are compared with, and not ranked."""
    return group.any_of(defense).defense.id in CONTROLS


def _label(defense: Hashable) -> str:
    return defense.label if isinstance(defense, Protection) else CLEAN


def estimate_row(name: str, estimate: Estimate) -> Row:
    """A score's columns."""
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_seeds": estimate.seeds,
        f"{name}_undefined": estimate.undefined,
        f"{name}_p": estimate.p,
    }


def _peak(record: Record) -> float | None:
    """The best of all epochs; records of protocol version 1 have a number where the chosen epoch alone was scored."""
    return None if any(epoch.test_accuracy is None for epoch in record.epochs) else record.peak_accuracy


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
