"""The fine-tuner's choice among recipes: those of one sweep as one recipe, each cell being that of the recipe chosen.

Every recipe of a sweep has cells and records of its own. What is chosen is the recipe whose kept epoch is best on what
the fine-tuner holds out of their own data; test data do not enter. So of each seed the choice has the record of one of
the recipes, and its results are what such a fine-tuner gets, beside the worst case, which is chosen on test data.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean

from arena.records.schema import Epoch, Record
from arena.score.cells import CLEAN, Place
from leaderboards.tables.collect import Group


@dataclass(frozen=True)
class Sweep:
    """A choice among the recipes of these labels, in the suite's order; those `out` of it are more than `clean_cost`
    worse than the best of them on held-out clean data."""

    name: str
    recipes: tuple[str, ...]
    clean_cost: float
    out: tuple[str, ...]


def sweeps(group: Group) -> list[Sweep]:
    """All choices of a contest."""
    return [_sweep(group, name, recipes) for name, recipes in group.sweeps.items()]


def choose(group: Group) -> None:
    """Add to a contest the place of each choice beside those of its recipes: where all of these that may be chosen were
    tried, and one did not fail. What is asked of all of them is asked of the choice."""
    for sweep in sweeps(group):
        allowed = [label for label in sweep.recipes if label not in sweep.out]
        for place in dict.fromkeys(p._replace(recipe="") for p in (*group.asked, *group.records)):
            members = [place._replace(recipe=label) for label in allowed]
            asked = [group.asked[p] for p in members if p in group.asked]
            known = [p for p in members if (p in group.asked if group.asked else p in group.records)]
            chosen = place._replace(recipe=sweep.name)
            if not known:
                continue
            for seed in sorted(set.intersection(*(set(cells) for cells in asked))) if asked else ():
                group.asked[chosen][seed] = asked[0][seed]
            records = [group.records[p] for p in known if p in group.records]
            if len(records) < len(known):
                continue
            for seed in sorted(set.intersection(*map(set, records))):
                done = [by_seed[seed] for by_seed in records if _kept(by_seed[seed]) is not None]
                group.records[chosen][seed] = max(done, key=_held_out) if done else records[0][seed]
                group.chosen.add(chosen)


def winners(group: Group, place: Place) -> str | None:
    """Which recipes were chosen at the place of a choice, each with the number of seeds if there are several; None
    elsewhere."""
    if place not in group.chosen:
        return None
    counts = Counter(r.recipe.label for _, r in sorted(group.records[place].items()) if r.outcome is not None)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{label} ({count})" for label, count in counts.most_common()) or None


def _sweep(group: Group, name: str, labels: dict[str, float]) -> Sweep:
    clean = {label: _held_out_clean(group, label) for label in labels}
    seeds = set.intersection(*(set(found) for found in clean.values()))
    means = {label: fmean(found[seed] for seed in sorted(seeds)) for label, found in clean.items() if seeds}
    best, bound = max(means.values(), default=0.0), max(labels.values())
    out = tuple(label for label, mean in means.items() if best - mean > bound + 1e-9)
    return Sweep(name, tuple(labels), bound, out)


def _held_out_clean(group: Group, recipe: str) -> dict[int, float]:
    """Held-out accuracy on clean data, without attack, by seed; 0 where that failed."""
    return {
        seed: 0.0 if (kept := _kept(record)) is None else kept.held_out_accuracy
        for place, by_seed in group.records.items()
        if place[:3] == (CLEAN, CLEAN, recipe)
        for seed, record in by_seed.items()
    }


def _held_out(record: Record) -> tuple[float, float]:
    kept = _kept(record)
    assert kept is not None
    return kept.held_out_accuracy, -(kept.held_out_loss if kept.held_out_loss is not None else float("inf"))


def _kept(record: Record) -> Epoch | None:
    """The epoch that the fine-tuner kept; None where the cell failed, or its record has no epochs."""
    return record.epochs[record.chosen_epoch] if record.epochs and record.chosen_epoch is not None else None
