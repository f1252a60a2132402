"""What share of the board's 95 % intervals hold the truth, on synthetic answers with the spread of real ones.

The spread is that of the committed records: of every cell of at least three seeds the variance of accuracy over seeds,
over items, and what is left, by analysis of variance, and the same of its drop; how much the variance over seeds
differs between cells, from the second moment of what was observed. Whether an item is answered right is a threshold on
a sum of normal numbers, one a seed and cell, one an item, one an item and cell, one for each answer: so the true
accuracies are known. They are those of cells that were drawn from the records. Seeds move the threshold by about as
much in all cells, so that accuracies near 0 and 1 differ little between seeds, as those of the records do (standard
deviation 6 points at 60 %, 0.7 at 96 %).

Every contest is scored by `Contest`, as boards do. Asked for is that 92 to 97 % of the intervals hold the truth.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm

from arena.records.files import NOT_RECORDS, read_records
from arena.score.cells import CLEAN, Place
from arena.score.contest import Contest
from arena.score.statistics import Answers, Bits, Estimate
from leaderboards.tables.collect import collect

RECORDS = Path(__file__).parents[3] / "leaderboards" / "records"
ITEMS = 300
OF_ITEMS, OF_ITEMS_AND_CELLS = 2.5, 0.5
"""Variances of what items have in common in all cells and in one, in units of that of an answer; these give the
components of the records, see `test_synthetic_answers_have_the_spread_of_real_ones`."""
SEEDS, CONTESTS = (3, 5, 10), 3000
DEVIATIONS = (0.01, 0.03, 0.05, 0.08, 0.12)
CHOICES = 8
ZERO_SHOT = 0.1


class Spread(NamedTuple):
    """Variances of accuracy, or of a difference, over seeds and items, and what is left of an answer's."""

    seeds: float
    items: float
    rest: float


class Four(NamedTuple):
    """True accuracies: clean data, clean data under an attack, a release, that release under the attack."""

    clean: float
    attacked: float
    release: float
    purified: float


class Real(NamedTuple):
    """What the records say: the cells; the spread of their accuracies and of drops; the variance of thresholds over
    seeds, and how much it varies between cells (its standard deviation by its mean); accuracies of cells that belong
    together, and the accuracies that attackers of one release can choose from, best first."""

    cells: list[Answers]
    accuracy: Spread
    drop: Spread
    threshold: float
    variation: float
    fours: list[Four]
    choices: list[list[float]]


def spread(tables: Sequence[Answers]) -> Spread:
    """The mean components of tables of answers, `(seeds, items)` each; unbiased, so that one may be below zero."""
    found = []
    for table in tables:
        seeds, items = table.values.shape
        values = table.values.astype(float)
        left = values - table.by_seed[:, None] - table.by_item + table.mean
        rest = float((left**2).sum()) / ((seeds - 1) * (items - 1))
        of_seeds = float(table.by_seed.var(ddof=1)) - rest / items
        found.append((of_seeds, float(table.by_item.var(ddof=1)) - rest / seeds, rest))
    return Spread(*np.mean(found, axis=0).tolist())


@cache
def real() -> Real:
    """The committed records, of all protocol versions."""
    accuracies: list[Answers] = []
    drops: list[Answers] = []
    observed: list[float] = []
    fours: list[Four] = []
    choices: list[list[float]] = []
    for path in sorted(RECORDS.rglob("*.jsonl")):
        if path.name in NOT_RECORDS or path.parent.name == "submissions":
            continue
        for group in collect(read_records(path)):
            cells = {
                place: Answers(np.stack([bits for _, bits in sorted(seeds.items())]))
                for place, seeds in group.bits.items()
                if len(seeds) >= 3
            }
            by_release = defaultdict[object, list[float]](list)
            for place, own in cells.items():
                accuracies.append(own)
                by_release[place.defense, place.recipe].append(own.mean)
                observed.append(float(own.by_seed.var(ddof=1)) / float(slope(own.mean)) ** 2)
                clean = cells.get(Place(CLEAN, CLEAN, place.recipe, 0.0))
                if clean is None or place.defense == CLEAN or clean.values.shape != own.values.shape:
                    continue
                drops.append(clean - own)
                attacked = cells.get(place._replace(defense=CLEAN))
                bare = cells.get(place._replace(attack=CLEAN, auxiliary=0.0))
                if attacked is not None and bare is not None and clean.mean > 0.5:
                    fours.append(Four(clean.mean, attacked.mean, bare.mean, own.mean))
            choices += [sorted(own, reverse=True)[:CHOICES] for own in by_release.values() if len(own) >= 3]
    # The variance of three seeds is that of the cell times chi squared / 2, whose second moment is 2.
    squares = np.array(observed)
    variation = np.sqrt(max(0.0, float((squares**2).mean()) / 2 / float(squares.mean()) ** 2 - 1))
    accuracy = spread(accuracies)
    threshold = accuracy.seeds / float((slope([own.mean for own in accuracies]) ** 2).mean())
    return Real(accuracies, accuracy, spread(drops), threshold, float(variation), fours, choices)


ANY = Four(0.85, 0.8, 0.5, 0.65)
"""Where seeds are given how much they differ."""


def slope(accuracies: float | Sequence[float]) -> NDArray[np.float64]:
    """By how much these accuracies grow with the threshold."""
    return np.asarray(norm.pdf(ndtri(np.clip(accuracies, 0.03, 0.97))))


def answers(accuracies: Sequence[float], of_seeds: NDArray[np.float64], seeds: int, rng: np.random.Generator) -> Bits:
    """Which items are answered right, ``(cells, seeds, items)``, of cells with these true accuracies and these standard
    deviations of the threshold over seeds."""
    threshold = ndtri(np.clip(accuracies, 0.03, 0.97))
    ratio = np.minimum(of_seeds, 0.9)
    alike = 1 + OF_ITEMS + OF_ITEMS_AND_CELLS
    luck = alike * ratio**2 / (1 - ratio**2)
    shape = (len(threshold), seeds, ITEMS)
    easy = np.sqrt(OF_ITEMS) * rng.normal(size=ITEMS)
    easy_here = np.sqrt(OF_ITEMS_AND_CELLS) * rng.normal(size=(len(threshold), 1, ITEMS))
    seed = np.sqrt(luck)[:, None, None] * rng.normal(size=(len(threshold), seeds, 1))
    start = (threshold * np.sqrt(alike + luck))[:, None, None]
    return np.asarray(start + easy + easy_here + seed + rng.standard_normal(shape, np.float32) > 0)


def spreads(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Standard deviations of thresholds over seeds, as in the records."""
    of_log = np.sqrt(np.log(1 + real().variation ** 2))
    return np.asarray(np.sqrt(real().threshold * np.exp(of_log * rng.normal(size=count) - of_log**2 / 2)))


def within(bits: Bits) -> dict[int, Bits]:
    return dict(enumerate(bits))


def four_scores(four: Four, seeds: int, rng: np.random.Generator, deviation: float | None = None) -> dict[str, bool]:
    """Whether the intervals of one contest hold the truth; undefined scores are left out. The standard deviation of
    accuracies over seeds is `deviation`, or as in the records."""
    four = Four(*np.clip(four, 0.03, 0.97).tolist())
    bits = answers(four, spreads(4, rng) if deviation is None else deviation / slope(four), seeds, rng)
    places = [Place(d, a, "lora", 0.0) for d in (CLEAN, "em") for a in (CLEAN, "jpeg")]
    contest = Contest(dict(zip(places, map(within, bits), strict=True)), rng.random(ITEMS) < ZERO_SHOT)
    scores = {place: score for found, _ in contest.results() for place, score in found.items()}
    bare, attacked = scores[places[2]], scores[places[3]]
    drop = four.clean - four.release
    truth = {
        "accuracy": (bare.accuracy, four.release),
        "drop": (bare.drop, drop),
        "protection": (bare.protection, drop / (four.clean - ZERO_SHOT)),
        "retention": (attacked.retention, (four.attacked - four.purified) / drop if drop else 0.0),
    }
    return {name: held(*pair) for name, pair in truth.items() if pair[0].value is not None}


def held(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def worst_case(choices: Sequence[float], seeds: int, rng: np.random.Generator) -> list[bool]:
    """Whether the interval of the protection that is left by the best of these attacks holds the truth; nothing where
    it is undefined."""
    true = [0.9, *np.clip(choices, 0.03, 0.88)]
    bits = answers(true, spreads(len(true), rng), seeds, rng)
    cells = {Place(CLEAN, CLEAN, "lora", 0.0): within(bits[0])}
    for number, own in enumerate(bits[1:]):
        cells[Place("em", CLEAN if number == len(choices) - 1 else f"attack {number}", "lora", 0.0)] = within(own)
    contest = Contest(cells, rng.random(ITEMS) < ZERO_SHOT)
    _, (robust,) = list(contest.results())[1]
    left = robust.robust_protection
    return [] if left.value is None else [held(left, (true[0] - max(true[1:])) / (true[0] - ZERO_SHOT))]


def drawn(count: int, rng: np.random.Generator) -> Iterator[Four]:
    fours = real().fours
    for number in rng.integers(len(fours), size=count):
        yield fours[number]


def test_synthetic_answers_have_the_spread_of_real_ones() -> None:
    rng = np.random.default_rng(0)
    cells: list[Answers] = []
    drops: list[Answers] = []
    for four in drawn(400, rng):
        clean, own = map(Answers, answers((four.clean, four.purified), spreads(2, rng), 3, rng))
        cells.append(own)
        drops.append(clean - own)
    for made, found in ((spread(cells), real().accuracy), (spread(drops), real().drop)):
        assert np.sqrt(made.seeds) == pytest.approx(np.sqrt(found.seeds), rel=0.2)
        assert (made.items, made.rest) == (pytest.approx(found.items, rel=0.2), pytest.approx(found.rest, rel=0.2))


def covered(seeds: int, contests: int, equal: int, given: int) -> dict[str, float]:
    """In percent of so many contests, how often intervals hold the truth: of four scores, of half as many worst cases,
    of `equal` ones of equally good attacks, and of `given` drops for each of the deviations."""
    rng = np.random.default_rng(seeds)
    found = defaultdict[str, list[bool]](list)
    for four in drawn(contests, rng):
        for name, one in four_scores(four, seeds, rng).items():
            found[name].append(one)
    for number in rng.integers(len(real().choices), size=contests // 2):
        found["worst case"] += worst_case(real().choices[number], seeds, rng)
    for _ in range(equal):
        found["of equal attacks"] += worst_case([0.6] * 22, seeds, rng)
    for deviation in DEVIATIONS if given else ():
        name = f"drop, {100 * deviation:g} points"
        found[name] = [four_scores(ANY, seeds, rng, deviation)["drop"] for _ in range(given)]
    return {name: 100 * float(np.mean(one)) for name, one in found.items()}


@pytest.mark.parametrize("seeds", SEEDS)
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int) -> None:
    shares = covered(seeds, CONTESTS, 0, 0)
    assert {name: share for name, share in shares.items() if not 92 <= share <= 97} == {}


@pytest.mark.parametrize(("seeds", "deviation", "most"), [(3, 0.01, 0.99), (3, 0.12, 0.98), (10, 0.12, 0.98)])
def test_they_do_so_wherever_seeds_differ_little_or_much(seeds: int, deviation: float, most: float) -> None:
    """Of three seeds that hardly differ the interval is somewhat too wide: 98 %, found with 750 contests."""
    rng = np.random.default_rng(seeds)
    one = [four_scores(ANY, seeds, rng, deviation)["drop"] for _ in range(200)]
    assert 0.91 <= np.mean(one) <= most  # within two standard errors of so few contests


@pytest.mark.parametrize("seeds", [3, 10])
def test_equally_good_attacks_are_the_hardest_for_the_worst_case(seeds: int) -> None:
    """The best of so many on the data is better than it is in truth."""
    rng = np.random.default_rng(seeds)
    one = [found for _ in range(60) for found in worst_case([0.6] * 22, seeds, rng)]
    assert 0.9 <= np.mean(one) <= 0.985


if __name__ == "__main__":  # the numbers of leaderboards/README.md
    for low, high in pairwise((0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 1)):
        own = [cell for cell in real().cells if low <= cell.mean < high]
        if own:
            deviation = 100 * np.sqrt(max(0.0, spread(own).seeds))
            sys.stdout.write(f"accuracy {low:g} to {high:g}: seeds differ by {deviation:.1f} points\n")
    for count in SEEDS:
        row = {name: round(share, 1) for name, share in covered(count, 3000, 200, 1000).items()}
        sys.stdout.write(f"{count} seeds: {row}\n")
