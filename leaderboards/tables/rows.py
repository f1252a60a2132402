"""Rows of a board's tables, and what its pages say beside them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from arena.records.schema import Record, StageCost
from arena.score.cells import CLEAN, Place
from arena.score.contest import Contest, Robust, Scores
from arena.score.statistics import Estimate
from leaderboards.tables.collect import Budget, Group, Protection, surrogates, taking_part

Row = dict[str, Any]

FAILURE_COLUMNS = ["dataset", "model", "defense", "attack", "recipe", "seed", "stage", "error", "cell"]

_NO_BUDGET = Budget("none", 0.0, 0)
_SCORES = [f.name for f in fields(Scores) if f.name != "drop_error"]


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


def cell_row(group: Group, place: Place, scores: Scores) -> Row:
    """One cell: where it stands, every score, and means over seeds of stealth and cost."""
    records = [record for _, record in sorted(group.records[place].items())]
    done = [record for record in records if record.outcome is not None]
    row = where(group, place)
    row |= {"items": group.items, "seeds": len(done), "failed": len(records) - len(done)}
    for name in _SCORES:
        row |= estimate_row(name, getattr(scores, name))
    row["peak_accuracy"] = _mean(record.peak_accuracy for record in done)
    row |= {f"stealth_{key}": value for key, value in stealth(done).items()}
    for stage in ("protect", "purify", "finetune"):
        costs: list[StageCost] = [cost for r in done if (cost := getattr(r.cost, stage)) is not None]
        row[f"{stage}_seconds_per_sample"] = _mean(cost.seconds_per_sample for cost in costs)
        peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
        row[f"{stage}_peak_memory_mb"] = max(peaks, default=None)
    for key in sorted({key for record in done for key in record.diagnostics}):
        row[f"diagnostic_{key}"] = _mean(record.diagnostics.get(key) for record in done)
    return row


def ranking_rows(group: Group, contest: Contest, robust: Sequence[Robust]) -> Iterator[Row]:
    """One row a defense, best first, for each budget and share of clean data; the clean control is in all of them."""
    budgets = sorted({r.defense.budget for r in robust if isinstance(r.defense, Protection)}) or [_NO_BUDGET]
    for budget in budgets:
        for level in sorted({r.auxiliary for r in robust}):
            ranked = [
                r
                for r in robust
                if r.auxiliary == level and (r.defense == CLEAN or getattr(r.defense, "budget", None) == budget)
            ]
            ranked.sort(key=lambda r: (-_or(r.robust_protection.value, float("-inf")), str(r.defense)))
            for rank, one in zip(contest.rank_groups(ranked), ranked, strict=True):
                yield _ranking_row(group, budget, rank, one)


def _ranking_row(group: Group, budget: Budget, rank: int | None, robust: Robust) -> Row:
    own = [r for place in group.places[robust.defense] for r in group.records[place].values() if r.outcome is not None]
    row = {**_identity(group, robust.defense, budget), "auxiliary": robust.auxiliary, "group": rank}
    for name in ("robust_protection", "protection", "robust_retention", "accuracy"):
        row |= estimate_row("robust_accuracy" if name == "accuracy" else name, getattr(robust, name))
    choice = robust.choice
    row |= {"best_attack": choice.attack if choice else None, "best_recipe": choice.recipe if choice else None}
    row |= {"choices": robust.candidates, "seeds": len(robust.seeds)}
    row |= {f"stealth_{key}": value for key, value in stealth(own).items()}
    row["protect_seconds_per_sample"] = _mean(r.cost.protect.seconds_per_sample for r in own if r.cost.protect)
    return row


def failure_rows(group: Group) -> Iterator[Row]:
    """One row a record that failed, with the first line of its error."""
    for place, seeds in group.records.items():
        for seed, record in sorted(seeds.items()):
            if record.failure is not None:
                yield {
                    "dataset": group.dataset,
                    "model": group.model,
                    "defense": _label(place.defense),
                    "attack": place.attack,
                    "recipe": place.recipe,
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
    if all(place.attack != CLEAN for place in group.records):
        yield f"{where}: no control attack `none`: drops, protection and retention cannot be computed."
    if group.zero_shot is None:
        yield f"{where}: no zero-shot score: the gain, and every score relative to it, cannot be computed."
    if len(group.seeds) < 3:
        yield f"{where}: {len(group.seeds)} seed(s), of at least 3: intervals are missing or too narrow."
    if len({record.zero_shot.correct for record in group if record.zero_shot is not None}) > 1:
        yield f"{where}: zero-shot answers differ between records of the same model and data; the latest are used."


def plugins(records: Iterable[Record]) -> tuple[Plugin, ...]:
    """Every plugin that took part, once."""
    found: dict[tuple[str, ...], Plugin] = {}
    for r in records:
        for kind, label, ref in taking_part(r):
            key = kind, label, ref.source_digest, ref.version, str(ref.settings)
            if key not in found:
                config = json.dumps(ref.settings, sort_keys=True)
                package = f"{ref.origin.package} {ref.origin.version}"
                found[key] = Plugin(kind, label, ref.id, ref.version, config, ref.source_digest, package)
    return tuple(sorted(set(found.values())))


def environment(records: Iterable[Record]) -> dict[str, list[str]]:
    """Where the records were computed: each fact with all its values."""
    found: dict[str, set[str]] = defaultdict(set)
    for r in records:
        e = r.environment
        found["machine"].add(r.cost.machine)
        found["device"].add(e.device)
        found["threads"].add(str(e.threads))
        found["git commit"].add("none" if e.git_commit is None else e.git_commit[:12] + " (dirty)" * bool(e.git_dirty))
        found["not deterministic"].update(e.nondeterminism)
        found["packages"].update(f"{name} {version}" for name, version in e.packages.items())
    return {name: sorted(values) for name, values in found.items()}


def stealth(records: Sequence[Record]) -> dict[str, float | None]:
    """Means over records of what the harness measured on the releases."""
    measured = [record.stealth for record in records if record.stealth is not None]
    return {key: _mean(one.get(key) for one in measured) for key in sorted({key for one in measured for key in one})}


def where(group: Group, place: Place) -> Row:
    """The columns by which a cell is known."""
    of_attack = {"attack": place.attack, "auxiliary": place.auxiliary, "recipe": place.recipe}
    return {**_identity(group, place.defense, None), **of_attack}


def _identity(group: Group, defense: Hashable, budget: Budget | None) -> Row:
    first = next(iter(group.records[group.places[defense][0]].values()))
    own = defense.budget if isinstance(defense, Protection) else _NO_BUDGET
    norm, image, text = budget or own
    return {
        "dataset": group.dataset,
        "model": group.model,
        "defense": _label(defense),
        "control": first.defense.id in (CLEAN, "random"),
        "surrogates": "+".join(surrogates(first)),
        "knowledge": first.knowledge,
        "norm": norm,
        "image_budget": image,
        "text_budget": text,
    }


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
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
