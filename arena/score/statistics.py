"""The scores of the protocol with their 95 % intervals.

A score is the mean of one number a seed and test item (`Answers`): 1 where an answer is right, and where two cells are
compared the difference of both, so that what they share cancels. Seeds and items are random and crossed, so the mean's
variance is that of a two-way table (Searle, Casella and McCulloch, "Variance Components", 1992, ch. 4), from the mean
squares ``MS`` of S seeds, n items and of what is left:

    max(MS_seeds, MS_rest) / (S n)  +  max(0, MS_items - MS_rest) / (S n)

An interval is Student's t with degrees of freedom after Satterthwaite (1946), or Student's t over seeds alone where
that is wider; that of a ratio is Fieller's (1954). There are no resamples: a bootstrap of three seeds is too narrow
where these differ, though one seed less be drawn (coverage 86 % at a standard deviation of 12 points), and the wider
one of it and the t interval too wide where they hardly do (98 %). What the intervals here cover is simulated in
``tests/arena/score/test_coverage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
POWER = 0.8
"""With which the smallest detectable difference is found."""
LEAST_SEEDS = 3
"""Seeds from which on an interval is believed."""

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

_DOUBLINGS = 60


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95 % interval, or why it has none.

    `value` is None where the score is undefined, `undefined` then says why; `low`, `high` and `p` are None with fewer
    than two seeds. `p` is the two-sided p value of zero; of a ratio it is that of the numerator.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    undefined: str | None = None
    p: float | None = None

    @property
    def positive(self) -> bool:
        """Whether the score is significantly above zero."""
        return self.value is not None and self.low is not None and min(self.value, self.low) > 0

    def reaching(self, below: float = 0.0, above: float = 0.0) -> Estimate:
        """The estimate with an interval that reaches further by so much."""
        if self.low is None or self.high is None:
            return self
        return replace(self, low=self.low - below, high=self.high + above)


class Error(NamedTuple):
    """The standard error of a mean and its degrees of freedom."""

    error: float
    freedom: float

    @property
    def half(self) -> float:
        """Half the width of the 95 % interval."""
        return self.error * _quantile(self.freedom, (1 + CONFIDENCE) / 2)

    @property
    def detectable(self) -> float:
        """The smallest true mean that a two-sided test at 5 % tells from zero with probability `POWER`; approximately,
        by a shifted t distribution."""
        return self.half + self.error * _quantile(self.freedom, POWER)

    def tail(self, value: float) -> float:
        """The probability of a value as large or larger, where the true one is zero."""
        from scipy.special import stdtr

        if self.error == 0:
            return 0.0 if value > 0 else 1.0
        return float(stdtr(self.freedom, -value / self.error))


class _Squares(NamedTuple):
    """Mean squares of a table, or mean products of two: of seeds, of items, of what is left."""

    seeds: float
    items: float
    rest: float


@dataclass(frozen=True)
class Answers:
    """One number a seed and test item, ``(seeds, items)``, all of them in `span`; the statistic is their mean."""

    values: NDArray[Any]
    span: tuple[float, float] = (0.0, 1.0)

    def __sub__(self, other: Answers) -> Answers:
        """The paired difference; both sides must be of the same seeds and items."""
        if self.values.shape != other.values.shape:
            raise ValueError("a paired difference needs the same seeds and items on both sides")
        span = self.span[0] - other.span[1], self.span[1] - other.span[0]
        return Answers(self.values.astype(np.float64) - other.values, span)

    @cached_property
    def by_seed(self) -> NDArray[np.float64]:
        """The mean of every seed."""
        return np.asarray(self.values.mean(axis=1, dtype=np.float64))

    @cached_property
    def by_item(self) -> NDArray[np.float64]:
        """The mean of every item."""
        return np.asarray(self.values.mean(axis=0, dtype=np.float64))

    @cached_property
    def total(self) -> float:
        """The sum, a whole number where all numbers are."""
        return float(self.values.sum(dtype=np.float64))

    @property
    def mean(self) -> float:
        """The statistic."""
        return self.total / self.values.size

    @cached_property
    def error(self) -> Error:
        """The standard error of the mean, of at least two seeds."""
        return _error(_squares(self, self), self.values.shape)

    def estimate(self) -> Estimate:
        """The mean with its interval, within the span that its numbers have."""
        seeds = len(self.values)
        if seeds < 2:
            return Estimate(self.mean, seeds=seeds)
        half = self.error.half
        low, high = max(self.mean - half, self.span[0]), min(self.mean + half, self.span[1])
        return Estimate(self.mean, low, high, seeds, p=_two_sided(self))


def pooled(several: Sequence[Answers]) -> Answers:
    """The mean of statistics of the same seeds and items, as one."""
    low, high = (sum(one.span[end] for one in several) / len(several) for end in (0, 1))
    return Answers(np.mean([one.values for one in several], axis=0), (low, high))


def ratio(part: Answers, whole: Answers) -> Estimate:
    """`part` / `whole`, of the same seeds and items, with Fieller's interval: the numbers r for which
    ``part - r whole`` may be zero. `whole` must be significantly above zero."""
    value = part.total / whole.total  # of counts, without the roundings of two means
    parts, both, wholes = (np.array(_squares(*pair)) for pair in ((part, part), (part, whole), (whole, whole)))

    def beyond(r: float) -> float:
        squares = _Squares(*(parts - 2 * r * both + r * r * wholes).tolist())
        return abs(part.mean - r * whole.mean) - _error(squares, part.values.shape).half

    near = -beyond(value) / whole.mean  # half the width, if the denominator were known exactly
    low, high = (_end(beyond, value, sign * near) for sign in (-1, 1))
    return Estimate(value, low, high, len(part.values), p=_two_sided(part))


def share(part: Answers, whole: Answers, whole_estimate: Estimate, reason: str) -> Estimate:
    """`part` / `whole`, undefined for `reason` where `whole` is not significantly above zero."""
    seeds = len(whole.values)
    if seeds < 2:
        return Estimate(seeds=seeds, undefined=FEW_SEEDS)
    if not whole_estimate.positive:
        return Estimate(seeds=seeds, undefined=reason)
    return ratio(part, whole)


def best(candidates: Sequence[Answers]) -> tuple[int, float]:
    """The index of the largest mean, and by how much its mean flatters it, at least 0.

    The largest of many means is large by luck too. What of that is luck is found by nested choice: for each seed and
    half of the items the choice is made by the other seeds and the other half, and counts on these (with one seed, by
    the other half of the items). Intervals reach further by the difference, see `tests/arena/score/test_coverage.py`.
    """
    chosen = max(range(len(candidates)), key=lambda i: candidates[i].mean)
    seeds, items = candidates[chosen].values.shape
    if len(candidates) == 1 or items < 2:
        return chosen, 0.0
    halves = [np.stack([c.values[:, half::2].mean(axis=1, dtype=np.float64) for c in candidates]) for half in (0, 1)]
    nested = 0.0
    for own, other in (halves, halves[::-1]):
        rest = other.sum(axis=1, keepdims=True) - other if seeds > 1 else other
        picked = rest.argmax(axis=0)
        weight = ((items + 1) // 2 if own is halves[0] else items // 2) / items
        nested += weight * float(own[picked, np.arange(seeds)].mean())
    return chosen, max(0.0, candidates[chosen].mean - nested)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P values that hold for all of them together (Holm 1979), in their order; None stays None and does not count."""
    tested = sorted((p, n) for n, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    reached = 0.0
    for rank, (p, n) in enumerate(tested):
        reached = max(reached, min(1.0, p * (len(tested) - rank)))
        corrected[n] = reached
    return corrected


def _squares(one: Answers, other: Answers) -> _Squares:
    seeds, items = one.values.shape
    mean = one.mean * other.mean
    of_seeds = items * (float(one.by_seed @ other.by_seed) - seeds * mean)
    of_items = seeds * (float(one.by_item @ other.by_item) - items * mean)
    total = float(np.vdot(one.values.astype(np.float64), other.values.astype(np.float64))) - seeds * items * mean
    freedom = max(items - 1, 1)
    rest = (total - of_seeds - of_items) / ((seeds - 1) * freedom)
    return _Squares(of_seeds / (seeds - 1), of_items / freedom, rest)


def _error(squares: _Squares, shape: tuple[int, ...]) -> Error:
    """The error that gives the wider interval: of seeds and items, or of seeds alone."""
    seeds, items = shape
    total, of_rest = seeds * items, max(squares.rest, 0.0)
    own, degrees = max(squares.seeds, 0.0), seeds - 1.0
    alone = Error(math.sqrt(own / total), degrees)
    if own < of_rest:  # seeds differ by less than the items' luck alone would have it
        own, degrees = of_rest, degrees * max(items - 1, 1)
    of_items = max(squares.items - of_rest, 0.0)
    if own + of_items <= _ROUNDING:
        return Error(0.0, math.inf)
    freedom = (own + of_items) ** 2 / (own**2 / degrees + of_items**2 / max(items - 1, 1))
    both = Error(math.sqrt((own + of_items) / total), freedom)
    return max(both, alone, key=lambda error: error.half)


_ROUNDING = 1e-12
"""Mean squares below this are what is left of zero after sums of floats."""


@lru_cache(maxsize=4096)
def _quantile(freedom: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(min(freedom, 1e9), probability))


def _two_sided(answers: Answers) -> float:
    return min(1.0, 2 * answers.error.tail(abs(answers.mean)))


def _end(beyond: Callable[[float], float], value: float, step: float) -> float:
    """Where an interval around `value` ends: the root of `beyond` in the direction of `step`."""
    from scipy.optimize import brentq

    if step * step <= _ROUNDING:
        return value
    inside = value
    for _ in range(_DOUBLINGS):
        outside = inside + 1.25 * step
        if beyond(outside) > 0:
            return float(brentq(beyond, inside, outside, xtol=1e-7))
        inside, step = outside, 2 * step
    return math.copysign(math.inf, step)
