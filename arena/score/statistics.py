"""The scores of the protocol with paired bootstrap intervals.

Test items and seeds are resampled jointly and independently of each other (the pigeonhole bootstrap: Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007; it errs on the wide side), 10,000 times, and every cell
of a comparison sees the same resampled items and seeds. Intervals are percentile intervals at 95 %. With the few seeds
one can afford, the share of the variance that is due to seeds is underestimated by (S - 1) / S.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95

# Why a score is undefined.
NO_GAIN = "no gain"
NO_PROTECTION = "no protection to retain"
NO_CONTROL = "no clean control"
NO_BASELINE = "not run without attack"
NO_ZERO_SHOT = "no zero-shot score"
FEW_SEEDS = "fewer than 2 seeds"
NO_SEEDS = "no seed in common"
FAILED = "failed"

Bits = NDArray[np.bool_]
Floats = NDArray[np.float32]

_SEED = 2605
_ITEM_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95 % interval, or why it has none.

    `value` is None where the score is undefined, `undefined` then says why; `low` and `high` are None with fewer than
    two seeds.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    undefined: str | None = None

    @property
    def positive(self) -> bool:
        """Whether the score is significantly above zero."""
        return self.value is not None and self.low is not None and min(self.value, self.low) > 0


@dataclass(frozen=True)
class Draws:
    """A statistic on the data (`point`) and on every resample (`draws`, ``(resamples,)``), in units of 1/`scale`.

    Accuracies are kept as whole numbers of right answers, which float32 adds without error: a difference is zero
    exactly when the counts are equal, in whatever order a BLAS sums them.
    """

    point: float
    draws: Floats
    scale: float
    seeds: int

    def __sub__(self, other: Draws) -> Draws:
        """The paired difference; both sides must come from the same seeds."""
        if (self.scale, self.seeds) != (other.scale, other.seeds):
            raise ValueError("a paired difference needs the same seeds and items on both sides")
        return Draws(self.point - other.point, self.draws - other.draws, self.scale, self.seeds)

    def over(self, other: Draws) -> Draws:
        """The paired ratio; unbounded, with the numerator's sign, where the denominator is not above zero."""
        if other.draws.min() > 0:
            ratio = self.draws / other.draws
        else:
            usable = other.draws > 0
            unbounded = np.where(self.draws == 0, 0, np.copysign(np.float32(np.inf), self.draws))
            ratio = np.divide(self.draws, other.draws, out=unbounded, where=usable)
        return Draws(self.point / other.point, ratio, 1.0, self.seeds)

    def estimate(self) -> Estimate:
        """The value with its percentile interval."""
        value = self.point / self.scale
        if self.seeds < 2:
            return Estimate(value, seeds=self.seeds)
        last = self.draws.size - 1
        tail = round((1 - CONFIDENCE) / 2 * last)
        low_part = np.partition(self.draws, last - tail)  # of all that sorting would do, what is asked for
        high = float(low_part[last - tail]) / self.scale
        low_part = low_part[: last - tail + 1]
        low_part.partition(tail)
        return Estimate(value, float(low_part[tail]) / self.scale, high, self.seeds)

    def standard_error(self) -> float:
        """The bootstrap standard error."""
        return float(np.std(self.draws)) / self.scale


def best(candidates: list[Draws]) -> tuple[int, Draws]:
    """The attacker's choice: index of the largest on the data, and the maximum taken anew in every resample."""
    chosen = max(range(len(candidates)), key=lambda i: candidates[i].point)
    top = candidates[chosen]
    return chosen, Draws(top.point, np.maximum.reduce([c.draws for c in candidates]), top.scale, top.seeds)


def share(part: Draws, whole: Draws, whole_estimate: Estimate, reason: str) -> Estimate:
    """`part` / `whole`, undefined for `reason` where `whole` is not significantly above zero."""
    if whole.seeds < 2:
        return Estimate(seeds=whole.seeds, undefined=FEW_SEEDS)
    if not whole_estimate.positive:
        return Estimate(seeds=whole.seeds, undefined=reason)
    return part.over(whole).estimate()


class Bootstrap:
    """Joint resamples of `items` test items and of seeds; the same for every caller with as many items."""

    def __init__(self, items: int, resamples: int = RESAMPLES) -> None:
        self.items = items
        self.resamples = resamples
        self._seed_counts: dict[int, Floats] = {}

    @cached_property
    def _item_counts(self) -> NDArray[np.uint8]:
        """How often each item was drawn in each resample, shape ``(items, resamples)``."""
        rng = np.random.default_rng([_SEED, self.items])
        counts = np.empty((self.items, self.resamples), np.uint8)
        step = max(1, 2_000_000 // self.items)
        for start in range(0, self.resamples, step):
            width = min(step, self.resamples - start)
            drawn = rng.integers(self.items, size=(self.items, width)) * width + np.arange(width)
            counts[:, start : start + width] = np.bincount(drawn.ravel(), minlength=self.items * width).reshape(
                -1, width
            )
        return counts

    def seed_counts(self, seeds: int) -> Floats:
        """How often each of `seeds` seeds was drawn in each resample, shape ``(seeds, resamples)``."""
        if seeds not in self._seed_counts:
            drawn = np.random.default_rng([_SEED, 0, seeds]).integers(seeds, size=(seeds, self.resamples))
            counts = (drawn == np.arange(seeds)[:, None, None]).sum(axis=1)
            self._seed_counts[seeds] = counts.astype(np.float32)
        return self._seed_counts[seeds]

    def right_answers(self, bits: Bits) -> Floats:
        """Right answers in every resample of the items: ``(rows, items)`` to ``(rows, resamples)``, whole numbers."""
        total: Floats | None = None
        for start in range(0, self.items, _ITEM_BLOCK):
            block = slice(start, start + _ITEM_BLOCK)
            right = bits[:, block].astype(np.float32) @ self._item_counts[block].astype(np.float32)
            total = right if total is None else np.add(total, right, out=total)
        assert total is not None
        return total

    def mean(self, points: list[int], answers: list[Floats]) -> Draws:
        """Mean accuracy over seeds, from each seed's right answers on the data and in the item resamples."""
        seeds = len(points)
        counts = self.seed_counts(seeds)
        draws = counts[0] * answers[0]
        for count, answer in zip(counts[1:], answers[1:], strict=True):
            draws += count * answer
        return Draws(sum(points), draws, float(seeds * self.items), seeds)

    def constant(self, points: int, answers: Floats, seeds: int) -> Draws:
        """An accuracy without seeds (zero-shot), made comparable with means over `seeds` seeds."""
        return Draws(points * seeds, answers * np.float32(seeds), float(seeds * self.items), seeds)


def minimum_detectable_difference(standard_error: float, power: float = 0.8, level: float = 1 - CONFIDENCE) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`, in accuracy."""
    normal = statistics.NormalDist()
    return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) * standard_error
